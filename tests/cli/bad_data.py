"""Damaged image files of every format, as the source of a workload's only site."""

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom
import scipy.io
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from .bad_inputs import Bad

Array = NDArray[Any]
Writer = Callable[[Path, Array], object]
IMAGES = np.random.default_rng(0).uniform(1, 200, (3, 40, 36))
"""(slices, H, W)"""


def fastmri(path: Path, images: Array, dataset: str = "kspace", header: str | bytes | None = None) -> None:
    complex_ = images.dtype.kind in "fc" and images.ndim > 1
    with h5py.File(path, "w") as file:
        file[dataset] = np.fft.fft2(images).astype(np.complex64) if complex_ else images
        if header is not None:
            file["ismrmrd_header"] = header


def nifti(path: Path, images: Array) -> None:
    image = nibabel.Nifti1Image(np.moveaxis(images, 0, -1), np.eye(4))
    nibabel.save(image, path)


def matlab_5(path: Path, images: Array) -> None:
    scipy.io.savemat(path, {"img": np.moveaxis(images, 0, -1)})


def matlab_73(path: Path, images: Array) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["img"] = images
        file["img"].attrs["MATLAB_class"] = np.bytes_("double")


def tiff(path: Path, images: Array) -> None:
    tifffile.imwrite(path, images.astype(np.float32), photometric="minisblack")


def png(path: Path, images: Array) -> None:
    PIL.Image.fromarray(images.astype(np.uint8)[0]).save(path)


def dicom(path: Path, images: Array, **tags: object) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = data.SeriesInstanceUID = "1.2.3"
    data.Rows, data.Columns = images.shape[-2:]
    data.PatientID, data.SamplesPerPixel, data.PhotometricInterpretation = "P", 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = images[0].astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


FORMATS: dict[str, tuple[str, str, Writer]] = {
    "fastMRI files": ("fastmri", "scan.h5", fastmri),
    "NIfTI files": ("nifti", "scan.nii", nifti),
    "NIfTI files, compressed": ("nifti", "scan.nii.gz", nifti),
    "DICOM files": ("dicom", "scan.dcm", dicom),
    "MATLAB files, version 5": ("matlab", "scan.mat", matlab_5),
    "MATLAB files, version 7.3": ("matlab", "scan.mat", matlab_73),
    "TIFF files": ("tiff", "scan.tif", tiff),
    "PNG files": ("png", "scan.png", png),
}
NOISE = np.random.default_rng(1).bytes(3000)
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "cut in its header": lambda content: content[: min(100, len(content) // 2)],
    "cut in its data": lambda content: content[: len(content) * 2 // 3],
    "beginning missing": lambda content: content[200:],
    "header of zeros": lambda content: bytes(700) + content[700:],
    "noise": lambda _: NOISE,
    "text": lambda _: b"these are no pixels\n" * 40,
    "a web page": lambda _: b"<!DOCTYPE html><html><body>404</body></html>",
    "a zip file": lambda _: b"PK\x03\x04" + bytes(100),
}
WITH_FLOATS = {"fastmri", "nifti", "matlab", "tiff"}


def spoiled(value: float) -> Array:
    images = IMAGES.copy()
    images[1, 20, 20] = value
    return images


ARRAYS: dict[str, Array] = {
    "one NaN": spoiled(np.nan), "one infinite": spoiled(-np.inf), "values of 1e30": IMAGES * 1e30,
    "values of 1e-30": IMAGES * 1e-30,
    "longer than any field of view": np.ones((1, 2, 20_000)),
}  # fmt: skip


def patch(path: Path, at: int, number: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + number + content[at + len(number) :])


def bomb(path: Path, bytes_: int) -> None:
    """A NIfTI header that claims more than a small file can hold, with zeros for data."""
    nifti(path.with_suffix(""), IMAGES.astype(np.float64))
    header = path.with_suffix("").read_bytes()[:352]
    path.with_suffix("").unlink()
    sides = np.array([3, 30_000, 30_000, bytes_ // (8 * 30_000**2), 1, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(header[:40] + sides + header[56:] + bytes(10_000)))


def huge_hdf(path: Path, name: str) -> None:
    with h5py.File(path, "w", userblock_size=512 if name == "img" else 0) as file:
        file.create_dataset(
            name, (1000, 4000, 4000), np.complex64 if name == "kspace" else np.float64, chunks=(1, 64, 64)
        )


def odd_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["two\nlines"] = file["\x1b[31mred"] = IMAGES


def huge_png(path: Path) -> None:
    content = io.BytesIO()
    PIL.Image.new("L", (8000, 8000)).save(content, format="PNG")
    path.write_bytes(content.getvalue()[:4000])


DOCTYPE = '<!DOCTYPE x [<!ENTITY a "ha">]><ismrmrdHeader>&a;</ismrmrdHeader>'
SIZE = (
    "<ismrmrdHeader><encoding><reconSpace><matrixSize><x>{}</x><y>9</y></matrixSize></reconSpace></encoding>"
    "</ismrmrdHeader>"
)
SPECIAL: dict[str, dict[str, Callable[[Path], object]]] = {
    "fastMRI files": {
        "no kspace": lambda p: fastmri(p, IMAGES, dataset="image"),
        "real kspace": lambda p: fastmri(p, np.ones((3, 40, 36), int)),
        "kspace of one axis": lambda p: fastmri(p, np.ones(5)), "kspace of two axes": lambda p: fastmri(p, IMAGES[0]),
        "a header with entities": lambda p: fastmri(p, IMAGES, header=DOCTYPE),
        "a header that is no XML": lambda p: fastmri(p, IMAGES, header="<x"),
        "a matrix of 0": lambda p: fastmri(p, IMAGES, header=SIZE.format(0)),
        "a matrix of a word": lambda p: fastmri(p, IMAGES, header=SIZE.format("x")),
        "a matrix of 5000 digits": lambda p: fastmri(p, IMAGES, header=SIZE.format("9" * 5000)),
        "claims 128 GB": lambda p: huge_hdf(p, "kspace"),
    },
    "NIfTI files": {
        "five axes": lambda p: nifti(p, np.ones((2, 3, 4, 5, 6))),
        "a singular affine": lambda p: (nifti(p, IMAGES), patch(p, 312, bytes(16))),
        "no known type": lambda p: (nifti(p, IMAGES), patch(p, 70, b"\x07\x70")),
        "a negative side": lambda p: (nifti(p, IMAGES), patch(p, 42, b"\x00\x80")),
        "a side of 32767": lambda p: (nifti(p, IMAGES), patch(p, 42, b"\xff\x7f")),
        "data far behind its end": lambda p: (nifti(p, IMAGES), patch(p, 108, np.float32(1e9).tobytes())),
        "an infinite slope": lambda p: (nifti(p, IMAGES), patch(p, 112, np.float32([1e38, 1e38]).tobytes())),
    },
    "NIfTI files, compressed": {
        "claims 7 TB": lambda p: bomb(p, 7 * 10**12), "claims 60 GB": lambda p: bomb(p, 60 * 10**9),
        "a bad checksum": lambda p: (nifti(p, IMAGES), p.write_bytes(p.read_bytes()[:-8] + bytes(8))),
    },
    "DICOM files": {
        "no pixels": lambda p: dicom(p, IMAGES, PixelData=b""), "too few pixels": lambda p: dicom(p, IMAGES, Rows=4000),
        "65535 x 65535": lambda p: dicom(p, IMAGES, Rows=65535, Columns=65535),
        "frames": lambda p: dicom(p, IMAGES, NumberOfFrames=2, Rows=20),
        "two billion frames": lambda p: dicom(p, IMAGES, NumberOfFrames=2**31 - 1),
        "colour": lambda p: dicom(p, IMAGES, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        "an unknown interpretation": lambda p: dicom(p, IMAGES, PhotometricInterpretation="MONO\nCHROME"),
        "0 bits": lambda p: dicom(p, IMAGES, BitsAllocated=0),
        "a position of words": lambda p: dicom(p, IMAGES, ImageOrientationPatient=[0, 0, 0, 0, 0, 0, 0],
            ImagePositionPatient=[1, 2]),
    },
    "MATLAB files, version 5": {
        "no array": lambda p: scipy.io.savemat(p, {}), "a text": lambda p: scipy.io.savemat(p, {"t": "x"}),
        "a struct of two arrays": lambda p: scipy.io.savemat(p, {"s": {"a": IMAGES, "b": IMAGES}}),
        "two arrays": lambda p: scipy.io.savemat(p, {"a": IMAGES, "b": IMAGES}),
        "four axes": lambda p: scipy.io.savemat(p, {"a": np.ones((2, 2, 2, 2))}),
        "a cell": lambda p: scipy.io.savemat(p, {"c": np.array([IMAGES, 1], object)}),
        "version 4": lambda p: scipy.io.savemat(p, {"a": IMAGES[0]}, format="4"),
        "a type that does not exist": lambda p: (matlab_5(p, IMAGES), patch(p, 184, b"\xff\xff\0\0")),
        "a complex flag without a second part": lambda p: (matlab_5(p, IMAGES), patch(p, 145, b"\x08")),
        "negative sides": lambda p: (matlab_5(p, IMAGES), patch(p, 160, b"\xff\xff\xff\xff")),
        "sides of 2^31": lambda p: (matlab_5(p, IMAGES), patch(p, 160, b"\xff\xff\xff\x7f")),
    },
    "MATLAB files, version 7.3": {
        "no array": lambda p: h5py.File(p, "w").close(),
        "a group": lambda p: h5py.File(p, "w").create_group("g").file.close(),
        "claims 128 GB": lambda p: huge_hdf(p, "img"), "odd names": odd_names,
        "one axis": lambda p: matlab_73(p, np.ones(9)),
        "four axes": lambda p: matlab_73(p, np.ones((2, 2, 2, 2))),
    },
    "TIFF files": {
        "pages of two sizes": lambda p: [tifffile.imwrite(p, np.ones((n, n), np.uint8),
            append=n > 20) for n in (20, 30)],
        "five axes": lambda p: tifffile.imwrite(p, np.ones((2, 3, 4, 20, 20), np.uint8)),
        "pages that name themselves": lambda p: (tiff(p, IMAGES[:1]), patch(p, 4, b"\x04\0\0\0")),
        "a page beyond its end": lambda p: (tiff(p, IMAGES[:1]), patch(p, 4, b"\xff\xff\xff\x7f")),
    },
    "PNG files": {"a JPEG": lambda p: PIL.Image.new("L", (40, 40)).save(p, format="JPEG"),
        "cut from 64 megapixels": huge_png, "a wrong checksum": lambda p: (png(p, IMAGES), patch(p, 30, b"\0\0"))},
}  # fmt: skip


def bad_data() -> Iterator[Bad]:
    for kind, (format_, name, write) in FORMATS.items():
        for what, change in BYTES.items():
            yield bad_file(
                kind, what, format_, name, lambda p, w=write, c=change: (w(p, IMAGES), p.write_bytes(c(p.read_bytes())))
            )
        for what, images in ARRAYS.items() if format_ in WITH_FLOATS else ():
            yield bad_file(kind, what, format_, name, lambda p, w=write, i=images: w(p, i))
        yield bad_file(kind, "no signal", format_, name, lambda p, w=write: w(p, IMAGES * 0), "data/site")
        for what, make in SPECIAL[kind].items():
            claims = f"{name}: claims to hold" if what.startswith("claims") else ""
            yield bad_file(kind, what, format_, name, make, claims)


def bad_file(kind: str, what: str, format_: str, name: str, make: Callable[[Path], object], names: str = "") -> Bad:
    def prepare(folder: Path) -> None:
        (folder / "data" / "site").mkdir()
        make(folder / "data" / "site" / name)

    source, split = f"{{format: {format_}, path: site}}", "{train: 1, val: 0, test: 0}"
    site = f"federation.sites=[{{name: A, source: {source}, split: {split}}}]"
    return Bad(kind, what, ("data", "import", "small.yaml", "--set", site), names or name, prepare)
