"""fastMRI files in their real layout: oversampled readout, a header with a namespace, attributes."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.data.formats.fastmri import FastMRI

HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <encoding>
    <encodedSpace><matrixSize><x>32</x><y>18</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>16</x><y>12</y><z>1</z></matrixSize></reconSpace>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""


def transformed(images: NDArray[Any]) -> NDArray[Any]:
    """Centred orthonormal FFT, in numpy."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)


def random_images(*shape: int) -> NDArray[np.complex64]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def write(path: Path, images: NDArray[Any], header: str | None = HEADER, **attributes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as hdf:
        hdf["kspace"] = transformed(images).astype(np.complex64)
        if header:
            hdf["ismrmrd_header"] = header
        hdf.attrs.update({"acquisition": "CORPD_FBK", "max": 1.0, "norm": 1.0, **attributes})
    return path


def test_single_coil_is_complex_and_loses_the_readout_oversampling(tmp_path: Path) -> None:
    images = random_images(3, 32, 18)
    write(tmp_path / "knee" / "file1000001.h5", images, patient_id="0beb8905d9b7")
    (volume,) = FastMRI(path="knee").volumes(tmp_path)
    assert (volume.subject, volume.name, volume.origin) == ("0beb8905d9b7", "file1000001", "knee/file1000001.h5")
    assert volume.images.dtype == np.complex64
    np.testing.assert_allclose(volume.images, images[:, 8:24], atol=1e-5)
    assert volume.size == (16, 12)


def test_multi_coil_gives_the_image_of_each_coil(tmp_path: Path) -> None:
    images = random_images(2, 4, 32, 18)
    write(tmp_path / "a.h5", images)
    (volume,) = FastMRI(path="a.h5").volumes(tmp_path)
    assert volume.images.dtype == np.complex64
    np.testing.assert_allclose(volume.images, images[:, :, 8:24], atol=1e-5)
    assert volume.size == (16, 12)
    assert volume.subject == "a"  # no patient_id


def test_without_header_the_reconstruction_or_the_width_gives_the_size(tmp_path: Path) -> None:
    images = random_images(2, 32, 18)
    with h5py.File(write(tmp_path / "a.h5", images, header=None), "a") as hdf:
        hdf["reconstruction_esc"] = np.zeros((2, 16, 16), np.float32)
    write(tmp_path / "b.h5", images, header=None)
    a, b = FastMRI(path=".").volumes(tmp_path)
    np.testing.assert_allclose(a.images, images[:, 8:24], atol=1e-5)
    assert (a.size, b.size) == ((16, 16), (18, 18))
    np.testing.assert_allclose(b.images, images[:, 7:25, :], atol=1e-5)


def test_narrow_images_keep_their_width(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", random_images(1, 32, 10))
    (volume,) = FastMRI(path="a.h5").volumes(tmp_path)
    assert volume.images.shape == (1, 16, 10)


def test_contrasts_and_several_files_of_a_patient(tmp_path: Path) -> None:
    images = random_images(1, 32, 18)
    write(tmp_path / "b" / "file_9.h5", images, acquisition="AXT2", patient_id="p1")
    write(tmp_path / "b" / "file_10.h5", images, acquisition="AXT1", patient_id="p1")
    write(tmp_path / "b" / "file_11.h5", images, acquisition="AXFLAIR", patient_id="p2")
    every = list(FastMRI(path="b").volumes(tmp_path))
    assert [(v.name, v.subject) for v in every] == [("file_9", "p1"), ("file_10", "p1"), ("file_11", "p2")]
    assert [v.name for v in FastMRI(path="b", contrast=["AXT2", "AXFLAIR"]).volumes(tmp_path)] == ["file_9", "file_11"]
    with pytest.raises(InputError, match="no contrast AXPD; it holds AXFLAIR, AXT1, AXT2"):
        list(FastMRI(path="b", contrast="AXPD").volumes(tmp_path))


def test_equal_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "file.h5", random_images(1, 32, 18))
    volumes = list(FastMRI(path=".", subject="folder").volumes(tmp_path))
    assert [(v.subject, v.name) for v in volumes] == [("a", "file"), ("b", "file_2")]


@pytest.mark.parametrize(
    ("kspace", "reason"),
    [
        (np.zeros((2, 8, 8), np.float32), "kspace is float32"),
        (np.zeros((8, 8), np.complex64), r"must be complex \(slices, \[coils,\] H, W\)"),
        (None, "no dataset kspace, only other"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, kspace: NDArray[Any] | None, reason: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as hdf:
        hdf["other" if kspace is None else "kspace"] = 0 if kspace is None else kspace
    with pytest.raises(InputError, match=rf"a\.h5: .*{reason}"):
        list(FastMRI(path="a.h5").volumes(tmp_path))


def test_headers_that_are_no_plain_header_are_refused(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    empty = HEADER.replace(">16<", ">0<")
    for header, reason in ((bomb, "document type"), ("<x", "cannot be read"), (empty, "matrixSize")):
        write(tmp_path / "a.h5", random_images(1, 32, 18), header)
        with pytest.raises(InputError, match=reason) as caught:
            list(FastMRI(path="a.h5").volumes(tmp_path))
        assert "\n" not in str(caught.value)


def test_truncated_file_and_missing_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", random_images(2, 32, 18))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"a\.h5: cannot be read .*; expected a fastMRI HDF5 file"):
        list(FastMRI(path="a.h5").volumes(tmp_path))
    with pytest.raises(InputError, match="no such file or folder"):
        list(FastMRI(path="b").volumes(tmp_path))


def lines(size: int, *sampled: int | slice) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    for one in sampled:
        mask[one] = True
    return mask


SPARSE = lines(48, slice(1, None, 4), slice(20, 28))
RANDOM = np.random.default_rng(3).random((48, 48)) < 0.4
INSIDE = np.hypot(*np.mgrid[-1:1:48j, -1:1:48j]) < 1


@pytest.mark.parametrize(
    ("pattern", "full"),
    [
        (SPARSE, False), (SPARSE[:, None], False), (RANDOM, False), (RANDOM * INSIDE, False), (~lines(48, 9), False),
        (SPARSE * lines(48, slice(6, 40)), False), (lines(48, slice(20, 48)), True), (INSIDE, True),
        (lines(48, slice(8, 40))[:, None], True), (np.ones(48, bool), True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [False, True])
def test_zeros_between_samples_are_no_ground_truth(
    tmp_path: Path, pattern: NDArray[np.bool_], full: bool, named: bool
) -> None:
    """Whatever the pattern, with a named mask or with a trace of noise in the gaps; zero edges and corners are none."""
    path = write(tmp_path / "a.h5", random_images(2, 3, 48, 48), header=None)
    with h5py.File(path, "a") as hdf:
        hdf["kspace"][...] *= pattern
        if named:
            hdf["mask"] = SPARSE
        else:  # what compression or a transform there and back leaves of zeros
            hdf["kspace"][...] += 1e-6 * transformed(random_images(2, 3, 48, 48))
    if full:
        assert len(list(FastMRI(path="a.h5").volumes(tmp_path))) == 1
        return
    with pytest.raises(InputError, match=r"a\.h5: its k-space is undersampled .*no ground truth") as caught:
        list(FastMRI(path="a.h5").volumes(tmp_path))
    assert "\n" not in str(caught.value)
