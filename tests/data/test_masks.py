"""Masks from files, and masks made of other masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedsim.core.errors import InputError
from fedsim.core.seeds import numpy_stream
from fedsim.data.masks import AnyMask
from fedsim.mri.masks import Sampling

MASK = np.random.default_rng(0).random((20, 16)) < 0.4


def make(**keys: Any) -> Sampling:
    return TypeAdapter(AnyMask).validate_python(keys)


def hdf(path: Path, mask: NDArray[Any], name: str = "mask") -> None:
    with h5py.File(path, "w") as file:
        file[name] = mask
        file["other"] = 1


def mat_73(path: Path, mask: NDArray[Any]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["mask04"] = mask.T.astype(np.uint8)
        file["mask04"].attrs["MATLAB_class"] = np.bytes_("uint8")


WRITERS: dict[str, tuple[str, Callable[[Path, NDArray[Any]], object]]] = {
    "npy": ("m.npy", np.save),
    "npz": ("m.npz", lambda p, mask: np.savez(p, mask=mask)),
    "mat 5": ("m.mat", lambda p, mask: scipy.io.savemat(p, {"mask": mask.astype(float)})),
    "mat 7.3": ("m.mat", mat_73),
    "h5": ("m.h5", hdf),
}


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
def test_a_mask_comes_out_of_its_file(name: str, write: Any, tmp_path: Path) -> None:
    write(tmp_path / name, MASK)
    mask = make(kind="file", path=name).at(tmp_path)
    np.testing.assert_array_equal(mask.sample((20, 16), numpy_stream(0)), MASK)
    assert mask.nominal == "-"
    write(tmp_path / name, ~MASK)
    assert mask.content != make(kind="file", path=name).at(tmp_path).content  # the manifest has it


@pytest.mark.parametrize(("name", "write"), [one for key, one in WRITERS.items() if key != "mat 7.3"])
def test_readouts_are_the_same_in_every_row(name: str, write: Any, tmp_path: Path) -> None:
    write(tmp_path / name, MASK[3])
    sampled = make(kind="file", path=name).at(tmp_path).sample((24, 16), numpy_stream(0))
    np.testing.assert_array_equal(sampled, np.broadcast_to(MASK[3], (24, 16)))


def test_one_of_a_stack_is_drawn(tmp_path: Path) -> None:
    stack = np.stack([MASK, ~MASK])
    np.save(tmp_path / "m.npy", stack)
    scipy.io.savemat(tmp_path / "m.mat", {"m": np.moveaxis(stack, 0, -1).astype(float)})
    for name in ("m.npy", "m.mat"):
        mask = make(kind="file", path=name).at(tmp_path)
        drawn = [mask.sample((20, 16), numpy_stream(seed)) for seed in range(20)]
        assert {one.tobytes() for one in drawn} == {one.tobytes() for one in stack}
        np.testing.assert_array_equal(drawn[0], mask.sample((20, 16), numpy_stream(0)))


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("m.npy", lambda p: None, "no such file"),
        ("m.npy", lambda p: p.write_bytes(b""), "is empty"),
        ("m.npy", lambda p: np.save(p, MASK * 0.5), "has other values than 0 and 1"),
        ("m.npy", lambda p: np.save(p, MASK * np.nan), "has other values than 0 and 1"),
        ("m.npy", lambda p: np.save(p, MASK * 0), "has a mask without a single 1"),
        ("m.npy", lambda p: np.save(p, np.ones((1, 1, 2, 2))), "a mask is"),
        ("m.npy", lambda p: np.save(p, np.array([{}], object)), "holds object"),
        ("m.npz", lambda p: np.savez(p, a=MASK, b=MASK), "set variable to one of its arrays"),
        ("m.mat", lambda p: scipy.io.savemat(p, {"a": MASK * 1, "b": MASK * 1}), "set variable to one of its numeric"),
        ("m.h5", lambda p: hdf(p, MASK, "sampling"), "has no dataset mask, only other, sampling"),
        ("m.txt", lambda p: p.write_text("1 0 1"), "has the suffix .txt"),
    ],
)
def test_a_bad_file_is_named_in_one_line(name: str, write: Any, reason: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .*{reason}") as caught:
        make(kind="file", path=name).at(tmp_path)
    assert str(caught.value).isprintable()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MASK)
    mask = make(kind="file", path="m.npy").at(tmp_path)
    with pytest.raises(InputError, match=r"m\.npy has 20 x 16, but 32 x 16 samples are to be undersampled"):
        mask.drawn((32, 16), numpy_stream(0), "site A")


def test_partial_fourier_measures_the_first_readouts(tmp_path: Path) -> None:
    whole = make(kind="partial_fourier", fraction=0.7).sample((4, 16), numpy_stream(0))
    assert whole[:, :12].all()
    assert not whole[:, 12:].any()
    inner = {"kind": "equispaced", "acceleration": 2}
    both = make(kind="partial_fourier", fraction=0.7, of=inner)
    expected = make(**inner).sample((4, 16), numpy_stream(0)) & whole
    np.testing.assert_array_equal(both.sample((4, 16), numpy_stream(0)), expected)
    assert both.nominal == "2 x 1.43"


def test_mixed_masks_are_drawn_per_volume(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MASK)
    kinds = [{"kind": "random", "acceleration": a, "center_fraction": 0.04} for a in (4, 8)]
    mask = make(kind="mixed", masks=[*kinds, {"kind": "file", "path": "m.npy"}]).at(tmp_path)
    assert mask.nominal == "4, 8, -"
    drawn = [mask.sample((20, 16), numpy_stream(seed)) for seed in range(40)]
    assert len({one.tobytes() for one in drawn}) > 10
    assert any((one == MASK).all() for one in drawn)
    with pytest.raises(ValidationError, match="at least 2 items"):
        make(kind="mixed", masks=[kinds[0]])
