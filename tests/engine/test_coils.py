"""Federations of raw data: sites with different coils and sizes, one network, the same bits wherever it is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsim.core.errors import InputError
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.engine.federation import assemble
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload

from .conftest import assert_same

VARNET = "model={name: varnet, cascades: 1, channels: 2, pools: 2}"
LARGER = "model={name: varnet, cascades: 2, channels: 4, pools: 2, sensitivity_channels: 4}"


def site(name: str, **source: Any) -> dict[str, Any]:
    return {"name": name, "source": {"format": "phantom", "subjects": 3, "slices": 1, "size": 32, **source}}


@pytest.fixture
def raw(tmp_path: Path, cache: Path) -> Callable[..., Workload]:
    """Makes a federation of three sites with 4, 6 and 3 coils, the last with larger images."""
    content = {
        "name": "raw",
        "seed": 5,
        "federation": {
            "cache": str(cache),
            "matrix": "native",
            "coils": "keep",
            "split": {"train": 0.34, "val": 0.33, "test": 0.33},
            "sites": [site("A", coils=4), site("B", coils=6, coil_layout="helmet"), site("C", coils=3, size=48)],
        },
        "algorithm": {"name": "fedavg"},
        "training": {"rounds": 2, "batch_size": 1, "lr": 1e-3},
        "engine": {"backend": "serial"},
    }
    path = tmp_path / "raw.yaml"
    path.write_text(write_yaml(content))
    return lambda *overrides: load_workload(path, (VARNET, *overrides))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_actors_of_one_client_or_two_come_to_the_same_bits(raw: Callable[..., Workload], tmp_path: Path) -> None:
    serial = run(raw(), tmp_path / "serial")
    for clients in (1, 2):
        keys = ("engine.backend=ray", f"engine.clients_per_actor={clients}")
        assert_same(serial, run(raw(*keys), tmp_path / f"packed-{clients}"))


def shared(run: Run) -> np.ndarray:
    return run.learner("A", "last").shared.numpy()


@pytest.mark.slow
def test_sites_of_other_coils_and_sizes_train_one_network(raw: Callable[..., Workload], tmp_path: Path) -> None:
    """Also interrupted after a round: the same bits."""
    whole = run(raw(), tmp_path / "whole")
    run(raw("training.rounds=1"), tmp_path / "parts")
    parts = run(raw(), tmp_path / "parts", resume=True)
    np.testing.assert_array_equal(shared(whole), shared(parts))
    assert np.isfinite(whole.rounds["psnr"]).all()
    assert whole.rounds["loss"].iloc[1] < whole.rounds["loss"].iloc[0]
    shapes = {
        member.site: member.shape(member.supports[0]) for c in assemble(raw()).clients for member in c.data.members
    }
    assert shapes == {"A": (32, 32), "B": (32, 32), "C": (48, 48)}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("coils=2",), ("target=combined", "matrix=[32, 32]")])
def test_virtual_coils_and_combined_targets(
    raw: Callable[..., Workload], tmp_path: Path, keys: tuple[str, ...]
) -> None:
    trained = ("training.rounds=20", "training.lr=1e-2", "metrics.every=0", "engine.checkpoint_every=0", LARGER)
    done = run(raw(*(f"federation.{key}" for key in keys), *trained), tmp_path / "run")
    assert done.learner("A").network.target == done.workload.federation.target
    scored = done.evaluation
    assert scored["psnr"].mean() > scored["zf_psnr"].mean()


def test_an_image_unet_sees_the_coils_combined(raw: Callable[..., Workload], tmp_path: Path) -> None:
    done = run(raw("model={name: unet, channels: 2, pools: 2}", "training.rounds=1"), tmp_path / "run")
    assert np.isfinite(done.rounds["psnr"]).all()


def test_raw_kspace_of_several_coils_becomes_one_image(raw: Callable[..., Workload], tmp_path: Path) -> None:
    done = run(raw("training.rounds=1", "federation.matrix=[32, 32]"), tmp_path / "run")
    (client,) = (one for one in assemble(done.workload).clients if one.name == "A")
    (volume,) = reconstruct_volumes(done.model("A"), client.data, "test", 1)
    with client.data.members[0].open() as shard:
        kspace = shard.kspace(volume.piece.volume, slice(None))
    assert kspace.shape == (1, 4, 32, 32)
    undersampled = kspace * volume.mask
    for given, shape in (
        (undersampled, (1, 32, 32)),
        (undersampled[0], (32, 32)),
        (undersampled[None], (1, 1, 32, 32)),
    ):
        found = done.reconstruct(given, "A")
        assert found.shape == shape
        np.testing.assert_allclose(found.reshape(1, 32, 32), volume.reconstruction, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=r"\(8, 8\): must be \(\.\.\., H, W\), H and W at least 32; take \[32, 32\]"):
        done.reconstruct(np.ones((8, 8)), "A")


def test_a_volume_that_the_network_does_not_take_is_refused(raw: Callable[..., Workload]) -> None:
    larger = (f"federation.sites.{name}.source.size=64" for name in "AB")
    with pytest.raises(
        InputError, match=r"^site C: matrix: native: volume subject-001_t1 is \[48, 48\], .*2\^model.pools"
    ):
        assemble(raw("model={name: unet, channels: 2, pools: 5}", *larger))
