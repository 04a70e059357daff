"""Raw data of several coils in shards and batches: combined, kept, compressed."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from fedsim.core.errors import InputError
from fedsim.data.coils import CoilSettings, Maps
from fedsim.data.evaluation import reconstruct_coils, reconstruct_volumes
from fedsim.data.samples import ClientData, SliceMemory
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.split import Piece
from fedsim.mri.coils import combined, rss
from fedsim.mri.espirit import espirit_maps
from fedsim.mri.fft import ifft2c
from fedsim.mri.geometry import kspace_at
from fedsim.mri.masks import Equispaced

from .arrays import Arrays

COILS, SIDE = 5, 32


def smooth(seed: int, *shape: int) -> np.ndarray:
    """Complex noise that varies slowly over the last two axes."""
    rng = np.random.default_rng(seed)
    spectrum = np.zeros((*shape, SIDE, SIDE), np.complex64)
    middle = slice(SIDE // 2 - 2, SIDE // 2 + 3)
    spectrum[..., middle, middle] = rng.normal(size=(*shape, 5, 5)) + 1j * rng.normal(size=(*shape, 5, 5))
    return ifft2c(torch.from_numpy(spectrum)).numpy() * SIDE + 1


@pytest.fixture
def images() -> np.ndarray:
    """(slices, coils, H, W): sensitivities times an object with edges."""
    head = np.zeros((3, 1, SIDE, SIDE), np.complex64)
    head[..., 6:26, 8:24] = 40
    head[..., 12:20, 12:16] = 15
    return (head * smooth(0, 1, COILS)).astype(np.complex64)


@pytest.fixture
def root(tmp_path: Path, images: np.ndarray) -> Path:
    (tmp_path / "site").mkdir()
    np.save(tmp_path / "site" / "a.npy", images)
    return tmp_path


def stored(root: Path, *settings: object, matrix: tuple[int, int] = (SIDE, SIDE), **keys: object) -> Path:
    return ensure_shard(Arrays(path="site", **keys), root, root / "cache", matrix, CoilSettings(*settings))


def everything(shard: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """k-space and maps."""
    with Shard(shard) as opened:
        return torch.from_numpy(opened.kspace("a", slice(None))), torch.from_numpy(opened.maps("a", slice(None)))


def test_combined_coils_are_the_root_sum_of_squares(root: Path, images: np.ndarray) -> None:
    with Shard(stored(root)) as opened:
        (volume,), kspace = opened.volumes(), opened.kspace("a", slice(None))
    assert (volume.coils, kspace.shape) == (COILS, (3, SIDE, SIDE))
    expected = np.stack([np.linalg.norm(one, axis=0) for one in images])
    np.testing.assert_array_equal(kspace, kspace_at(expected, (SIDE, SIDE)))


def test_combined_by_sensitivities_keeps_the_phase(root: Path, images: np.ndarray) -> None:
    with Shard(stored(root, "combine", "combined")) as opened:
        image = ifft2c(torch.from_numpy(opened.kspace("a", slice(None)))).numpy()
    inside = np.abs(images[:, 0]) > 10
    np.testing.assert_allclose(np.abs(image)[inside], np.linalg.norm(images, axis=1)[inside], rtol=0.1)
    assert np.abs(np.angle(image[inside])).max() > 0.1


def test_kept_coils_have_maps_of_unit_energy(root: Path, images: np.ndarray) -> None:
    kspace, maps = everything(stored(root, "keep"))
    np.testing.assert_allclose(ifft2c(kspace).numpy(), images, atol=1e-3)
    energy = maps.abs().square().sum(1)
    torch.testing.assert_close(energy, torch.ones_like(energy))


def test_fewer_virtual_coils_keep_the_strongest(root: Path, images: np.ndarray) -> None:
    kspace, maps = everything(stored(root, 3))
    assert kspace.shape == maps.shape == (3, 3, SIDE, SIDE)
    full = np.linalg.norm(images, axis=1)
    assert np.linalg.norm(full) ** 2 > kspace.norm() ** 2 > 3 / COILS * np.linalg.norm(full) ** 2
    turned, _ = everything(stored(root, 99))
    np.testing.assert_allclose(rss(ifft2c(turned)).numpy(), full, atol=1e-2, err_msg="no more than there are")


def test_maps_of_the_files(root: Path, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="holds no sensitivity maps; set the source's maps"):
        stored(root, "keep", maps="file")
    given = np.repeat(smooth(0, 1, COILS), 3, axis=0).astype(np.complex64)
    with (root / "site" / "a.maps").open("wb") as file:
        np.save(file, 7 * given)
    np.save(root / "site" / "a.npy", images * 2)  # so that the cache does not know it
    kspace, maps = everything(stored(root, "keep", maps="file"))
    np.testing.assert_allclose(maps.numpy(), given / np.linalg.norm(given, axis=1, keepdims=True), atol=1e-4)
    torch.testing.assert_close(combined(ifft2c(kspace), maps).abs(), rss(ifft2c(kspace)), rtol=1e-3, atol=1e-2)
    with Shard(stored(root, "combine", "combined", maps="file")) as opened:
        image = ifft2c(torch.from_numpy(opened.kspace("a", slice(None)))).abs()
    torch.testing.assert_close(image, rss(ifft2c(kspace)), rtol=1e-3, atol=1e-2)


def test_one_coil_is_a_coil_of_sensitivity_one(root: Path, images: np.ndarray) -> None:
    np.save(root / "site" / "a.npy", images[:, 0])
    kspace, maps = everything(stored(root, "keep"))
    assert kspace.shape == (3, 1, SIDE, SIDE)
    torch.testing.assert_close(maps, torch.ones_like(maps))


@pytest.mark.parametrize("target", ["rss", "combined"])
def test_batches_of_several_coils(root: Path, target: Literal["rss", "combined"]) -> None:
    settings = CoilSettings("keep", target)
    data = ClientData(
        shard=stored(root, "keep", target),
        site="A",
        pieces=(Piece(volume="a", subject="a", start=0, stop=3, part="train"),),
        supports=((SIDE, SIDE),),
        mask=Equispaced(acceleration=3),
        matrix=(SIDE, SIDE),
        normalise="std",
        seed=0,
        coil_settings=settings,
        coils=COILS,
    )
    (batch,) = data.batches(3, torch.Generator().manual_seed(0), SliceMemory(budget=1e9))
    kspace, mask, maps = batch.inputs
    assert kspace.shape == maps.shape == (3, COILS, SIDE, SIDE)
    assert mask.shape == batch.target.shape == batch.zero_filled.shape == (3, SIDE, SIDE)
    assert not (kspace * ~mask[:, None]).any()
    images = ifft2c(kspace)
    expected = rss(images) if target == "rss" else combined(images, maps).abs()
    torch.testing.assert_close(batch.zero_filled, expected)
    torch.testing.assert_close(batch.zero_filled.std((1, 2)), torch.ones(3))
    full = everything(stored(root, "keep", target))
    truth = rss(ifft2c(full[0])) if target == "rss" else combined(ifft2c(full[0]), full[1]).abs()
    torch.testing.assert_close((batch.target * batch.scale).sum(), truth.sum())
    held = replace(data, pieces=(replace(data.pieces[0], part="test"),))
    (volume,) = reconstruct_volumes(lambda kspace, mask, maps: rss(ifft2c(kspace)), held, "test", 2)
    assert volume.score("fastmri").get("protocol") == {"combined": "fastmri, combined target"}.get(target)


class Combining:
    """A network of coils and their sensitivities that gives their combined image."""

    def __init__(self, takes_maps: bool) -> None:
        self.takes_maps = takes_maps

    def __call__(self, kspace: torch.Tensor, mask: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return combined(ifft2c(kspace), maps).abs()


@pytest.mark.slow
def test_undersampled_coils_get_sensitivities_as_their_source_says(images: np.ndarray) -> None:
    kspace = kspace_at(images[0], (SIDE, SIDE))
    lines = np.arange(SIDE) % 2 == 0
    lines[8:24] = True
    mask = np.tile(lines, (SIDE, 1))
    keep = CoilSettings("keep")

    def image(maps: Maps, takes_maps: bool = True) -> np.ndarray:
        return reconstruct_coils(Combining(takes_maps), kspace * mask, mask, "std", keep, maps)[0]

    centre = kspace * (np.abs(np.arange(SIDE) - SIDE / 2 + 0.5) < 8)
    expected = combined(ifft2c(torch.from_numpy(kspace * mask)), torch.from_numpy(espirit_maps(centre, (SIDE, 16))))
    np.testing.assert_allclose(image("espirit"), expected.abs().numpy(), rtol=1e-3, atol=1e-3)
    assert np.abs(image("espirit") - image("estimate")).max() > 0.1
    with pytest.raises(InputError, match=r"source\.maps: file: undersampled k-space takes none from files; train with"):
        image("file")
    assert np.isfinite(image("file", takes_maps=False)).all()


@pytest.mark.parametrize("settings", [(2,), ("combine", "combined"), ("keep",)])
@pytest.mark.parametrize("maps", ["estimate", "espirit"])
def test_what_is_no_number_is_refused_or_read_as_0(
    root: Path, images: np.ndarray, settings: tuple[object, ...], maps: str
) -> None:
    images[:, 1, 3, 4] = np.nan
    np.save(root / "site" / "a.npy", images)
    with pytest.raises(InputError, match=r"^a\.npy: has NaN or infinite values .*; set nan: zero to read NaN as 0$"):
        stored(root, *settings, maps=maps)
    with Shard(stored(root, *settings, maps=maps, nan="zero")) as opened:
        assert np.isfinite(opened.kspace("a", slice(None))).all()


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (np.full((3, COILS, SIDE, SIDE), np.nan), "its sensitivity maps have NaN or infinite values; set"),
        (np.zeros((3, COILS, SIDE, SIDE)), "its sensitivity maps have only 0; set"),
        (np.ones((3, COILS + 1, SIDE, SIDE)), r"its maps are \(3, 6, 32, 32\), its images \(3, 5, 32, 32\); set"),
    ],
)
@pytest.mark.parametrize("settings", [(2,), ("combine", "combined"), ("keep",)])
def test_maps_that_do_not_suit_are_refused(
    root: Path, settings: tuple[object, ...], maps: np.ndarray, said: str
) -> None:
    with (root / "site" / "a.maps").open("wb") as file:
        np.save(file, maps.astype(np.complex64))
    with pytest.raises(InputError, match=rf"^a\.npy: {said} the source's maps to estimate or espirit$"):
        stored(root, *settings, maps="file")


def test_espirit_without_sigpy_names_the_package_and_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"^maps: espirit needs sigpy, .*pip install 'fedsim\[raw\]', or set maps to"):
        espirit_maps(np.ones((2, SIDE, SIDE), np.complex64))
