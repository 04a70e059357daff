"""Where a host keeps its clients' private state: in memory up to a budget, and beyond it in a file.

The file has no name (it is unlinked as soon as it is open), so nothing of it is left however the process ends. It is
read and written without copies in between, in whole states: no pickle, no format, nothing that another process reads.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.algorithms.training import State
from fedsim.core.errors import RunError

Layout = tuple[tuple[str, torch.dtype, torch.Size], ...]
"""Names, types and shapes of a state's tensors, in the order in which they lie in the file."""


class StateStore:
    """Private states by client; a state that was moved to the file stays there.

    Clients come round in the same order again and again, so there is no better choice of what to keep in memory than
    whichever states came first.
    """

    def __init__(self, fresh: Callable[[], State], budget: float, scratch: Path | None = None) -> None:
        """An empty store.

        Args:
            fresh: Creates the state of a client that has none yet.
            budget: Memory for states [bytes].
            scratch: Folder of the file; default the system's temporary folder.
        """
        self._fresh, self._budget = fresh, budget
        self._fresh_layout = layout_of(fresh())
        self._memory: dict[str, State] = {}
        self._used = 0
        self._file = SpillFile(scratch)

    def take(self, client: str) -> State:
        """A client's state, to be modified in place and returned with `put`; valid until the next call of `take`."""
        if client in self._memory:
            return self._memory[client]
        return self._file.read(client) if client in self._file else self._fresh()

    def in_memory(self, client: str) -> bool:
        """Whether what `take` returns is the client's alone, and stays valid when others are taken."""
        return client not in self._file

    def layout(self, client: str) -> Layout:
        """Layout of a client's state, without reading it."""
        if client in self._file:
            return self._file.layout(client)
        return layout_of(self._memory[client]) if client in self._memory else self._fresh_layout

    def put(self, client: str, state: State) -> None:
        """Keep a client's state.

        Raises:
            RunError: the scratch folder cannot hold it.
        """
        self._used -= state_bytes(self._memory.pop(client, {}))
        size = state_bytes(state)
        if client in self._file or self._used + size > self._budget:
            self._file.write(client, state)
        else:
            self._memory[client] = state
            self._used += size

    def expect(self, client: str) -> None:
        """Have the system read ahead what `take` will soon need."""
        self._file.expect(client)

    def forget(self, client: str) -> None:
        """Drop a client's state."""
        self._used -= state_bytes(self._memory.pop(client, {}))
        self._file.forget(client)


def layout_of(state: State) -> Layout:
    """Names, types and shapes of a state's tensors."""
    return tuple((key, tensor.dtype, tensor.shape) for key, tensor in state.items())


def state_bytes(state: State) -> int:
    """Size of a state [bytes]."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


@dataclass(frozen=True)
class _Slot:
    offset: int
    """Where it begins in the file [bytes]."""
    capacity: int
    """Its size [bytes]."""
    layout: Layout


class SpillFile:
    """States in an unnamed file, each in its own slot."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: IO[bytes] | None = None
        self._slots: dict[str, _Slot] = {}
        self._free: dict[int, list[int]] = {}  # offsets by capacity
        self._end = 0
        self._buffers: dict[Layout, State] = {}

    def __del__(self) -> None:
        if self._open is not None:
            self._open.close()

    def __contains__(self, client: str) -> bool:
        return client in self._slots

    def write(self, client: str, state: State) -> None:
        """Write a client's state over its previous one.

        Raises:
            RunError: the disk is full, or the folder cannot be written.
        """
        arrays = {key: tensor.detach().contiguous().numpy() for key, tensor in state.items()}
        size = sum(array.nbytes for array in arrays.values())
        slot = self._slots.get(client)
        if slot is None or slot.capacity < size:
            self.forget(client)
            slot = _Slot(self._offset(size), size, ())
        try:
            every_byte(os.pwritev, self._descriptor(), arrays.values(), slot.offset)
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise RunError(
                f"{where}: cannot hold the private state of client {client} ({error.strerror}); "
                "set engine.scratch to a folder with more space, or raise engine.state_memory"
            ) from error
        self._slots[client] = _Slot(slot.offset, slot.capacity, layout_of(state))

    def layout(self, client: str) -> Layout:
        """Layout of a client's state."""
        return self._slots[client].layout

    def read(self, client: str) -> State:
        """A client's state, in buffers that the next read of a state of the same layout reuses."""
        slot = self._slots[client]
        if slot.layout not in self._buffers:
            self._buffers[slot.layout] = {key: torch.empty(shape, dtype=kind) for key, kind, shape in slot.layout}
        state = self._buffers[slot.layout]
        every_byte(os.preadv, self._descriptor(), (tensor.numpy() for tensor in state.values()), slot.offset)
        return dict(state)

    def expect(self, client: str) -> None:
        """Have the system read ahead, where it can."""
        slot = self._slots.get(client)
        if slot is not None and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor(), slot.offset, slot.capacity, os.POSIX_FADV_WILLNEED)

    def forget(self, client: str) -> None:
        """Release a client's slot."""
        slot = self._slots.pop(client, None)
        if slot is not None:
            self._free.setdefault(slot.capacity, []).append(slot.offset)

    def _offset(self, size: int) -> int:
        if self._free.get(size):
            return self._free[size].pop()
        self._end += size
        return self._end - size

    def _descriptor(self) -> int:
        if self._open is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._open = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - open as long as self
        return self._open.fileno()


def every_byte(
    call: Callable[[int, list[Any], int], int], file: int, arrays: Iterable[NDArray[np.generic]], at: int
) -> None:
    """Read or write arrays one after the other, all of them; a single system call may do less than requested."""
    waiting = [array.reshape(-1).view(np.uint8) for array in arrays if array.nbytes]
    while waiting:
        done = call(file, waiting, at)
        if not done:
            raise OSError(0, "unexpected end of file")
        at += done
        while waiting and done >= waiting[0].nbytes:
            done -= waiting.pop(0).nbytes
        if done:
            waiting[0] = waiting[0][done:]
