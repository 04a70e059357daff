"""MATLAB files of version 5 (scipy) and 7.3 (HDF5 with reversed axes and compound complex numbers)."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from fedsim.data.matlab import Matlab
from fedsim.errors import InputError

IMAGES = np.arange(60.0).reshape(3, 4, 5)
"""(H, W, slices)"""


def write(path: Path, version: str, **arrays: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "5":
        scipy.io.savemat(path, arrays, do_compression=True)
        return path
    with h5py.File(path, "w", userblock_size=512) as hdf:
        for name, array in arrays.items():
            hdf[name] = {"c": compound, "b": np.uint8}.get(array.dtype.kind, np.asarray)(array.T)
            hdf[name].attrs["MATLAB_class"] = np.bytes_("logical" if array.dtype.kind == "b" else "double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64 HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")
    return path


def compound(array: NDArray[Any]) -> NDArray[Any]:
    stored = np.empty(array.shape, [("real", "<f8"), ("imag", "<f8")])
    stored["real"], stored["imag"] = array.real, array.imag
    return stored


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_stacks_single_images_and_complex(tmp_path: Path, version: str) -> None:
    write(tmp_path / "p1" / "stack.mat", version, img=IMAGES, fs=np.array([[2.0]]), axis=np.arange(9.0)[None])
    write(tmp_path / "p2" / "complex.mat", version, img=IMAGES * (1 + 2j))
    write(tmp_path / "p3" / "flat.mat", version, img=IMAGES[..., 0])
    stack, complex_stack, flat = Matlab(path=".").volumes(tmp_path)
    np.testing.assert_array_equal(stack.images, IMAGES.transpose(2, 0, 1))
    np.testing.assert_array_equal(complex_stack.images, (IMAGES * (1 + 2j)).transpose(2, 0, 1))
    np.testing.assert_array_equal(flat.images, IMAGES[None, ..., 0])
    assert [v.images.dtype for v in (stack, complex_stack, flat)] == [np.float32, np.complex64, np.float32]
    assert [v.subject for v in (stack, complex_stack, flat)] == ["stack", "complex", "p3"]
    assert (stack.name, stack.origin) == ("stack", "p1/stack.mat")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_single_images_of_a_subject_are_one_volume(tmp_path: Path, version: str) -> None:
    for number in (1, 2, 10):
        write(tmp_path / "cine" / f"im-{number}.mat", version, im_ori=IMAGES[..., 0] + number)
    for subject, expected in (("site", "site"), ("folder", "cine"), ("auto", "cine")):
        (volume,) = Matlab(path="cine", subject=subject).volumes(tmp_path)
        assert (volume.subject, volume.name, volume.origin) == (expected, "cine", "cine")
        np.testing.assert_array_equal(volume.images, [IMAGES[..., 0] + number for number in (1, 2, 10)])
    assert [v.subject for v in Matlab(path="cine", subject="file").volumes(tmp_path)] == ["im-1", "im-2", "im-10"]
    write(tmp_path / "cine" / "im-11.mat", version, im_ori=IMAGES[:2, :, 0])
    apart = [(v.subject, v.name) for v in Matlab(path="cine", subject="site").volumes(tmp_path)]
    assert apart == [("site", "im-1"), ("site", "im-2"), ("site", "im-10"), ("site", "im-11")]


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_variable(tmp_path: Path, version: str) -> None:
    write(tmp_path / "a.mat", version, img=IMAGES, mask=IMAGES > 3, four=np.zeros((2, 2, 2, 2)))
    (volume,) = Matlab(path="a.mat", variable="img").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, IMAGES.transpose(2, 0, 1))
    for variable, reason in (
        (None, "has 2 arrays that may be images; set variable to one of .*: (four|img).*(four|img)"),
        ("other", r"no numeric array other; set variable .*: .*img \(3, 4, 5\)"),
        ("mask", "no numeric array mask; set variable"),
        ("four", r"array four is \(2, 2, 2, 2\); \(H, W\) or \(H, W, slices\) is needed"),
    ):
        with pytest.raises(InputError, match=reason):
            list(Matlab(path="a.mat", variable=variable).volumes(tmp_path))


def test_cells_structs_and_texts_are_no_images(tmp_path: Path) -> None:
    cell = np.empty((2, 2), object)
    cell[:] = 1.0
    scipy.io.savemat(tmp_path / "a.mat", {"c": cell, "s": {"x": IMAGES}, "text": np.array(["ab", "cd"])})
    with h5py.File(tmp_path / "b.mat", "w") as hdf:
        hdf["text"] = np.zeros((3, 3), np.uint16)
        hdf["text"].attrs["MATLAB_class"] = np.bytes_("char")
        hdf.create_group("s")
        hdf.create_dataset("refs", (3, 3), h5py.ref_dtype)
    for name in ("a.mat", "b.mat"):
        with pytest.raises(InputError, match=r"has 0 arrays that may be images; .*: none"):
            list(Matlab(path=name).volumes(tmp_path))
    with pytest.raises(InputError, match="no numeric array c"):
        list(Matlab(path="a.mat", variable="c").volumes(tmp_path))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_damaged_files_and_missing_folders(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "a.mat", version, img=np.random.default_rng(0).normal(size=(40, 40)))
    for damaged in (path.read_bytes()[:3000], b"no MATLAB file at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.mat: cannot be read .*; expected a MATLAB file") as caught:
            list(Matlab(path="a.mat").volumes(tmp_path))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file or folder"):
        list(Matlab(path="b").volumes(tmp_path))
