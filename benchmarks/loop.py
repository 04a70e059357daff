"""The bare loop: clients trained in plain PyTorch on any device, without federation, Ray or disk.

One client after the other, or K as one network; on a GPU a step can be captured as a CUDA graph and replayed.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn
from torch.func import functional_call

SAMPLES, BATCH, SIZE, LR = 8, 4, 64, 1e-4
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
Samples = tuple[Tensor, ...]
"""Inputs of a network and, last, what its output should be."""


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (channels_in, channels):
        layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.InstanceNorm2d(channels)]
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers)


def _up(channels: int) -> nn.Sequential:
    layer = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
    return nn.Sequential(layer, nn.InstanceNorm2d(channels), nn.LeakyReLU(0.2, inplace=True))


class UNet(nn.Module):
    """The plain fastMRI U-Net with 4 poolings; its down blocks are the encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels << level for level in range(5)]
        self.encoder = nn.ModuleList(_block(a, b) for a, b in zip([1, *widths], widths, strict=False))
        self.up = nn.ModuleList(_up(width) for width in widths[-2::-1])
        self.blocks = nn.ModuleList(_block(2 * width, width) for width in widths[-2::-1])
        self.last = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, 1, H, W)."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.blocks, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        out: Tensor = self.last(x)
        return out


def images(client: int) -> Samples:
    """Random images of a client, and what they should become."""
    generator = torch.Generator().manual_seed(client)
    inputs, targets = torch.randn(2, SAMPLES, 1, SIZE, SIZE, generator=generator)
    return inputs, targets


_PLAIN = partial(nullcontext, nullcontext())


class Loop:
    """The bare loop of some clients in this process, on any device."""

    def __init__(
        self,
        network: nn.Module,
        clients: Sequence[Samples],
        optimizer: str = "rmsprop",
        *,
        batch: int = BATCH,
        fuse: int = 1,
        graphs: bool = False,
        arithmetic: Callable[[], AbstractContextManager[AbstractContextManager[object]]] = _PLAIN,
    ) -> None:
        """Clients that start alike.

        Args:
            network: On its device. Parameters with `encoder` in their names are averaged, the others stay private.
            clients: Each one's inputs and targets (S, ...), on the same device.
            optimizer: Its name.
            batch: Slices in a step.
            fuse: K clients train as one network: torch.func.vmap, and one optimizer of blocks (K, ...).
            graphs: Whether a step, the optimizer's included, is captured on the GPU and replayed.
            arithmetic: What a step computes in; gives the context of the forward pass.

        Raises:
            ValueError: the number of clients is no multiple of `fuse`.
        """
        if len(clients) % fuse:
            raise ValueError(f"{len(clients)} clients cannot be fused by {fuse}: must be a multiple")
        self._network, self._arithmetic, self._fuse = network, arithmetic, fuse
        if fuse > 1:
            _use_group_norm(network)
        named = dict(network.named_parameters())
        self._leaves = named if fuse == 1 else {name: _stacked(tensor, fuse) for name, tensor in named.items()}
        own = {name: "encoder" in name.split(".") for name in named}
        self._encoder = [leaf for name, leaf in self._leaves.items() if own[name]]
        self._decoder = [leaf for name, leaf in self._leaves.items() if not own[name]]
        self._shared = [leaf.detach().clone() for leaf in self._encoder]
        blocks = [_block_of(clients[at : at + fuse], batch) for at in range(0, len(clients), fuse)]
        self._blocks = blocks
        self.private = [[leaf.detach().clone() for leaf in self._decoder] for _ in blocks]
        """The private parameters of each client, or of K as (K, ...)."""
        flags = {"capturable": True} if graphs and optimizer == "rmsprop" else {}
        self._make_optimizer = partial(OPTIMIZERS[optimizer], self._leaves.values(), lr=LR, **flags)
        self._optimizer = self._make_optimizer()
        self._step = Captured(self._plain_step, blocks[0][0]) if graphs else self._plain_step

    def round(self) -> float:
        """Seconds of one round of all clients."""
        begun = time.perf_counter()
        total = [torch.zeros_like(tensor) for tensor in self._shared]
        for batches, decoder in zip(self._blocks, self.private, strict=True):
            self._train(batches, decoder)
            with torch.no_grad():
                for tensor, leaf in zip(total, self._encoder, strict=True):
                    tensor.add_(leaf)
        if self._fuse > 1:
            total = [tensor.sum(0) for tensor in total]
        if self._shared[0].is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def rounds(self, count: int) -> list[float]:
        """Seconds of each of several rounds."""
        return [self.round() for _ in range(count)]

    def _train(self, batches: list[Samples], decoder: list[Tensor]) -> None:
        """Swap clients in, train them and swap them out."""
        with torch.no_grad():
            torch._foreach_copy_(self._encoder, self._shared)
            torch._foreach_copy_(self._decoder, decoder)
        self._reset_optimizer()
        for batch in batches:
            self._step(*batch)
        with torch.no_grad():
            torch._foreach_copy_(decoder, self._decoder)

    def _reset_optimizer(self) -> None:
        """A fresh one; within a graph, one whose state is zero."""
        if isinstance(self._step, Captured):
            for state in self._optimizer.state.values():
                torch._foreach_zero_(list(state.values()))
        else:
            self._optimizer = self._make_optimizer()

    def _plain_step(self, *batch: Tensor) -> None:
        self._optimizer.zero_grad()
        with self._arithmetic() as forward:
            with forward:
                error = self._error(self._leaves, *batch) if self._fuse == 1 else self._errors(*batch)
            error.backward()
        self._optimizer.step()

    def _errors(self, *batch: Tensor) -> Tensor:
        return torch.func.vmap(self._error)(self._leaves, *batch).sum()

    def _error(self, leaves: dict[str, Tensor], *batch: Tensor) -> Tensor:
        *inputs, target = batch
        output = self._network(*inputs) if self._fuse == 1 else functional_call(self._network, leaves, tuple(inputs))
        return F.mse_loss(output.to(target.dtype), target)


def _use_group_norm(network: nn.Module) -> None:
    """Replace instance norms by group norms with a channel a group, which is the same and faster under vmap."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, nn.GroupNorm(child.num_features, child.num_features, affine=False))


def _stacked(tensor: Tensor, rows: int) -> Tensor:
    """The same parameter for several clients, (K, ...)."""
    return tensor.detach().repeat(rows, *[1] * tensor.dim()).requires_grad_()


def _block_of(clients: Sequence[Samples], batch: int) -> list[Samples]:
    """The batches of one client, or of several as (K, batch, ...)."""
    parts = clients[0] if len(clients) == 1 else [torch.stack(part) for part in zip(*clients, strict=True)]
    dim = int(len(clients) > 1)
    return [tuple(part.narrow(dim, at, batch) for part in parts) for at in range(0, parts[0].shape[dim], batch)]


class Captured:
    """A function of tensors as a CUDA graph: captured once, replayed at every call."""

    def __init__(self, function: Callable[..., None], inputs: Samples) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> None:
        """Replay it."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
