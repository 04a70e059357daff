"""Native matrices, lines that were not measured, and echoes off the centre."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim.data.coils import CoilSettings
from fedsim.data.left_out import lines
from fedsim.data.samples import ClientData, PooledData, training_bytes
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.split import Piece
from fedsim.mri.fft import fft2c, ifft2c
from fedsim.mri.geometry import Matrix, centre_crop_or_pad
from fedsim.mri.masks import Equispaced

from .arrays import Arrays

COILS, H, W = 3, 20, 32


def images(slices: int = 2, height: int = H, width: int = W, seed: int = 0) -> np.ndarray:
    """(slices, coils, H, W): a blob whose echo is in the middle."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(slices, COILS, height, width)) + 1j * rng.normal(size=(slices, COILS, height, width))
    return (50 * np.exp(-3 * (x**2 + y**2)) + noise).astype(np.complex64)


def kspace(images: np.ndarray) -> np.ndarray:
    return fft2c(torch.from_numpy(images)).numpy()


def put(root: Path, name: str, values: np.ndarray) -> None:
    (root / "site").mkdir(exist_ok=True)
    np.save(root / "site" / f"{name}.npy", values)


def stored(root: Path, matrix: Matrix, *coils: object, **keys: object) -> Path:
    return ensure_shard(Arrays(path="site", **keys), root, root / "cache", matrix, CoilSettings(*coils))


def client(shard: Path, matrix: Matrix, coils: int = 0) -> ClientData:
    with Shard(shard) as opened:
        volumes = opened.volumes()
    return ClientData(
        shard=shard,
        site="A",
        pieces=tuple(
            Piece(volume=v.name, subject=v.subject, start=0, stop=len(v.slices), part="train", lines=v.lines)
            for v in volumes
        ),
        supports=tuple(v.support for v in volumes),
        mask=Equispaced(acceleration=2),
        matrix=matrix,
        normalise="std",
        seed=0,
        coil_settings=CoilSettings("keep") if coils else CoilSettings(),
        coils=coils,
    )


def test_a_native_matrix_keeps_each_volume_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "a", images()), put(tmp_path, "b", images(3, 24, 16))
    with Shard(stored(tmp_path, "native", "keep", size=(H, 16))) as opened:
        assert [volume.support for volume in opened.volumes()] == [(H, W), (24, 16)]
        np.testing.assert_array_equal(opened.kspace("a", slice(None)), kspace(images()))


def test_another_matrix_crops_to_the_size_that_the_scan_says(tmp_path: Path) -> None:
    put(tmp_path, "a", images())
    with Shard(stored(tmp_path, (16, 16), "keep", size=(16, 16))) as opened:
        found = ifft2c(torch.from_numpy(opened.kspace("a", slice(None)))).numpy()
    np.testing.assert_allclose(found, centre_crop_or_pad(images(), (16, 16)), atol=1e-4)


def test_batches_of_a_native_matrix_have_slices_of_one_shape(tmp_path: Path) -> None:
    put(tmp_path, "a", images()), put(tmp_path, "b", images(3, 24, 16))
    data = client(stored(tmp_path, "native", "keep"), "native", COILS)
    pooled = PooledData((data, client(stored(tmp_path, "native", "keep"), "native", COILS)))
    shapes = [tuple(batch.kspace.shape) for batch in pooled.batches(4, torch.Generator().manual_seed(0))]
    assert sorted(shapes) == [(2, COILS, 24, 16), (4, COILS, H, W), (4, COILS, 24, 16)]
    assert [volume.mask.shape for volume in data.volumes("train", 2)] == [(H, W), (24, 16)]
    assert data.pixels() == 2 * H * W + 3 * 24 * 16
    assert training_bytes(data) == sum(
        each.element_size() * each.numel()
        for batch in data.batches(2, torch.Generator().manual_seed(0))
        for each in (*batch.inputs, batch.zero_filled, batch.target)
    )


@pytest.mark.parametrize("matrix", ["native", (32, 32), (48, 64)])
def test_lines_that_were_not_measured_are_never_sampled(tmp_path: Path, matrix: Matrix) -> None:
    """Partial Fourier: the first quarter of the lines is missing."""
    partial = kspace(images(height=W))
    partial[..., : W // 4] = 0
    put(tmp_path, "a", ifft2c(torch.from_numpy(partial)).numpy())
    shard = stored(tmp_path, matrix, "keep")
    with Shard(shard) as opened:
        (volume,), told = opened.volumes(), lines(opened.left_out())
    assert told == ["left out: 1 x volume's lines that were not measured: a.npy (8 of 32)"]
    width = W if matrix == "native" else matrix[1]
    first = width // 2 - W // 4
    assert volume.lines == (first, width if width == W else width // 2 + W // 2)
    for piece in client(shard, matrix, COILS).volumes("train", 2):
        assert not piece.mask[:, :first].any()
        assert piece.mask[:, first:].any()
        assert not next(piece.batches).kspace[..., :first].any()


@pytest.mark.parametrize("off", [5, -5])
def test_an_echo_off_the_centre_is_moved_there(tmp_path: Path, off: int) -> None:
    full = kspace(images())
    put(tmp_path, "a", ifft2c(torch.from_numpy(np.roll(full, off, axis=-1))).numpy())
    with Shard(stored(tmp_path, "native", "keep")) as opened:
        (volume,), told, found = opened.volumes(), lines(opened.left_out()), opened.kspace("a", slice(None))
    assert f"echo that was off the centre, moved there: a.npy (by {-off} of 32 lines)" in told[0]
    measured = (0, W - off) if off > 0 else (-off, W)
    assert volume.lines == measured
    there = slice(*measured)
    np.testing.assert_allclose(found[..., there], full[..., there], atol=1e-3)
    assert np.abs(found[..., : measured[0]]).max(initial=0) < 1e-3


def test_combined_magnitudes_have_all_lines(tmp_path: Path) -> None:
    partial = kspace(images())
    partial[..., :8] = 0
    put(tmp_path, "a", ifft2c(torch.from_numpy(partial)).numpy())
    with Shard(stored(tmp_path, "native")) as opened:
        assert [volume.lines for volume in opened.volumes()] == [None]
