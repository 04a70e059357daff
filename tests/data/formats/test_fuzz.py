"""Every reader on damaged files: it gives finite k-space, or one line that names the file, and takes little memory."""

import gzip
import io
import resource
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import scipy.io
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage, RLELossless

from fedsim.core.errors import InputError
from fedsim.data.formats.dicom import Dicom
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.matlab import Matlab
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.source import FileSource

IMAGES = np.random.default_rng(0).uniform(1, 200, (3, 12, 10))
"""(slices, H, W)"""
HEADER = (
    '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><reconSpace><matrixSize><x>8</x><y>9</y></matrixSize>'
    "</reconSpace></encoding></ismrmrdHeader>"
)
MOST_MEMORY = 600 * 2**20


@dataclass(frozen=True)
class Format:
    """A small valid file of a format."""

    source: FileSource
    name: str
    content: bytes
    finish: Callable[[bytes], bytes] = bytes
    """Makes a file of the content, so that damage gets past checksums."""

    def shard(self, root: Path, content: bytes) -> Path:
        (root / "data").mkdir()
        (root / "data" / self.name).write_bytes(content)
        return ensure_shard(self.source, root, root / "cache", (16, 16))


def saved(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def hdf(**options: Any) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w") as file:
            file.create_dataset("kspace", data=np.fft.fft2(IMAGES).astype(np.complex64), **options)
            file["ismrmrd_header"] = HEADER
            file.attrs.update(acquisition="AXT2", patient_id="one")

    return saved(write)


def matlab_73() -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w", userblock_size=512) as file:
            file["img"] = IMAGES
            file["img"].attrs["MATLAB_class"] = np.bytes_("double")

    return saved(write)


def nifti(dtype: Any) -> bytes:
    image = nibabel.Nifti1Image(np.moveaxis(IMAGES, 0, 2).astype(dtype), np.diag([1.0, 1, 3, 1]))
    image.header.set_slope_inter(2, 1)
    return bytes(image.to_bytes())


def dicom(syntax: str) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = data.SeriesInstanceUID = "1.2.3"
    data.SeriesNumber, data.SeriesDescription, data.PatientID, data.InstanceNumber = 5, "T2", "P", 1
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5]
    data.Rows, data.Columns = IMAGES.shape[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.RescaleSlope, data.RescaleIntercept = (
        1,
        "MONOCHROME2",
        2,
        1,
    )
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = IMAGES[0].astype("<u2").tobytes()
    if syntax == RLELossless:
        data.compress(RLELossless)
    return saved(lambda buffer: pydicom.dcmwrite(buffer, data, enforce_file_format=True))


def tiff(pages: NDArray[Any], **options: Any) -> bytes:
    return saved(lambda buffer: tifffile.imwrite(buffer, pages, photometric="minisblack", **options))


def png(mode: str) -> bytes:
    image = PIL.Image.fromarray(IMAGES[0].astype(np.uint8)).convert(mode)
    return saved(lambda buffer: image.save(buffer, format="PNG"))


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums that belong to them, as far as they can be told."""
    done, at = content[:8], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunk = content[at + 4 : at + 8 + length]
        done += content[at : at + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return done + content[at:]


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def matlab_5(compressed: bool) -> bytes:
    images = np.moveaxis(IMAGES, 0, 2).copy()
    return saved(lambda buffer: scipy.io.savemat(buffer, {"img": images, "x": [1.0]}, do_compression=compressed))


FORMATS = {
    "fastmri": Format(FastMRI(path="data"), "scan.h5", hdf()),
    "fastmri-chunked": Format(FastMRI(path="data"), "scan.h5", hdf(chunks=(1, 12, 10), compression="gzip")),
    "matlab-5": Format(Matlab(path="data"), "scan.mat", matlab_5(compressed=False)),
    "matlab-5-compressed": Format(Matlab(path="data"), "scan.mat", matlab_5(compressed=True)),
    "matlab-7.3": Format(Matlab(path="data"), "scan.mat", matlab_73()),
    "nifti": Format(Nifti(path="data"), "scan.nii", nifti(np.int16)),
    "nifti-float": Format(Nifti(path="data"), "scan.nii", nifti(np.float64)),
    "nifti-gz": Format(Nifti(path="data"), "scan.nii.gz", gzipped(nifti(np.float32))),
    "nifti-in-gz": Format(Nifti(path="data"), "scan.nii.gz", nifti(np.float32), gzipped),
    "dicom": Format(Dicom(path="data"), "scan.dcm", dicom(ExplicitVRLittleEndian)),
    "dicom-rle": Format(Dicom(path="data"), "scan.dcm", dicom(RLELossless)),
    "dicom-deflated": Format(Dicom(path="data"), "scan.dcm", dicom(DeflatedExplicitVRLittleEndian)),
    "tiff": Format(ImageFolder(format="tiff", path="data"), "scan.tif", tiff(IMAGES[0].astype(np.uint8))),
    "tiff-stack": Format(
        ImageFolder(format="tiff", path="data"), "scan.tif", tiff(IMAGES.astype(np.float32), compression="zlib")
    ),
    "tiff-tiles": Format(
        ImageFolder(format="tiff", path="data"), "scan.tif", tiff(IMAGES[0].astype(np.uint16), tile=(16, 16))
    ),
    "png": Format(ImageFolder(format="png", path="data"), "scan.png", png("L"), with_checksums),
    "png-palette": Format(ImageFolder(format="png", path="data"), "scan.png", png("P"), with_checksums),
    "png-raw": Format(ImageFolder(format="png", path="data"), "scan.png", png("RGB")),
}  # fmt: skip

HUGE = [struct.pack(form, value) for form in ("<H", ">H", "<I", ">I", "<Q", ">Q")
        for bits in (8 * struct.calcsize(form),) for value in (0, 2 ** (bits - 1) - 1, 2**bits - 1, 9999)]  # fmt: skip
ODD_FLOATS = [struct.pack(form, value) for form in ("<f", "<d", ">f") for value in (np.nan, np.inf, 1e38, 1e-40, -1e30)]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after one to four mishaps, most of them near its beginning."""
    for _ in range(draw(st.integers(1, 4))):
        here = draw(st.integers(0, len(content)) | st.integers(0, min(len(content), 700)))
        stop = min(len(content), here + draw(st.integers(1, 64)))
        match draw(
            st.sampled_from(("cut", "flip", "flip", "zero", "insert", "delete", "random", "huge", "huge", "float"))
        ):
            case "cut":
                content = content[:here]
            case "flip" if here < len(content):
                flipped = content[here] ^ (1 << draw(st.integers(0, 7)))
                content = content[:here] + bytes([flipped]) + content[here + 1 :]
            case "zero":
                content = content[:here] + bytes(stop - here) + content[stop:]
            case "insert":
                content = content[:here] + draw(st.binary(min_size=1, max_size=64)) + content[here:]
            case "delete":
                content = content[:here] + content[stop:]
            case "random":
                content = content[:here] + draw(st.binary(min_size=stop - here, max_size=stop - here)) + content[stop:]
            case "huge" | "float" as kind:
                number = draw(st.sampled_from(HUGE if kind == "huge" else ODD_FLOATS))
                content = content[:here] + number + content[here + len(number) :]
    return content


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(form: Format, content: bytes) -> None:
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            path = form.shard(root, content)
        except InputError as error:
            message = str(error)
            assert form.name in message or "data: holds no" in message or "data: its DICOM" in message, message
            assert "\n" not in message
            assert message.isprintable()
            assert len(message) < 700
            assert not [file.name for file in (root / "cache").glob("*") if file.suffix != ".lock"]
        else:
            with Shard(path) as shard:
                for volume in shard.volumes():
                    assert np.isfinite(shard.kspace(volume.name, slice(None))).all()
    assert peak_memory() < before + MOST_MEMORY


@pytest.mark.parametrize("name", FORMATS)
def test_the_undamaged_file_is_read(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    with Shard(form.shard(tmp_path, form.finish(form.content))) as shard:
        assert len(shard.volumes()) == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file(name: str) -> None:
    form = FORMATS[name]

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(content=damaged(form.content))
    def run(content: bytes) -> None:
        check(form, form.finish(content))

    run()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name: str) -> None:
    form = FORMATS[name]

    @settings(deadline=None, derandomize=True, max_examples=2000, database=None)
    @given(content=damaged(form.content))
    def run(content: bytes) -> None:
        check(form, form.finish(content))

    run()


@pytest.mark.slow
@pytest.mark.timeout(60)
@given(content=st.binary(max_size=2000))
@settings(deadline=None, derandomize=True, max_examples=30, database=None)
def test_random_bytes(content: bytes) -> None:
    for form in FORMATS.values():
        check(form, content)
