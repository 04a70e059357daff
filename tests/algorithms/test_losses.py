"""`training.loss` and `training.clip_norm`: their definitions, and runs that equal plain loops with them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.algorithms.losses import LOSSES, Loss, ssim
from fedsim.algorithms.training import Training
from fedsim.mri.metrics import volume_quality
from tests.algorithms.conftest import (
    Bench,
    Models,
    Simulate,
    assert_close,
    bench,
    everything,
    mean,
    state,
)

DESCENT = ("training.optimizer=sgd", "training.lr=0.1")


def images(*, height: int = 24, width: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, height, width, generator=generator) * torch.tensor([1.0, 4.0, 0.3])[:, None, None]
    return target + 0.2 * torch.randn(target.shape, generator=generator), target


def named(kind: str) -> Loss:
    return Training.model_validate({"loss": kind}).loss


def test_ssim_is_the_metrics_with_each_slices_range() -> None:
    image, target = images()
    expected = volume_quality(image.numpy(), target.numpy(), "slice").ssim
    np.testing.assert_allclose(float(ssim(image, target)), expected, rtol=1e-5)


def test_ssim_of_a_volume_of_one_slice_is_fastmris() -> None:
    image, target = (one[:1] for one in images(width=24))  # which crops what is higher than wide
    expected = volume_quality(image.numpy(), target.numpy(), "fastmri").ssim
    np.testing.assert_allclose(float(ssim(image, target)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_loss_is_least_at_the_target_and_has_the_gradient_of_its_differences(kind: str) -> None:
    image, target = (one.double() for one in images(height=9, width=8))
    loss = named(kind)
    assert float(loss(target, target)) == pytest.approx(0, abs=1e-12)
    assert float(loss(image, target)) > 0
    torch.autograd.gradcheck(lambda x: loss(x, target), image.requires_grad_())


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_slice_without_signal_gives_finite_gradients(kind: str) -> None:
    image = torch.full((1, 16, 16), 0.1, requires_grad=True)
    named(kind)(image, torch.zeros(1, 16, 16)).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_loss_is_written_as_its_name(kind: str) -> None:
    training = Training.model_validate({"loss": kind})
    assert training.model_dump()["loss"] == kind
    assert Training.model_validate({"loss": {"name": kind}}) == training


def of_definition(kind: str, image: Tensor, target: Tensor) -> Tensor:
    """Written out, with unfolded windows for SSIM."""
    error = image - target
    if kind == "mse":
        return (error**2).mean()
    if kind == "kspace":
        shifted = torch.fft.ifftshift(error, dim=(-2, -1))
        return (torch.fft.fft2(shifted).abs() / (error.shape[-1] * error.shape[-2]) ** 0.5).mean()
    x, t = (one.unfold(1, 7, 1).unfold(2, 7, 1).flatten(3) for one in (image, target))
    mx, mt = x.mean(-1), t.mean(-1)
    covariance = ((x - mx[..., None]) * (t - mt[..., None])).sum(-1) / 48
    peak = target.flatten(1).max(1).values[:, None, None]
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    numerator = (2 * mx * mt + c1) * (2 * covariance + c2)
    similar = (numerator / ((mx**2 + mt**2 + c1) * (x.var(-1) + t.var(-1) + c2))).mean()
    absolute = error.abs().mean()
    return {"l1": absolute, "ssim": 1 - similar, "l1_ssim": absolute + 1 - similar}[kind]


def fedavg(b: Bench) -> Models:
    """The loss of the workload, its gradient's norm limited."""
    nets = {client.name: b.network() for client in b.clients}
    optimizers = {client.name: b.optimizer(nets[client.name], client) for client in b.clients}
    server = state(b.network())
    for round_ in b.rounds:
        sent = []
        for client in b.clients:
            net, optimizer = nets[client.name], optimizers[client.name]
            net.load_state_dict(server)
            b.begin_round(optimizer, client, round_)
            for batch in b.batches(client, round_):
                optimizer.zero_grad()
                of_definition(b.workload.training.loss.name, net(batch.kspace, batch.mask), batch.target).backward()
                limit = b.workload.training.clip_norm
                norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
                if limit is not None and norm > limit:
                    for p in net.parameters():
                        p.grad *= limit / norm
                optimizer.step()
            sent.append(state(net))
        server = mean(sent)
    return {client.name: server for client in b.clients}


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [("training.loss=l1_ssim",), ("training.loss=kspace",), ("training.clip_norm=0.05",)],
    ids="".join,
)
def test_a_run_equals_a_plain_loop(simulate: Simulate, overrides: tuple[str, ...]) -> None:
    run = simulate("fedavg", *overrides, *DESCENT, "training.local_epochs=1")
    assert_close(run, fedavg(bench(run.workload)))


def test_clipping_acts_on_what_a_method_adds(simulate: Simulate) -> None:
    """With plain gradient descent, no step is longer than lr times the norm."""
    keys = ("training.optimizer=sgd", "training.lr=1.0", "training.lr_step=0", "training.rounds=1")
    run = simulate("fedprox", "algorithm.mu=100", "training.clip_norm=1.0e-4", *keys)
    b = bench(run.workload)
    begun = state(b.network())
    steps = max(len(list(b.batches(client, 1))) for client in b.clients)
    for client in b.clients:
        moved = [value - begun[name] for name, value in state(run.model(client.name, "last")).items()]
        assert 0 < torch.cat([one.flatten() for one in moved]).norm() <= 1.01e-4 * steps


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("training.loss=l1_ssim",), ("training.clip_norm=0.02",)])
def test_fused_clients_minimise_the_same(simulate: Simulate, keys: tuple[str, ...]) -> None:
    runs = (simulate("fedavg", *keys, *DESCENT, "training.rounds=1", f"training.fuse={fuse}") for fuse in (1, 2))
    alone, together = (everything(run, 1) for run in runs)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
