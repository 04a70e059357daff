"""The clients of a host: where each one's private state is, and how it is loaded, saved and moved."""

import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedsim.algorithms import hooks
from fedsim.algorithms.learner import Learner
from fedsim.algorithms.training import State
from fedsim.core.errors import ClientError, InputError, OwnCodeError, RunError
from fedsim.core.files import writing
from fedsim.data.samples import SliceMemory
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.kernels import remedy
from fedsim.engine.host.messages import Layouts, Limits, Load, Lot, Reply, Reset, Save, Setup
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state.device import DeviceStates
from fedsim.engine.state.store import StateStore

Handed = tuple[list[ClientSpec], list[clientfiles.FilePart]]
"""Clients on their way to another host of the node, and the files that hold their private state."""


class Residents:
    """Some clients, their private state, and the one working network that they take turns with."""

    def __init__(
        self,
        setup: Setup,
        clients: tuple[ClientSpec, ...],
        limits: Limits,
        learner: Learner,
        slices: SliceMemory,
    ) -> None:
        """Clients that have not trained yet.

        Args:
            setup: What every host is made with.
            clients: Those that live here at first.
            limits: What they may use of the node, and of its GPU.
            learner: The working network, as initialised.
            slices: Their training slices in memory.
        """
        self._setup, self._limits = setup, limits
        self._learner, self._slices = learner, slices
        self._clients = {client.name: client for client in clients}
        self._states: StateStore | DeviceStates
        below = StateStore(learner.fresh_state, limits.state_bytes, limits.scratch)
        self._states = below
        if learner.device.type == "cuda":
            self._states = DeviceStates(below, learner.fresh_state, learner.device, limits.device_bytes or 0.0)

    def clients(self) -> tuple[str, ...]:
        """Names of the clients that live here."""
        return tuple(self._clients)

    def admit(self, clients: Sequence[ClientSpec]) -> None:
        """Add clients that have not trained yet."""
        self._clients.update({client.name: client for client in clients})

    @contextmanager
    def _at_work(
        self, name: str, lot: Lot, received: ReadOnly, learner: Learner, training: bool = False
    ) -> Iterator[None]:
        """A working network with a client's private state swapped in; an error says whose it was.

        Only training puts the state back into the store; evaluation changes nothing. Training changes a state in
        place; on a copy, if the run may continue without this turn.
        """
        client, state = self._clients[name], self._states.take(name)
        if training and (self._setup.tolerant or (self._setup.fuse > 1 and not self._states.in_memory(name))):
            state = {key: value.clone() for key, value in state.items()}
        at = f"client {name}, round {lot.round}, seed {self._setup.seed}"
        try:
            learner.enter(state, client.data, client.training, lot.round, name, lot.staleness)
            if "buffers" in received.tensors:
                learner.shared_buffers.copy_(received.tensors["buffers"])
            yield
            together = training and self._setup.fuse > 1  # any of those may have changed what all of them read
            received.check(f"round {lot.round}" if together else f"client {name}, round {lot.round}")
        except OwnCodeError as error:
            raise ClientError(f"{at}: {remedy(error) or error}", error.trace) from error
        except (RunError, InputError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            hook = "train" if training and self._setup.algorithm.foreign else ""
            said = remedy(error)
            what = f"{at}: {said}" if said else hooks.explained(self._setup.algorithm, error, at, hook)
            raise ClientError(what, traceback.format_exc()) from error

    # To and from checkpoints

    def _laid_out(self, order: Layouts) -> Iterator[Reply]:
        """Clients grouped by the layout of their states."""
        alike: dict[clientfiles.Layout, list[str]] = {}
        for name in order.clients:
            alike.setdefault(self._layout(name), []).append(name)
        yield Reply(layouts=alike)

    def _save(self, order: Save) -> Iterator[Reply]:
        """Yield one reply per file.

        Raises:
            WriteError: a file cannot be written.
        """
        for file, names in clientfiles.files_of(order.clients, order.files).items():
            yield Reply(digests=self._written(order, order.folder / file, names))

    def _written(self, order: Save, file: Path, names: Sequence[str]) -> clientfiles.Digests:
        """Write some clients into a file of the order; the digest of each."""
        states = ((name, self._copy(name)) for name in names)
        return clientfiles.fill(file, states, self._learner.flat("local"))

    def _load(self, order: Load) -> Iterator[Reply]:
        """Take up clients' private state.

        Raises:
            DamagedError: a file is not what was written.
        """
        for part in order.parts:
            self._take_up(part)
        yield Reply()

    def _reset(self, order: Reset) -> Iterator[Reply]:
        """Forget clients' private state."""
        for name in order.clients:
            self._states.forget(name)
        yield Reply()

    # To and from another host of the node

    def hand_over(self, names: Sequence[str]) -> Handed:
        """Hand over some clients: write their private state to a folder of this node, for their next host.

        Raises:
            WriteError: the folder cannot be written.
        """
        scratch = self._limits.scratch or Path(tempfile.gettempdir())
        with writing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="fedsim-", dir=scratch))
        parts = []
        for name in names:
            file = folder / clientfiles.own_file(name)
            with writing(file):
                header = clientfiles.allocate(file, {name: self._layout(name)})
            digests = clientfiles.fill(file, [(name, self._copy(name))], self._learner.flat("local"))
            parts.append(clientfiles.FilePart(file, header, digests))
            self._states.forget(name)
            self._slices.forget(self._clients[name].data)
        return [self._clients.pop(name) for name in names], parts

    def take_over(self, handed: Handed) -> None:
        """Take over clients from another host of this node."""
        clients, parts = handed
        self._clients.update({client.name: client for client in clients})
        for part in parts:
            self._take_up(part)
            part.file.unlink()
        parts[0].file.parent.rmdir()

    def _copy(self, name: str) -> State:
        """A client's private state, to be written to a file."""
        return {key: value.cpu() for key, value in self._states.take(name).items()}

    def _layout(self, name: str) -> clientfiles.Layout:
        """The layout of a client's private state."""
        return clientfiles.client_layout(self._states.layout(name), self._learner.flat("local"))

    def _take_up(self, part: clientfiles.FilePart) -> None:
        for name, state in clientfiles.read_clients(part, self._learner.flat("local")):
            self._states.put(name, state)
