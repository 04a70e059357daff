"""`training.init`: runs start from a file, keep it, and refuse one that does not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from fedsim.core.errors import InputError
from fedsim.engine.host.training import initial_network
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from tests.algorithms.conftest import assert_equal, everything, small

Make = Callable[..., Workload]


@pytest.fixture
def make(tmp_path: Path, cache: Path) -> Make:
    """A workload of one file in the test's folder, with overrides."""
    path = tmp_path / "small.yaml"
    path.write_text(write_yaml(small(cache)))
    return lambda *overrides: load_workload(path, ("training.rounds=2", *overrides))


@pytest.fixture
def pretrained(make: Make, tmp_path: Path) -> Path:
    """The network of a client of another seed's run, as docs/methods.md saves it."""
    file = tmp_path / "pretrained.safetensors"
    trained = run(make("seed=8", "algorithm.name=fedavg", "training.rounds=1"), tmp_path / "before")
    save_file(trained.model("A.1").state_dict(), file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [1, 2])
def test_every_client_starts_from_the_file(make: Make, pretrained: Path, tmp_path: Path, fuse: int) -> None:
    """With a learning rate of almost 0 all networks, shared and private, stay what the file holds."""
    still = ("training.optimizer=sgd", "training.lr=1.0e-30", "sites.B.training={}")
    keys = (*still, "training.rounds=1", "algorithm.name=fedmri", "algorithm.beta=0")
    done = run(make("training.init=pretrained.safetensors", *keys, f"training.fuse={fuse}"), tmp_path / "run")
    for client in done.workload.client_names():
        for name, value in done.model(client, "last").state_dict().items():
            torch.testing.assert_close(value, load_file(pretrained)[name], rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_part_of_a_network_is_enough(make: Make, tmp_path: Path) -> None:
    """Here the encoder that an earlier run's clients shared; the seed draws the rest."""
    before = run(make("seed=8", "algorithm.name=fedmri", "training.rounds=1"), tmp_path / "before")
    file = before.path / "checkpoints/round-0001/shared.safetensors"
    workload = make(f"training.init={file}")
    start, drawn = (initial_network(setup_of(one)).state_dict() for one in (workload, make()))
    given = load_file(file)
    assert given
    for name, value in start.items():
        assert torch.equal(value, given.get(name, drawn[name])), name
    assert any(not torch.equal(value, drawn[name]) for name, value in given.items())


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_bits(make: Make, pretrained: Path, tmp_path: Path) -> None:
    """Clients that had not trained yet start from the file too; the run's copy serves when the file has changed."""
    keys = ("training.participation=0.5", f"training.init={pretrained}")
    straight = run(make(*keys, "training.rounds=3"), tmp_path / "straight")
    run(make(*keys, "training.rounds=1"), tmp_path / "resumed")
    pretrained.write_bytes(save({"image.decoder.last.bias": torch.zeros(1)}))
    with pytest.raises(InputError, match=r"training.init: is not what it was when .* set it to .*init.safetensors"):
        run(make(*keys, "training.rounds=3"), tmp_path / "resumed", resume=True)
    copy = f"training.init={tmp_path / 'resumed/init.safetensors'}"
    resumed = run(make(keys[0], copy, "training.rounds=3"), tmp_path / "resumed", resume=True)
    assert_equal(everything(straight, 3), everything(resumed, 3))
    assert resumed.workload.provenance is not None
    assert resumed.workload.provenance["init"].startswith("sha256 ")


@pytest.mark.slow
def test_a_run_that_has_begun_keeps_its_start(make: Make, pretrained: Path, tmp_path: Path) -> None:
    run(make("training.rounds=1"), tmp_path / "run")
    with pytest.raises(InputError, match=r"training.init: .*began without it"):
        run(make(f"training.init={pretrained}"), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_run_can_be_moved(make: Make, pretrained: Path, tmp_path: Path) -> None:
    run(make(f"training.init={pretrained}"), tmp_path / "run")
    pretrained.unlink()
    moved = Run((tmp_path / "run").rename(tmp_path / "moved"))
    assert moved.workload.training.init == tmp_path / "moved/init.safetensors"
    kspace = np.ones((16, 16), np.complex64)
    assert np.isfinite(moved.reconstruct(kspace, "A.1")).all()


Tensors = dict[str, torch.Tensor]
WRONG: dict[str, tuple[Callable[[Tensors], bytes | Tensors], str]] = {
    "name": (
        lambda own: {**own, "image.decoder.lost.bias": torch.zeros(1)},
        "has no 'image.decoder.lost.bias'; did you",
    ),
    "network": (lambda own: {"cascades.0.eta": torch.zeros(1)}, "has no 'cascades.0.eta'; it is of another network"),
    "shape": (
        lambda own: {**own, "image.decoder.last.bias": torch.zeros(3)},
        r"image.decoder.last.bias is \(3,\), and in this network \(1,\); set the keys of model",
    ),
    "nan": (lambda own: {"image.decoder.last.bias": torch.tensor([float("nan")])}, "last.bias has NaN or infinite"),
    "empty": (lambda own: {}, "has no tensors"),
    "pickle": (lambda own: b"\x80\x04\x95a pickle", "is not a safetensors file"),
    "cut": (lambda own: b"\x10\x00\x00\x00\x00\x00\x00\x00{", "is not a safetensors file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_does_not_fit_is_refused_in_one_line(make: Make, tmp_path: Path, what: str) -> None:
    contents, message = WRONG[what]
    own = {name: value.clone() for name, value in initial_network(setup_of(make())).state_dict().items()}
    wrong, file = contents(own), tmp_path / "wrong.safetensors"
    if isinstance(wrong, bytes):
        file.write_bytes(wrong)
    else:
        save_file(wrong, file)
    with pytest.raises(InputError, match=f"^training.init: .*{message}") as error:
        run(make(f"training.init={file}"), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run/workload.yaml").exists()


def test_a_missing_file_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training.init: .*nowhere.safetensors: cannot be read \(No such file"):
        run(make("training.init=nowhere.safetensors"), tmp_path / "run")


def test_a_run_is_no_file_of_parameters(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training.init: .*is a folder; .*shared.safetensors"):
        run(make(f"training.init={tmp_path}"), tmp_path / "run")
