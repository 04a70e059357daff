"""What the server sent, as clients see it: to be read, not to be changed."""

import zlib
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Vector
from fedsim.core.errors import MethodError
from fedsim.core.own import is_own
from fedsim.engine.host.uploads import as_tensors


class ReadOnly:
    """Received tensors, and whether they are still what was received.

    They lie in memory that other clients read too. torch counts what changes a tensor; the content is compared as well
    for a user's own method, which gets a copy: whatever it does, others and the server are not touched.
    """

    def __init__(self, broadcast: Mapping[str, Vector], device: torch.device, algorithm: Algorithm) -> None:
        own = is_own(algorithm.name)
        moved = {name: tensor.to(device, copy=own) for name, tensor in as_tensors(broadcast).items()}
        self.tensors: Mapping[str, Tensor] = MappingProxyType(moved)
        self._versions = {name: tensor._version for name, tensor in moved.items()}
        self._digests = {name: _digest(tensor) for name, tensor in moved.items()} if own else {}
        self._who = algorithm.name

    def check(self, where: str, thorough: bool = False) -> None:
        """Look whether anything was changed.

        Args:
            where: Client and round.
            thorough: Compare the content too, if this is a user's own method.

        Raises:
            MethodError: a tensor was changed in place.
        """
        for name, tensor in self.tensors.items():
            touched = tensor._version != self._versions[name]
            if touched or (thorough and self._digests and _digest(tensor) != self._digests[name]):
                what = f"{self._who} changed what it received, {name!r}, in place; let it work on a clone()"
                raise MethodError(f"{where}: {what}")


def _digest(tensor: Tensor) -> int:
    return zlib.crc32(tensor.cpu().numpy().data)
