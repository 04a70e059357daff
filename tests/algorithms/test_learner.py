"""Precision and memory format: other ways to compute the same training, recorded with the run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim.algorithms.flat import FlatParameters
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.models.reconstruction import UNetModel

from .conftest import load

Simulate = Callable[..., Run]


def test_channels_last_weights_are_views_of_the_vector_in_that_order() -> None:
    network = UNetModel(channels=4, pools=2).build(torch.Generator().manual_seed(0))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    flat = FlatParameters(list(network.named_parameters()), channels_last=True)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=torch.channels_last)
    flat.vector.data.mul_(2)
    assert all(torch.equal(parameter, 2 * before[name]) for name, parameter in network.named_parameters())
    assert torch.equal(flat.flatten(flat.by_name(flat.vector.data)), flat.vector.data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "tolerance"), [("training.memory_format=channels_last", 1e-3), ("training.precision=bfloat16", 0.05)]
)
@pytest.mark.parametrize("domain", ["image", "dual"])
def test_other_formats_train_alike(simulate: Simulate, key: str, tolerance: float, domain: str) -> None:
    """Close to plain training, in the same files, and not the same bits (so the option does something)."""
    keys = (f"model.domain={domain}", "training.rounds=2")
    plain, other = simulate("fedmri", *keys), simulate("fedmri", *keys, key)
    assert np.allclose(plain.rounds["loss"], other.rounds["loss"], rtol=tolerance)
    for file in ("shared", "clients/A"):
        ours, theirs = load(plain, 2, file), load(other, 2, file)
        assert {name: array.shape for name, array in ours.items()} == {n: a.shape for n, a in theirs.items()}
    assert other.workload.training.model_dump()[key.partition("=")[0].removeprefix("training.")] in key
    if "bfloat16" in key:
        ours, theirs = load(plain, 2, "shared"), load(other, 2, "shared")
        assert any(not np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("backend", ["serial", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])])
def test_a_gpu_that_is_not_there_is_refused(simulate: Simulate, tmp_path: Path, backend: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"engine\.device: cuda needs a GPU"):
        simulate("fedavg", "engine.device=cuda", f"engine.backend={backend}", out=tmp_path / "run")


def test_formats_belong_to_the_run(simulate: Simulate, tmp_path: Path) -> None:
    run = simulate("fedavg", "training.rounds=1", "training.precision=bfloat16", out=tmp_path / "run")
    with pytest.raises(InputError, match=r"training\.precision: was 'bfloat16' and is now 'float32'"):
        simulate("fedavg", "training.rounds=1", out=run.path, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [1, 2])
@pytest.mark.parametrize(("method", "expected"), [("fedavg", {True}), ("fl_mrcm", {True, False})])
def test_tf32_holds_in_the_backward_pass_too(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, fuse: int, method: str, expected: set[bool]
) -> None:
    """cuDNN reads the flag when a kernel starts, in either direction; fl_mrcm has another loss, and discriminators."""
    allowed: list[bool] = []

    def noting(function: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object, **keys: object) -> object:
            allowed.append(torch.backends.cudnn.allow_tf32)
            return function(*arguments, **keys)

        return noted

    monkeypatch.setattr(torch.autograd, "backward", noting(torch.autograd.backward))
    monkeypatch.setattr(torch.autograd, "grad", noting(torch.autograd.grad))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as where clients train on a GPU
    keys = (f"training.fuse={fuse}", "training.rounds=1", "training.local_epochs=1")
    simulate(method, *keys)
    assert set(allowed) == {False}
    allowed.clear()
    simulate(method, *keys, "training.precision=tf32")
    assert set(allowed) == expected
    assert not torch.backends.cudnn.allow_tf32
