"""DICOM series written with pydicom: order, rescaling, subjects, files that are no image."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, MRImageStorage, generate_uid

from fedsim.core.errors import InputError
from fedsim.data.formats.dicom import Dicom
from fedsim.data.left_out import lines, noting
from fedsim.data.source import Volume

SERIES = generate_uid(entropy_srcs=["one"])
SAGITTAL = [0, 1, 0, 0, 0, -1]
"""Rows to the back, columns to the feet: the normal points to the right, so x falls along it."""


def dataset(pixels: NDArray[np.int16] | None, instance: int, **tags: object) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = SERIES, 5, "Sag DESS"
    data.PatientID, data.InstanceNumber = "Patient^1", instance
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    return data


def write(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def picture(value: int, shape: tuple[int, int] = (4, 6)) -> NDArray[np.int16]:
    return (np.arange(np.prod(shape)).reshape(shape) + 100 * value).astype(np.int16)


def test_slices_are_sorted_along_their_normal_and_rescaled(tmp_path: Path) -> None:
    for name, place in (("b.dcm", 0), ("a.dcm", 2), ("c.ima", 1), ("sub/IM0001", 3), ("sub/1.2.840.7", 4)):
        tags = {"ImageOrientationPatient": SAGITTAL, "ImagePositionPatient": [-1.5 * place, 7, 9]}
        rescale = {"RescaleSlope": 2, "RescaleIntercept": -10}
        write(tmp_path / "k" / name, dataset(picture(place), 50 - place, **tags, **rescale))
    (volume,) = Dicom(path="k").volumes(tmp_path)
    assert (volume.subject, volume.name, volume.origin) == ("Patient-1-3d614e28", "Patient-1-3d614e28_5_Sag-DESS", "k")
    assert volume.who.original == "Patient^1"
    assert volume.images.dtype == np.float32
    np.testing.assert_array_equal(volume.images, [picture(place) * 2.0 - 10 for place in range(5)])


def test_without_places_the_instance_number_sorts(tmp_path: Path) -> None:
    for name, instance in (("x1.dcm", 10), ("x2.dcm", 9), ("x3.dcm", 11)):
        write(tmp_path / name, dataset(picture(instance), instance))
    (volume,) = Dicom(path=".").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(9), picture(10), picture(11)])


def test_series_subjects_and_contrasts(tmp_path: Path) -> None:
    for number, (folder, patient) in enumerate((("p1", "A"), ("p1", "A"), ("p2", ""))):
        described = {"SeriesDescription": f"AX T{number} TSE", "SeriesNumber": number, "PatientID": patient}
        uid = generate_uid(entropy_srcs=[str(number)])
        write(tmp_path / folder / f"{number}.dcm", dataset(picture(number), 1, SeriesInstanceUID=uid, **described))
    every = list(Dicom(path=".").volumes(tmp_path))
    assert [v.name for v in every] == ["A_0_AX-T0-TSE", "A_1_AX-T1-TSE", "p2_2_AX-T2-TSE"]
    assert [v.subject for v in every] == ["A", "A", "p2"]
    assert [v.subject for v in Dicom(path=".", subject="site").volumes(tmp_path)] == ["site"] * 3
    assert [v.name for v in Dicom(path=".", contrast="t2").volumes(tmp_path)] == ["p2_2_AX-T2-TSE"]
    with pytest.raises(InputError, match="no contrast PD; it holds AX T0 TSE, AX T1 TSE, AX T2 TSE"):
        list(Dicom(path=".", contrast="PD").volumes(tmp_path))


def test_files_without_pixels_or_of_another_kind_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(picture(1), 1))
    write(tmp_path / "report.dcm", dataset(None, 2))
    (tmp_path / "LICENSE").write_text("text")
    (volume,) = Dicom(path=".").volumes(tmp_path)
    assert len(volume.images) == 1
    write(tmp_path / "none" / "report.dcm", dataset(None, 2))
    with pytest.raises(InputError, match="its DICOM files hold no pixel data"):
        list(Dicom(path="none").volumes(tmp_path))


def test_mixed_sizes_frames_and_colours_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", dataset(picture(1), 1))
    write(tmp_path / "b.dcm", dataset(picture(2, (4, 8)), 2))
    with pytest.raises(InputError, match=r"b\.dcm: is \(4, 8\), but its series began with \(4, 6\)"):
        list(Dicom(path=".").volumes(tmp_path))
    write(tmp_path / "b.dcm", dataset(picture(2), 2, NumberOfFrames=2, Rows=2))
    with pytest.raises(InputError, match=r"b\.dcm: holds pixels \(2, 2, 6\)"):
        list(Dicom(path=".").volumes(tmp_path))


def test_damaged_files_and_missing_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "a.dcm", dataset(picture(1, (64, 64)), 1))
    whole = path.read_bytes()
    for damaged in (whole[:-3000], whole[:680], b"no DICOM at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.dcm: cannot be read .*; expected a DICOM file") as caught:
            list(Dicom(path="a").volumes(tmp_path))
        assert "\n" not in str(caught.value)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "LICENSE").write_text("text")
    for folder in ("b", "c"):
        with pytest.raises(InputError, match=r"holds no DICOM file|no such file"):
            Dicom(path=folder).files(tmp_path)


def read(root: Path, **keys: object) -> tuple[list[Volume], list[str]]:
    """The volumes, and what was left out."""
    with noting(root) as left_out:
        volumes = list(Dicom(path=".", **keys).volumes(root))
    return volumes, lines(left_out)


PHASES = [
    {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "M"], "ComplexImageComponent": "PHASE"},
    {"ge": 1},
    {"philips": "P"},
    {"ge": b"\x01\x00"},
    {"philips": b"P "},
]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_phase_is_told_from_magnitude(tmp_path: Path, phase: dict[str, object], apart: bool) -> None:
    """In one series or in two of one description; as the standard, Siemens, Philips and GE say it."""
    for number in range(3):
        write(tmp_path / f"m{number}.dcm", dataset(picture(number), number, ImageType=["ORIGINAL", "PRIMARY", "M"]))
        tags = {key: value for key, value in phase.items() if key not in ("ge", "philips")}
        uid = generate_uid(entropy_srcs=["phase"]) if apart else SERIES
        data = dataset(picture(number + 50), number, SeriesInstanceUID=uid, **tags)
        if "ge" in phase:
            data.add_new((0x0043, 0x102F), "UN" if isinstance(phase["ge"], bytes) else "SS", phase["ge"])
        if "philips" in phase:
            data.add_new((0x2005, 0x1011), "UN" if isinstance(phase["philips"], bytes) else "CS", phase["philips"])
        write(tmp_path / f"p{number}.dcm", data)
    (volume,), left = read(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(number) for number in range(3)])
    assert left == ["left out: 3 x phase image: p0.dcm, p1.dcm, p2.dcm"]
    for number in range(3):
        (tmp_path / f"m{number}.dcm").unlink()
    with pytest.raises(InputError, match="holds phase images only"):
        read(tmp_path)


def test_real_and_imaginary_images_make_complex_ones(tmp_path: Path) -> None:
    for number in range(2):
        for part, value in (("R", 3), ("I", 70)):
            data = dataset(picture(value + number), number, ImageType=["ORIGINAL", "PRIMARY", part])
            write(tmp_path / f"{part}{number}.dcm", data)
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(3 + n) + 1j * picture(70 + n) for n in range(2)])


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    images = [picture(0) + 1, np.pad(picture(1)[1:, 1:], ((1, 0), (1, 0)))]  # darkest 0
    for number, image in enumerate(images):
        data = dataset(np.int16(1000) - image.astype(np.int16), number, PhotometricInterpretation="MONOCHROME1")
        write(tmp_path / f"{number}.dcm", data)
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images, images)


def test_a_mosaic_is_cut_up(tmp_path: Path) -> None:
    tiles = np.random.default_rng(0).integers(1, 900, (9, 5, 4)).astype(np.int16)
    tiles[7:] = 0
    mosaic = tiles.reshape(3, 3, 5, 4).swapaxes(1, 2).reshape(15, 12)
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    data = dataset(mosaic, 1, ImageType=kind)
    write(tmp_path / "a.dcm", data)
    with pytest.raises(InputError, match=r"a\.dcm: is a Siemens mosaic \(15, 12\) of an unrecorded number"):
        read(tmp_path)
    data.add_new((0x0019, 0x100A), "US", 7)
    write(tmp_path / "a.dcm", data)
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images, tiles[:7])
    del data[(0x0019, 0x100A)]
    tag = struct.pack("<64si4siii", b"NumberOfImagesInMosaic", 1, b"US\0\0", 6, 1, 77)
    csa = b"SV10\x04\x03\x02\x01" + struct.pack("<II", 1, 77) + tag + struct.pack("<iiii", 2, 2, 77, 2) + b"7\0\0\0"
    data.add_new((0x0029, 0x1010), "OB", csa)
    write(tmp_path / "a.dcm", data)
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images, tiles[:7])


def test_patients_under_one_series_number_are_kept_apart(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        for number in range(2):
            write(tmp_path / f"{patient}{number}.dcm", dataset(picture(ord(patient)), number, PatientID=patient))
    volumes, _ = read(tmp_path)
    assert [(volume.subject, len(volume.images)) for volume in volumes] == [("A", 2), ("B", 2)]


def test_an_id_that_everybody_has_is_nobodys(tmp_path: Path) -> None:
    for patient, anonymous in (("a", "ANON"), ("b", "Anonymous"), ("c", "ANON")):
        tags = {"PatientID": anonymous, "StudyInstanceUID": generate_uid(entropy_srcs=[patient])}
        write(tmp_path / patient / "1.dcm", dataset(picture(1), 1, **tags))
    volumes, _ = read(tmp_path)
    assert len({volume.subject for volume in volumes}) == 3
    for patient, born in (("a", "19500101"), ("b", "19610101"), ("c", "")):
        tags = {"PatientID": "S17", "StudyInstanceUID": generate_uid(entropy_srcs=[patient]), "PatientBirthDate": born}
        write(tmp_path / patient / "1.dcm", dataset(picture(1), 1, **tags))
    with pytest.raises(InputError, match=r"PatientID S17 has 2 birth dates .* it names several people; set subject"):
        read(tmp_path)
    assert [volume.subject for volume in read(tmp_path, subject="folder")[0]] == ["a", "b", "c"]


def test_what_is_no_image_of_an_anatomy_is_left_out_and_said(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"m{number}.dcm", dataset(picture(number), number))
    uid = generate_uid(entropy_srcs=["other"])
    scout = {"SeriesInstanceUID": uid, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "x"}
    write(tmp_path / "scout.dcm", dataset(picture(9, (8, 8)), 1, **scout))
    write(tmp_path / "inside.dcm", dataset(picture(9, (8, 8)), 9))  # of another size, within the series
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT", "SeriesInstanceUID": uid}
    write(tmp_path / "screen.dcm", dataset(picture(8), 1, **capture))
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    write(tmp_path / "colour.dcm", dataset(picture(8), 1, **colour))
    (volume,), left = read(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(number) for number in range(3)])
    assert sorted(left) == [
        "left out: 1 x colour image: colour.dcm",
        "left out: 1 x image of another size than its series: inside.dcm",
        "left out: 1 x localizer: scout.dcm",
        "left out: 1 x screen save: screen.dcm",
    ]
    (alone,), left = read(tmp_path, contrast="x")
    assert alone.images.shape == (1, 8, 8), "a localizer that was asked for is read"


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_files_without_preamble_are_read(tmp_path: Path, suffix: str) -> None:
    for number in range(2):
        path = write(tmp_path / f"IM{number}{suffix}", dataset(picture(number), number))
        whole = path.read_bytes()
        path.write_bytes(whole[144 + int.from_bytes(whole[140:144], "little") :])
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images, [picture(0), picture(1)])


def test_lossless_jpeg_is_decoded(tmp_path: Path) -> None:
    pixels = (picture(1, (16, 16)) * 8).astype(np.uint16)
    data = dataset(pixels.astype(np.int16), 1, BitsStored=16, PixelRepresentation=0)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = encapsulate([imagecodecs.ljpeg_encode(pixels, bitspersample=16)])
    data["PixelData"].is_undefined_length = True
    write(tmp_path / "a.dcm", data)
    (volume,), _ = read(tmp_path)
    np.testing.assert_array_equal(volume.images[0], pixels)
