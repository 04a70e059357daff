"""Private state on a GPU up to a budget; beyond it in pinned memory of the node, and beyond that in a file.

What leaves the GPU goes in one copy per client, on a stream of its own, while other clients train; so does what comes
back, as soon as it is known to be needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedsim.algorithms.training import State, onto
from fedsim.engine.state.store import Layout, StateStore, layout_of, state_bytes

_PACKED = "packed"


class DeviceStates:
    """Private states by client, used on a GPU; as `StateStore`, which keeps what has no room there."""

    def __init__(self, below: StateStore, fresh: Callable[[], State], device: torch.device, budget: float) -> None:
        """An empty store.

        Args:
            below: Keeps what is not on the GPU, each state as one tensor.
            fresh: Makes the state of a client that has none yet.
            device: The GPU.
            budget: Bytes to hold there.
        """
        self._below, self._fresh, self._device, self._budget = below, fresh, device, budget
        self._fresh_layout = layout_of(fresh())
        self._here: dict[str, State] = {}
        self._layouts: dict[str, Layout] = {}  # of those that are not here
        self._used = 0.0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._leaving: dict[str, tuple[State, torch.cuda.Event]] = {}
        self._coming: dict[str, tuple[State, torch.cuda.Event]] = {}

    def take(self, client: str) -> State:
        """A client's state on the GPU, to be changed in place and given back with `put`."""
        if client in self._here:
            return self._here[client]
        if client not in self._layouts:
            return self._fresh()
        state, arrived = self._coming.pop(client) if client in self._coming else self._called(client)
        present = torch.cuda.current_stream(self._device)
        present.wait_event(arrived)
        for tensor in state.values():
            if tensor.is_cuda:
                tensor.record_stream(present)
        return state

    def in_memory(self, client: str) -> bool:
        """Whether what `take` returns is the client's alone."""
        return True

    def layout(self, client: str) -> Layout:
        """What a client's state is made of."""
        if client in self._here:
            return layout_of(self._here[client])
        return self._layouts.get(client, self._fresh_layout)

    def put(self, client: str, state: State) -> None:
        """Keep a client's state.

        Raises:
            RunError: the scratch folder cannot hold it.
        """
        self._settle(client)
        self._coming.pop(client, None)
        self._used -= state_bytes(self._here.pop(client, {}))
        if self._used + state_bytes(state) <= self._budget:
            self._here[client] = {key: onto(value, self._device) for key, value in state.items()}
            self._used += state_bytes(state)
            self._below.forget(client)
            self._layouts.pop(client, None)
        else:
            self._layouts[client] = layout_of(state)
            self._leaving[client] = self._sent_away(state)

    def expect(self, client: str) -> None:
        """Begin to bring what `take` will soon ask for."""
        if client in self._layouts and client not in self._coming:
            self._coming[client] = self._called(client)

    def forget(self, client: str) -> None:
        """Drop a client's state."""
        self._settle(client)
        self._used -= state_bytes(self._here.pop(client, {}))
        self._layouts.pop(client, None)
        self._coming.pop(client, None)
        self._below.forget(client)

    def _sent_away(self, state: State) -> tuple[State, torch.cuda.Event]:
        """Start the copy of a state to pinned memory."""
        moving = [value for value in state.values() if _moves(value)]
        flat = torch.cat([onto(value, self._device).reshape(-1) for value in moving])
        kept = {key: value.cpu() for key, value in state.items() if not _moves(value)}
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            pinned = torch.empty(flat.shape, pin_memory=True)
            pinned.copy_(flat, non_blocking=True)
            flat.record_stream(self._stream)
            return {_PACKED: pinned, **kept}, self._stream.record_event()

    def _called(self, client: str) -> tuple[State, torch.cuda.Event]:
        """Start the copy of a state from pinned memory."""
        self._settle(client)
        packed = dict(self._below.take(client))
        with torch.cuda.stream(self._stream):
            flat = packed.pop(_PACKED).to(self._device, non_blocking=True)
            arrived = self._stream.record_event()
        layout = self._layouts[client]
        moving = [(key, shape) for key, kind, shape in layout if kind == torch.float32 and len(shape)]
        cut = torch.split(flat, [shape.numel() for _, shape in moving])
        found = {key: part.view(shape) for (key, shape), part in zip(moving, cut, strict=True)}
        kept = {key: onto(value.clone(), self._device) for key, value in packed.items()}
        return {key: found[key] if key in found else kept[key] for key, _, _ in layout}, arrived

    def _settle(self, needed: str) -> None:
        """Hand what has left the GPU to the store below: what is there already, and one client's in any case."""
        for client, (state, gone) in list(self._leaving.items()):
            if client == needed:
                gone.synchronize()
            if gone.query():  # type: ignore[no-untyped-call]
                self._below.put(client, state)
                del self._leaving[client]


def _moves(value: Tensor) -> bool:
    """Whether a tensor is part of what is packed; counters and the like stay on the CPU."""
    return value.dtype == torch.float32 and value.dim() > 0
