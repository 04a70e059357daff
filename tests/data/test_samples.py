import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fedsim.data.batch import undersample
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.samples import ClientData, PooledData, SliceMemory
from fedsim.data.shard import shard_path
from fedsim.data.soundness import unsound
from fedsim.data.split import Piece
from fedsim.mri.fft import fft2c, ifft2c
from fedsim.mri.masks import Equispaced, Gaussian2D


def kspace(slices: int = 6, side: int = 32, seed: int = 0) -> torch.Tensor:
    return fft2c(torch.rand(slices, side, side, generator=torch.Generator().manual_seed(seed)) * 50)


def store(file: h5py.File, name: str, kspace: np.ndarray) -> None:
    """A volume of a shard."""
    group = file.require_group("kspace")
    if name in group:
        del group[name]
    slices, *support = kspace.shape
    sums = np.array([zlib.crc32(one.tobytes()) for one in kspace], np.uint32)
    at = group.create_dataset(name, data=kspace).attrs
    at.update(subject=name, origin=name, slices=list(range(slices)), support=support, sums=sums)


@pytest.fixture
def data(tmp_path: Path) -> ClientData:
    with h5py.File(tmp_path / "shard.h5", "w") as file:
        for name, seed in (("a", 0), ("b", 1)):
            store(file, name, kspace(seed=seed).numpy())
    pieces = (
        Piece(volume="a", subject="a", start=0, stop=6, part="train"),
        Piece(volume="b", subject="b", start=1, stop=5, part="test"),
    )
    mask = Equispaced(acceleration=3)
    return ClientData(
        shard=tmp_path / "shard.h5",
        site="A",
        pieces=pieces,
        supports=((32, 32),) * 2,
        mask=mask,
        matrix=(32, 32),
        normalise="std",
        seed=0,
    )


@pytest.mark.parametrize("normalise", ["std", "max"])
def test_one_scale_for_input_and_target(normalise: str) -> None:
    full, mask = kspace(), torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    batch = undersample(full, mask, normalise)
    size = batch.zero_filled.std((-2, -1)) if normalise == "std" else batch.zero_filled.amax((-2, -1))
    torch.testing.assert_close(size, torch.ones(6))
    torch.testing.assert_close(batch.target * batch.scale, ifft2c(full).abs())
    torch.testing.assert_close(batch.kspace * batch.scale, full * mask)
    torch.testing.assert_close(batch.zero_filled, ifft2c(batch.kspace).abs())
    assert (batch.scale > 0).all()


def test_an_epoch_is_every_slice_once_in_the_streams_order(data: ClientData) -> None:
    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([b.scale.flatten() for b in data.batches(4, torch.Generator().manual_seed(seed))])

    assert [len(b.target) for b in data.batches(4, torch.Generator())] == [4, 2]
    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    torch.testing.assert_close(epoch(0).sort().values, epoch(1).sort().values)
    assert data.samples() == 6
    assert data.samples("test") == 4


@pytest.mark.parametrize("budget", [0, 5 * 17 * 32 * 32, 6 * 17 * 32 * 32])
def test_slices_kept_in_memory_are_those_of_the_shard(data: ClientData, budget: int) -> None:
    """Nothing, too little and just enough memory: the same bits, and what was kept needs the shard no more."""
    memory, order = SliceMemory(budget), torch.Generator()
    for seed in (0, 1):
        kept, read = (list(data.batches(4, order.manual_seed(seed), held)) for held in (memory, None))
        for one, other in zip(kept, read, strict=True):
            assert torch.equal(one.kspace, other.kspace)
            assert torch.equal(one.mask, other.mask)
    before, others = memory.seconds, replace(data, site="B")
    list(data.batches(4, order, memory))
    fits = budget >= 6 * 17 * 32 * 32
    assert (memory.seconds == before) == fits
    list(others.batches(4, order, memory))
    assert memory._left == budget - fits * 6 * 17 * 32 * 32, "what came first is kept"
    memory.forget(data)
    assert memory._left == budget


def test_a_shard_is_made_where_it_is_first_read(tmp_path: Path) -> None:
    source = PhantomSource(subjects=2, slices=3, size=48, contrast=["t1", "t2"], noise=0.0).resolve(1, "P")
    stored = source.foreseen((32, 64))
    pieces = tuple(
        Piece(volume=volume.name, subject=volume.subject, start=0, stop=3, part="train") for volume in stored
    )
    shard = shard_path(source, Path(), tmp_path / "cache", (32, 64))
    data = ClientData(
        shard=shard,
        site="P",
        pieces=pieces,
        supports=tuple(v.support for v in stored),
        mask=Equispaced(),
        matrix=(32, 64),
        normalise="std",
        seed=0,
        maker=source,
    )
    assert data.samples() == 12
    assert not shard.parent.exists()
    with data.open() as opened:
        made = [replace(volume, digest="") for volume in opened.volumes()]
        assert made == stored, "what was foreseen is what was made, but for its content"
    assert list(shard.parent.iterdir()) == [shard]
    assert len(list(data.batches(4, torch.Generator()))) == 3


def test_volumes_come_whole_and_in_order(data: ClientData) -> None:
    (volume,) = reconstruct_volumes(lambda k, m: ifft2c(k).abs(), data, "test", size=3)
    np.testing.assert_allclose(volume.target, ifft2c(kspace(seed=1)).abs().numpy()[1:5], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(volume.reconstruction, volume.zero_filled, rtol=1e-4, atol=1e-4)
    score = volume.score("fastmri")
    assert (score["subject"], score["volume"], score["split"]) == ("b", "b", "test")
    assert score["psnr"] == pytest.approx(score["zf_psnr"], abs=1e-3)


def test_masks_are_per_volume_or_per_site(data: ClientData) -> None:
    def mask(kind: Gaussian2D, volume: str) -> np.ndarray:
        return ClientData(
            shard=data.shard, site="A", pieces=(), supports=(), mask=kind, matrix=(32, 32), normalise="std", seed=0
        ).volume_mask(volume, (32, 32))

    assert (mask(Gaussian2D(), "a") != mask(Gaussian2D(), "b")).any()
    np.testing.assert_array_equal(mask(Gaussian2D(per="site"), "a"), mask(Gaussian2D(per="site"), "b"))


def test_padding_is_never_measured(data: ClientData) -> None:
    mask = data.volume_mask("a", (16, 20))
    assert mask.shape == (32, 32)
    assert not mask[:8].any()
    assert not mask[:, :6].any()
    assert mask[8:24, 6:26].any()


def site_of(tmp_path: Path, site: str, slices: int, side: int) -> ClientData:
    with h5py.File(tmp_path / f"{site}.h5", "w") as file:
        store(file, "v", kspace(slices, side).numpy())
    piece = (Piece(volume="v", subject="s", start=0, stop=slices, part="train"),)
    return ClientData(
        shard=tmp_path / f"{site}.h5",
        site=site,
        pieces=piece,
        supports=((side, side),),
        mask=Equispaced(),
        matrix=(side, side),
        normalise="std",
        seed=0,
    )


def test_pooled_slices_come_once_each_under_their_own_sites_mask(tmp_path: Path) -> None:
    members = tuple(site_of(tmp_path, *one) for one in (("A", 5, 32), ("B", 4, 32), ("C", 3, 48)))
    pooled = PooledData(members)
    batches = list(pooled.batches(4, torch.Generator().manual_seed(0)))
    assert sorted(tuple(b.target.shape) for b in batches) == [(1, 32, 32), (3, 48, 48), (4, 32, 32), (4, 32, 32)]
    assert pooled.samples() == 12
    mixed = {tuple(m.flatten().tolist()) for b in batches if b.mask.shape[-1] == 32 for m in b.mask}
    assert mixed == {tuple(m.volume_mask("v", (32, 32)).flatten().tolist()) for m in members[:2]}
    scales = torch.cat([b.scale.flatten() for b in batches]).sort().values
    alone = [b.scale.flatten() for m in members for b in m.batches(4, torch.Generator())]
    torch.testing.assert_close(scales, torch.cat(alone).sort().values)


@pytest.mark.parametrize("value", [100.0, np.nan])
def test_a_slice_that_is_not_as_others_is_found(tmp_path: Path, value: float) -> None:
    """For a loss that is not finite: is it the data, or the learning rate?"""
    data = site_of(tmp_path, "A", 5, 32)
    assert unsound(data) == ""
    with h5py.File(data.shard, "a") as file:
        changed = file["kspace/v"][()]
        changed[3] = fft2c(torch.full((32, 32), value).to(torch.complex64)).numpy()
        store(file, "v", changed)
    assert unsound(data) == "slice 3 of v (site A)"
