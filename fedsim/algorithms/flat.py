"""Tensors of a network as views of one flat vector, and their gradients as views of another.

Receiving, uploading, regularising and swapping clients are then single vector operations.
"""

import torch
from torch import Tensor, nn


class FlatTensors:
    """Names and shapes of some tensors of a network, and the vector (P,) they are laid out in."""

    def __init__(self, named: list[tuple[str, Tensor]], channels_last: bool = False) -> None:
        self._channels_last = channels_last
        self.layout = [(name, tensor.shape) for name, tensor in named]
        self.vector = self.flatten({name: tensor.detach() for name, tensor in named})

    def views(self, vector: Tensor) -> list[Tensor]:
        """`vector` (P,) cut into tensors of the parameters' shapes, without copying."""
        sizes = [shape.numel() for _, shape in self.layout]
        cut = zip(torch.split(vector, sizes), self.layout, strict=True)
        return [self._permuted(part.view(self._stored(shape)), (0, 3, 1, 2)) for part, (_, shape) in cut]

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` (P,) under the parameters' names."""
        return dict(zip((name for name, _ in self.layout), self.views(vector), strict=True))

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """The vector (P,) of tensors by name."""
        parts = [self._permuted(tensors[name], (0, 2, 3, 1)).reshape(-1) for name, _ in self.layout]
        return torch.cat(parts) if parts else torch.zeros(0)

    def _stored(self, shape: torch.Size) -> torch.Size:
        """The shape in which a parameter of a shape lies in the vector."""
        last = self._channels_last and len(shape) == 4
        return torch.Size([shape[0], shape[2], shape[3], shape[1]]) if last else shape

    def _permuted(self, tensor: Tensor, order: tuple[int, ...]) -> Tensor:
        return tensor.permute(order) if self._channels_last and tensor.dim() == 4 else tensor


class FlatParameters(FlatTensors):
    """Some of a network's parameters as views of one vector (P,), their gradients as views of another."""

    vector: nn.Parameter

    def __init__(self, named: list[tuple[str, nn.Parameter]], channels_last: bool = False) -> None:
        super().__init__([(name, parameter) for name, parameter in named], channels_last)
        self.vector = nn.Parameter(self.vector)
        self.gradient = torch.zeros_like(self.vector)
        self._parameters = [parameter for _, parameter in named]
        views = zip(self._parameters, self.views(self.vector.data), self.views(self.gradient), strict=True)
        for parameter, value, grad in views:
            parameter.data, parameter.grad = value, grad

    def prepare(self, trained: bool) -> None:
        """Clear the gradient; parameters that are not trained collect none, and the optimizer skips them."""
        self.gradient.zero_()
        self.vector.grad = self.gradient if trained else None
        for parameter in self._parameters:
            parameter.requires_grad = trained


class FlatBuffers(FlatTensors):
    """Some of a network's running statistics as views of one vector (B,)."""

    def __init__(self, network: nn.Module, named: list[tuple[str, Tensor]]) -> None:
        super().__init__(named)
        for (name, _), view in zip(named, self.views(self.vector), strict=True):
            module, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(module), leaf, view.data)  # .data: autograd sees each on its own
