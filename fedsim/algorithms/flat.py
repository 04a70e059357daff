"""Tensors of a network as views of one flat vector, and their gradients as views of another.

Receiving, uploading, regularising and swapping clients are then single vector operations.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatTensors:
    """Names and shapes of some tensors of a network, and the vector (P,) they are laid out in."""

    def __init__(self, named: list[tuple[str, Tensor]], channels_last: bool = False) -> None:
        self._channels_last = channels_last
        self.layout = [(name, tensor.shape) for name, tensor in named]
        self.vector = self.flatten({name: tensor.detach() for name, tensor in named})

    def views(self, vector: Tensor) -> list[Tensor]:
        """`vector` (..., P) cut into tensors (..., *shape) of the parameters' shapes, without copying."""
        rows, sizes = vector.shape[:-1], [shape.numel() for _, shape in self.layout]
        cut = zip(torch.split(vector, sizes, dim=-1), self.layout, strict=True)
        return [
            self._permuted(part.view(*rows, *self._stored(shape)), len(shape), (-4, -1, -3, -2))
            for part, (_, shape) in cut
        ]

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` (..., P) under the parameters' names."""
        return dict(zip((name for name, _ in self.layout), self.views(vector), strict=True))

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """The vector (P,) of tensors by name."""
        parts = [self._permuted(tensors[name], len(shape), (-4, -2, -1, -3)).reshape(-1) for name, shape in self.layout]
        return torch.cat(parts) if parts else torch.zeros(0)

    def _stored(self, shape: torch.Size) -> torch.Size:
        """The shape in which a parameter of a shape lies in the vector."""
        last = self._channels_last and len(shape) == 4
        return torch.Size([shape[0], shape[2], shape[3], shape[1]]) if last else shape

    def _permuted(self, tensor: Tensor, dimensions: int, order: tuple[int, ...]) -> Tensor:
        """A tensor (..., *shape) with the last four dimensions in another order, if a shape has four."""
        if not self._channels_last or dimensions != 4:
            return tensor
        rows = range(tensor.dim() - 4)
        return tensor.permute(*rows, *(tensor.dim() + at for at in order))


class FlatParameters(FlatTensors):
    """Some of a network's parameters as views of one vector (P,), their gradients as views of another."""

    vector: nn.Parameter

    def __init__(self, named: list[tuple[str, nn.Parameter]], channels_last: bool = False) -> None:
        super().__init__([(name, parameter) for name, parameter in named], channels_last)
        self.vector = nn.Parameter(self.vector)
        self.gradient = torch.zeros_like(self.vector)
        self._parameters = [parameter for _, parameter in named]
        self._point()

    def _point(self) -> None:
        views = zip(self._parameters, self.views(self.vector.data), self.views(self.gradient), strict=True)
        for parameter, value, grad in views:
            parameter.data, parameter.grad = value, grad

    def move_to(self, vector: Tensor, gradient: Tensor) -> None:
        """Let the parameters live in other memory: `vector` (P,), and their gradients in `gradient` (P,)."""
        self.vector.data, self.gradient = vector.copy_(self.vector.data), gradient
        self._point()

    def prepare(self, trained: bool) -> None:
        """Parameters that are not trained collect no gradient, and the optimizer skips them."""
        self.vector.grad = self.gradient if trained else None
        for parameter in self._parameters:
            parameter.requires_grad = trained


def clip(groups: Iterable[FlatParameters], limit: float | None) -> None:
    """Scale the gradients of all groups that are trained down to a norm, if theirs is larger; None: no limit."""
    if limit is not None:
        nn.utils.clip_grad_norm_([flat.vector for flat in groups], limit)


class FlatBuffers(FlatTensors):
    """Some of a network's running statistics as views of one vector (B,)."""

    def __init__(self, network: nn.Module, named: list[tuple[str, Tensor]]) -> None:
        super().__init__(named)
        self._network = network
        self.move_to(self.vector)

    def move_to(self, vector: Tensor) -> None:
        """Let the running statistics live in other memory: `vector` (B,)."""
        self.vector = vector.copy_(self.vector)
        for (name, _), view in zip(self.layout, self.views(self.vector), strict=True):
            module, _, leaf = name.rpartition(".")
            setattr(self._network.get_submodule(module), leaf, view.data)  # .data: autograd sees each on its own
