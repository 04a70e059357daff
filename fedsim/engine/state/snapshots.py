"""The state of a whole run at a round, server and clients: saved to a checkpoint and restored from one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import InputError
from fedsim.engine.backend import Backend
from fedsim.engine.federation import Federation
from fedsim.engine.host.messages import Faults, Layouts, Load, Message, Reset, Save, Setup
from fedsim.engine.server import Server
from fedsim.engine.state import checkpoint
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state.checkpoint import Kept, ToWrite
from fedsim.engine.state.segments import next_files, share_files, without


class Snapshots:
    """Moves the state of the server and of all clients between the hosts and the checkpoints of a run."""

    def __init__(
        self,
        run: Path,
        setup: Setup,
        learner: Learner,
        federation: Federation,
        server: Server,
        backend: Backend,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            run: Run directory.
            setup: What hosts are created with.
            learner: The clients' working network, as initialised.
            federation: The clients.
            server: Its state is saved and restored.
            backend: The hosts.
        """
        self._run, self._setup, self._learner = run, setup, learner
        self._federation, self._names = federation, federation.names
        self._server, self._backend = server, backend
        self._base = Kept(round=0, segments={})
        self._changed: dict[str, None] = {}  # clients that have trained since then

    def reached(self) -> int:
        """The last round with a checkpoint; 0 before the first."""
        return max(checkpoint.complete_rounds(self._run), default=0)

    def check_before(self, round_: int) -> None:
        """Refuse a round that cannot be repeated, since there is no checkpoint before it.

        Raises:
            InputError: naming the rounds that have one.
        """
        known = [0, *checkpoint.complete_rounds(self._run)]
        if round_ - 1 not in known:
            possible = ", ".join(str(before + 1) for before in known)
            raise InputError(f"--round {round_}: needs the checkpoint before it; rounds that have one: {possible}")

    def put(self, round_: int) -> tuple[int | None, float | None]:
        """Restore hosts and server to the state after a round, where 0 is the start; lost hosts are started again.

        Returns:
            The best round so far and its PSNR [dB]; None where there is none.

        Raises:
            DamagedError: the round's checkpoint is not what was written.
            WorkerLostError: a process was lost meanwhile.
        """
        self._backend.start(self._setup, self._federation.clients)
        if not round_:
            self._server.state, self._server.others = self._learner.fresh_server(), {}
            self._tell(Reset(clients=tuple(self._backend.clients())))
            self._base = Kept(round=0, segments={})
            self._changed = {} if share_files(len(self._names)) else dict.fromkeys(self._names)
            return None, None
        state = checkpoint.read_state(self._run, round_)
        self._server.state = checkpoint.read_server(self._run, state, self._learner.flat("shared"))
        self._server.others = checkpoint.read_others(self._run, state)
        self._base, self._changed = Kept(round=round_, segments=checkpoint.segments_of(state)), {}
        stored = dict.fromkeys(name for segment in self._base.segments.values() for name in segment.clients)
        self._tell(Reset(clients=tuple(name for name in self._backend.clients() if name not in stored)))
        self._tell(Load(clients=tuple(stored), parts=checkpoint.parts(self._run, round_, self._base.segments)))
        return state["best_round"], state["best_psnr"]

    def clients(self) -> list[str]:
        """All clients in order; if they are made by a rule, those that the next checkpoint has the state of."""
        if not self._federation.by_rule:
            return list(self._names)
        stored = dict.fromkeys(name for segment in self._base.segments.values() for name in segment.clients)
        return sorted(stored | self._changed, key=self._federation.clients.place)

    def trained(self, clients: Iterable[str]) -> None:
        """Note whose private state a round has changed."""
        self._changed.update(dict.fromkeys(clients))

    def layouts(self, round_: int) -> dict[str, clientfiles.Layout]:
        """Present layout of each client's state that the round's checkpoint will write.

        Raises:
            WorkerLostError: a process was lost.
        """
        names = tuple(self._files(round_))
        replies = self._backend.call(Layouts(clients=names))
        alike = [item for reply in replies for item in reply.layouts.items()]
        found = {name: layout for layout, members in alike for name in members}
        return {name: found[name] for name in names}

    def _files(self, round_: int) -> dict[str, str]:
        return next_files(round_, self._changed, self._base.segments, len(self._names))

    def write(self, state: dict[str, Any], layouts: Mapping[str, clientfiles.Layout], faults: Faults) -> None:
        """Write the checkpoint of the round that the hosts and the server have finished.

        Args:
            state: Content of state.json; `round` is its number.
            layouts: What `layouts` has returned for the round.
            faults: Injected faults by client.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
            WorkerLostError: a process was lost.
        """
        files = self._files(state["round"])

        def save(folder: Path) -> clientfiles.Digests:
            order = Save(clients=tuple(files), folder=folder.absolute(), files=files, faults=faults)
            return {name: digest for reply in self._backend.call(order) for name, digest in reply.digests.items()}

        kept = Kept(round=self._base.round, segments=without(self._base.segments, files))
        clients = ToWrite(layouts=layouts, files=files, save=save)
        layout, server = self._learner.flat("shared"), self._server
        segments = checkpoint.write(self._run, state, server.state, layout, clients, kept, server.others)
        self._base, self._changed = Kept(round=state["round"], segments=segments), {}

    def _tell(self, message: Message) -> None:
        """Send a message that has no answer."""
        for _ in self._backend.call(message):
            pass
