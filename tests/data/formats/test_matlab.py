"""MATLAB files of version 5 (scipy) and 7.3 (HDF5 with reversed axes and compound complex numbers)."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.formats.matlab import Matlab

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
    assert [v.subject for v in (stack, complex_stack, flat)] == ["p1", "p2", "p3"]
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
    scipy.io.savemat(tmp_path / "a.mat", {"c": cell, "s": {"x": 2.0}, "text": np.array(["ab", "cd"])})
    with h5py.File(tmp_path / "b.mat", "w") as hdf:
        hdf["text"] = np.zeros((3, 3), np.uint16)
        hdf["text"].attrs["MATLAB_class"] = np.bytes_("char")
        hdf.create_group("s")
        hdf.create_dataset("refs", (3, 3), h5py.ref_dtype)
    for name in ("a.mat", "b.mat"):
        with pytest.raises(InputError, match=r"has 0 arrays that may be images; .*: (none|s/x .1, 1.)$"):
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


def kspace(images: NDArray[Any]) -> NDArray[Any]:
    """Centred orthonormal FFT over the first two axes."""
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, (0, 1)), axes=(0, 1), norm="ortho"), (0, 1))


def coils(seed: int = 0) -> NDArray[Any]:
    """(H, W, coils, slices) complex: a disc as four coils see it."""
    y, x = np.mgrid[-1:1:24j, -1:1:20j]
    rng = np.random.default_rng(seed)
    seen = [np.exp(-((x - a) ** 2) - (y - b) ** 2 + 1j * a) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    disc = (np.hypot(x, y) < 0.8)[..., None, None] * np.stack(seen, -1)[..., None] * np.array([1.0, 0.5, 0.8])
    return disc + 0.01 * (rng.normal(size=disc.shape) + 1j * rng.normal(size=disc.shape))


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("name", ["kspace", "kspace_full", "ksp", "kdata", "K_Space", "rawdata"])
def test_kspace_is_never_an_image(tmp_path: Path, version: str, name: str) -> None:
    """Its axes are asked for where they are not told."""
    images = coils()
    write(tmp_path / "a.mat", version, **{name: kspace(images)})
    with pytest.raises(InputError, match=rf"array {name} is .*set axes, such as hwcs"):
        list(Matlab(path="a.mat").volumes(tmp_path))
    (volume,) = Matlab(path="a.mat", axes="hwcs").volumes(tmp_path)
    expected = images.transpose(3, 2, 0, 1)
    np.testing.assert_allclose(volume.images, expected, atol=1e-5)
    write(tmp_path / "b.mat", version, **{name: kspace(images)[..., 0]})
    with pytest.raises(InputError, match=rf"b\.mat: array {name} \(24, 20, 4\) is k-space; name .* axes: hwc \(coils"):
        list(Matlab(path="b.mat").volumes(tmp_path))
    (volume,) = Matlab(path="b.mat", axes="hwc").volumes(tmp_path)
    np.testing.assert_allclose(volume.images, expected[:1], atol=1e-5)
    write(tmp_path / "c" / "c.mat", version, **{name: kspace(images)[..., 1, 0]})
    (volume,) = Matlab(path="c").volumes(tmp_path)
    np.testing.assert_allclose(volume.images, images[None, ..., 1, 0], atol=1e-5)


def test_kspace_of_a_plain_fft_is_centred(tmp_path: Path) -> None:
    images = coils()[..., 0, 0]
    write(tmp_path / "a.mat", "5", kspace=np.fft.fft2(images, norm="ortho"))
    (volume,) = Matlab(path="a.mat").volumes(tmp_path)
    np.testing.assert_allclose(volume.images[0], images, atol=1e-5)


def test_kspace_under_another_name_is_asked_about(tmp_path: Path) -> None:
    write(
        tmp_path / "a.mat", "5", data=kspace(coils()[..., 0, 0]), img=coils()[..., 0, 0], real_k=coils()[..., 0, 0].real
    )
    with pytest.raises(InputError, match="array data looks like k-space; set domain to kspace or image"):
        list(Matlab(path="a.mat", variable="data").volumes(tmp_path))
    for variable, domain in (("data", "kspace"), ("img", "auto"), ("img", "image")):
        (volume,) = Matlab(path="a.mat", variable=variable, domain=domain).volumes(tmp_path)
        np.testing.assert_allclose(volume.images[0], coils()[..., 0, 0], atol=1e-5)
    with pytest.raises(InputError, match="array real_k is real, but k-space is complex"):
        list(Matlab(path="a.mat", variable="real_k", domain="kspace").volumes(tmp_path))


def test_undersampled_kspace_is_no_ground_truth(tmp_path: Path) -> None:
    write(tmp_path / "a.mat", "7.3", kspace_sub04=kspace(coils()[..., 0]) * (np.arange(20) % 4 == 1)[None, :, None])
    with pytest.raises(InputError, match=r"a\.mat: its k-space is undersampled"):
        list(Matlab(path="a.mat", axes="hwc").volumes(tmp_path))


@pytest.mark.parametrize("axes", ["hw2", "hws ", "hss", "hwcc", "hhw", ""])
def test_axes_that_make_no_sense(axes: str) -> None:
    with pytest.raises(ValidationError, match="axes"):
        Matlab.model_validate({"format": "matlab", "path": ".", "axes": axes})


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_arrays_within_structs_are_read_by_their_path(tmp_path: Path, version: str) -> None:
    """figshare's brain tumours: cjdata.image, .PID and more; the patient is who the file names."""
    for number in range(4):
        image = IMAGES[..., 0] + number
        if version == "5":
            inner = {"deep": {"image": image}, "label": 1.0, "PID": f"10{number // 2}"}
            scipy.io.savemat(tmp_path / f"{number}.mat", {"cjdata": inner})
            continue
        with h5py.File(tmp_path / f"{number}.mat", "w", userblock_size=512) as file:
            file["cjdata/deep/image"], file["cjdata/label"] = image.T, np.array([[1.0]])
            file["cjdata/PID"] = np.array([[ord(letter)] for letter in f"10{number // 2}"], np.uint16)
            file["cjdata/PID"].attrs["MATLAB_class"] = np.bytes_("char")
    for variable in (None, "cjdata/deep/image"):
        volumes = list(Matlab(path=".", variable=variable).volumes(tmp_path))
        assert [volume.subject for volume in volumes] == ["100", "101"]
        np.testing.assert_array_equal(volumes[1].images, [IMAGES[..., 0] + 2, IMAGES[..., 0] + 3])
    with pytest.raises(InputError, match=r"no numeric array image; .*cjdata/deep/image \(3, 4\)"):
        list(Matlab(path=".", variable="image").volumes(tmp_path))
