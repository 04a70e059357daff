"""Values that no magnitude image has, and slices that show nothing, on their way into a shard."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.data.formats.nifti import Nifti
from fedsim.data.left_out import lines
from fedsim.data.shard import Shard, write_shard
from fedsim.data.source import Volume
from fedsim.data.subjects import Subject
from fedsim.data.values import showing
from fedsim.mri.geometry import kspace_at

IMAGES = np.random.default_rng(0).uniform(1, 100, (4, 32, 32)).astype(np.float32)


def stored(root: Path, images: NDArray[np.float32], **keys: object) -> tuple[NDArray[np.complex64], list[str]]:
    """The shard's k-space of a NIfTI file with these images, and what was left out."""
    affine = np.diag([-1.0, -1.0, -1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(images.transpose(2, 1, 0), affine), root / "a.nii")
    write_shard(Nifti(path="a.nii", **keys), root, (32, 32), root / "shard.h5")
    with Shard(root / "shard.h5") as shard:
        return shard.kspace("a", slice(None)), lines(shard.left_out())


def test_nan_is_zero_where_the_key_says_so(tmp_path: Path) -> None:
    images = np.where(IMAGES > 90, np.float32(np.nan), IMAGES)
    with pytest.raises(InputError, match=r"a\.nii: has NaN or infinite values .*set nan: zero"):
        stored(tmp_path, images)
    kspace, said = stored(tmp_path, images, nan="zero")
    np.testing.assert_allclose(kspace, kspace_at(np.nan_to_num(images), (32, 32)))
    assert len(said) == 1
    assert f"NaN values, read as 0: a.nii ({np.isnan(images).sum()} values" in said[0]
    images[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        stored(tmp_path, images, nan="zero")


def test_negative_values_never_lose_their_sign_in_silence(tmp_path: Path) -> None:
    scored = (IMAGES - IMAGES.mean()) / IMAGES.std()
    with pytest.raises(InputError, match=r"a\.nii: has negative values .*z-scored.*set negative: shift"):
        stored(tmp_path, scored)
    for keys, meant, word in (
        ({"negative": "shift"}, scored - scored.min(), "zero level"), ({"negative": "magnitude"}, abs(scored), "sign"),
    ):  # fmt: skip
        kspace, said = stored(tmp_path, scored, **keys)
        np.testing.assert_allclose(kspace, kspace_at(meant, (32, 32)), rtol=1e-4, atol=1e-4)
        assert len(said) == 1
        assert word in said[0]
    overshoot = IMAGES.copy()
    overshoot[1, 3, 3] = -2
    kspace, said = stored(tmp_path, overshoot)
    np.testing.assert_allclose(kspace, kspace_at(abs(overshoot), (32, 32)))
    assert "sign of negative values: a.nii (1 values, lowest -2" in said[0]


@pytest.mark.parametrize("value", [0.0, 100.0, -3.0])
def test_a_slice_without_variation_is_left_out_and_named(tmp_path: Path, value: float) -> None:
    images = IMAGES.copy()
    images[2] = value
    kspace, said = stored(tmp_path, images)
    np.testing.assert_allclose(kspace, kspace_at(IMAGES[[0, 1, 3]], (32, 32)))
    assert any(("without variation" if value else "empty") in line and "slice 2" in line for line in said)


def test_images_without_pixels_show_nothing(tmp_path: Path) -> None:
    assert showing(Volume(Subject.of("a", "file"), "a", np.zeros((2, 8, 0), np.float32), "a.nii"), tmp_path) == []
