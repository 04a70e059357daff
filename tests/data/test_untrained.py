"""References without training of whole volumes: which suit the data, that they are kept, and their rows."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fedsim.data.cache import clean
from fedsim.data.coils import CoilSettings
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.samples import ClientData
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.split import Piece
from fedsim.mri.coils import rss
from fedsim.mri.fft import ifft2c
from fedsim.mri.masks import Equispaced
from fedsim.mri.references import Reference

from .arrays import Arrays

SIDE = 32
ALL: tuple[Reference, ...] = ("conjugate", "sense", "tv")


def head() -> np.ndarray:
    """(slices, H, W): blocks, brighter to the right."""
    image = np.zeros((2, SIDE, SIDE), np.float32)
    image[:, 6:26, 8:24] = 40
    image[1, 12:20, 12:16] = 15
    return image * np.linspace(1, 1.2, SIDE, dtype=np.float32)


def coil_images() -> np.ndarray:
    """The head seen by four coils in its corners."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    maps = np.stack([np.exp(-2 * ((y - r) ** 2 + (x - c) ** 2) + 1j * (r + 2 * c + x)) for r, c in corners])
    return (head()[:, None] * maps).astype(np.complex64)


def data_of(folder: Path, images: np.ndarray, *coils: object) -> ClientData:
    (folder / "site").mkdir()
    np.save(folder / "site" / "a.npy", images)
    settings, sides = CoilSettings(*coils), (SIDE, SIDE)  # type: ignore[arg-type]
    shard = ensure_shard(Arrays(path="site"), folder, folder / "cache", sides, settings)
    with Shard(shard) as opened:
        (volume,) = opened.volumes()
    piece = Piece(volume="a", subject="a", start=0, stop=2, part="test", phase=volume.phase)
    mask = Equispaced(acceleration=3, center_fraction=0.2)
    return ClientData(
        shard=shard, site="S", pieces=(piece,), supports=(sides,), mask=mask, matrix=sides, normalise="std", seed=0,
        coil_settings=settings, coils=settings.count(volume.coils),
    )  # fmt: skip


def zero_filled(kspace: torch.Tensor, _mask: torch.Tensor, maps: torch.Tensor | None = None) -> torch.Tensor:
    return ifft2c(kspace).abs() if maps is None else rss(ifft2c(kspace))


def reconstructed(data: ClientData, references: tuple[Reference, ...] = ALL, size: int = 2) -> ReconstructedVolume:
    (volume,) = reconstruct_volumes(zero_filled, data, "test", size, references=references)
    return volume


@pytest.mark.parametrize(
    ("images", "coils", "suited"),
    [
        (head(), (), ("conjugate", "tv")),
        (head() * np.exp(1j * np.linspace(0, 1, SIDE)).astype(np.complex64), (), ("tv",)),
        (coil_images(), (), ("conjugate", "tv")),
        (coil_images(), ("keep",), ("sense", "tv")),
        (coil_images(), (1,), ("tv",)),
    ],
    ids=["magnitudes", "phase", "combined coils", "coils", "one virtual coil"],
)
def test_a_reference_is_made_where_it_suits_the_data(
    tmp_path: Path, images: np.ndarray, coils: tuple[object, ...], suited: tuple[Reference, ...]
) -> None:
    volume = reconstructed(data_of(tmp_path, images, *coils))
    assert tuple(volume.references) == suited
    row = volume.score("fastmri")
    for name in suited:
        assert volume.references[name].shape == volume.target.shape
        if name != "tv" or len(suited) > 1:
            assert row[f"{name}_psnr"] > row["zf_psnr"]  # type: ignore[operator]
            assert row[f"{name}_hfen"] < row["zf_hfen"]  # type: ignore[operator]
    assert not [key for key in row if key.split("_")[0] in set(ALL) - set(suited)]


def test_sense_is_in_the_units_of_the_target_and_conjugate_filling_exact_where_it_knows_all(tmp_path: Path) -> None:
    volume = reconstructed(data_of(tmp_path, coil_images(), "keep", "combined"))
    inside = volume.target > 0.5 * volume.target.max()
    assert volume.references["sense"][inside] == pytest.approx(volume.target[inside], rel=0.2)
    assert volume.references["tv"][inside] == pytest.approx(volume.target[inside], rel=0.2)


def test_references_are_made_once_and_do_not_depend_on_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(tmp_path, coil_images(), "keep")
    first = reconstructed(data, size=1).references
    files = sorted((data.shard.with_suffix("")).iterdir())
    assert [file.name.split("-")[0] for file in files] == ["sense", "tv"]
    stamps = [file.stat().st_mtime_ns for file in files]
    again = reconstructed(data, size=2).references
    assert [file.stat().st_mtime_ns for file in files] == stamps, "kept"
    for file in files:
        file.unlink()
    afresh = reconstructed(data, size=2).references
    for name in ("sense", "tv"):
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], afresh[name], "the same bits whatever the batch")


def test_a_damaged_file_is_made_again_and_another_mask_has_another(tmp_path: Path) -> None:
    data = data_of(tmp_path, head())
    first = reconstructed(data, ("tv",)).references["tv"]
    (file,) = data.shard.with_suffix("").iterdir()
    with h5py.File(file) as opened:
        offset = opened["images"].id.get_offset() or opened["images"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 100] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(reconstructed(data, ("tv",)).references["tv"], first)
    other = reconstructed(replace(data, seed=1), ("tv",)).references["tv"]
    assert not np.array_equal(other, first)
    assert len(list(data.shard.with_suffix("").iterdir())) == 2


def test_what_was_made_from_a_shard_goes_with_it(tmp_path: Path) -> None:
    data = data_of(tmp_path, head())
    reconstructed(data, ("tv",))
    (entry,) = clean(tmp_path / "cache", 0)
    assert entry.size > 2 * SIDE * SIDE * 8
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_saved_images_are_a_target_and_a_reconstruction_for_fastmri(tmp_path: Path) -> None:
    volume = reconstructed(data_of(tmp_path, coil_images(), "keep"))
    volume.save(tmp_path / "images" / "a.h5", round=3)
    with h5py.File(tmp_path / "images" / "a.h5") as file:
        for name in ("reconstruction_rss", "reconstruction_esc", "target"):
            np.testing.assert_array_equal(file[name], volume.target)
        np.testing.assert_array_equal(file["reconstruction"], volume.reconstruction)
        np.testing.assert_array_equal(file["sense"], volume.references["sense"])
        assert file.attrs["acquisition"] == "unknown"
        assert file.attrs["patient_id"] == "a"
        assert file.attrs["max"] == volume.target.max()
        assert file.attrs["norm"] == pytest.approx(np.linalg.norm(volume.target.astype(float)), rel=1e-5)


def test_what_is_in_boxes_is_scored_for_every_reconstruction(tmp_path: Path) -> None:
    data = data_of(tmp_path, head())
    piece = replace(data.pieces[0], boxes=((1, 12, 20, 12, 16), (0, 0, 2, 0, 2)))
    row = reconstructed(replace(data, pieces=(piece,)), ("tv",)).score("fastmri")
    assert {"roi_psnr", "roi_ssim", "roi_nmse", "zf_roi_psnr", "tv_roi_psnr"} <= set(row)
    assert "roi_psnr" not in reconstructed(data, ()).score("fastmri")
