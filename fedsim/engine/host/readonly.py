"""What the server sent, as clients see it: read-only."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.core.errors import MethodError
from fedsim.engine.host.uploads import as_tensors


class ReadOnly:
    """Received tensors, with a check that they are unchanged.

    They lie in memory that other clients read too. torch counts what changes a tensor; the content is compared as well
    for a user's own method, which gets a copy: whatever it does, others and the server are not touched.
    """

    def __init__(self, broadcast: Mapping[str, Vector], device: torch.device, algorithm: Algorithm) -> None:
        own = algorithm.foreign
        moved = {
            name: tensor.to(device if tensor.dim() else "cpu", copy=own)  # numbers stay where they are read
            for name, tensor in as_tensors(broadcast).items()
        }
        self.tensors: Mapping[str, Tensor] = MappingProxyType(moved)
        self.vectors = broadcast
        """As the server sent them."""
        self._versions = {name: tensor._version for name, tensor in moved.items()}
        self._own, self._who = own, algorithm.name

    def check(self, where: str, thorough: bool = False) -> None:
        """Check that nothing was changed.

        Args:
            where: Client and round.
            thorough: Compare the content too, if this is a user's own method.

        Raises:
            MethodError: a tensor was changed in place.
        """
        for name, tensor in self.tensors.items():
            touched = tensor._version != self._versions[name]
            if touched or (thorough and self._own and not _same(tensor, self.vectors[name])):
                what = f"{self._who} changed what it received, {name!r}, in place; let it work on a clone()"
                raise MethodError(f"{where}: {what}")


def _same(tensor: Tensor, original: Vector) -> bool:
    """Whether all bits are those of the original; NaN equals NaN, and -0 is not 0."""
    return np.array_equal(tensor.cpu().numpy().view(np.int32), original.view(np.int32))
