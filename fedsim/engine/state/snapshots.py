"""The state of a whole run at a round, server and clients: saved to a checkpoint and restored from one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.algorithms.learner import Learner
from fedsim.engine.backend import Backend
from fedsim.engine.federation import Federation
from fedsim.engine.host.messages import Faults, Layouts, Load, Message, Reset, Save, Setup
from fedsim.engine.server import Server
from fedsim.engine.state import checkpoint
from fedsim.engine.state import client_files as clientfiles


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
        self._clients, self._names = federation.clients, federation.names
        self._server, self._backend = server, backend

    def reached(self) -> int:
        """The last round with a checkpoint; 0 before the first."""
        return max(checkpoint.complete_rounds(self._run), default=0)

    def put(self, round_: int) -> tuple[int | None, float | None]:
        """Restore hosts and server to the state after a round, where 0 is the start; lost hosts are started again.

        Returns:
            The best round so far and its PSNR [dB]; None where there is none.

        Raises:
            DamagedError: the round's checkpoint is not what was written.
            WorkerLostError: a process was lost meanwhile.
        """
        self._backend.start(self._setup, self._clients)
        if not round_:
            self._server.state = self._learner.fresh_server()
            self._tell(Reset(clients=self._names))
            return None, None
        state = checkpoint.read_state(self._run, round_)
        self._server.state = checkpoint.read_server(self._run, state, self._learner.flat("shared"))
        self._tell(Load(clients=self._names, parts=checkpoint.parts(self._run, state, self._names)))
        return state["best_round"], state["best_psnr"]

    def layouts(self) -> dict[str, clientfiles.Layout]:
        """Present layout of each client's state, in the federation's order.

        Raises:
            WorkerLostError: a process was lost.
        """
        replies = self._backend.call(Layouts(clients=self._names))
        alike = [item for reply in replies for item in reply.layouts.items()]
        found = {name: layout for layout, members in alike for name in members}
        return {name: found[name] for name in self._names}

    def write(self, state: dict[str, Any], layouts: Mapping[str, clientfiles.Layout], faults: Faults) -> None:
        """Write the checkpoint of the round that the hosts and the server have finished.

        Args:
            state: Content of state.json; `round` is its number.
            layouts: Present layouts of the clients' states.
            faults: Injected faults by client.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
            WorkerLostError: a process was lost.
        """
        files = clientfiles.client_files(self._names)

        def save(folder: Path) -> clientfiles.Digests:
            order = Save(clients=self._names, folder=folder.absolute(), files=files, faults=faults)
            return {name: digest for reply in self._backend.call(order) for name, digest in reply.digests.items()}

        checkpoint.write(self._run, state, self._server.state, self._learner.flat("shared"), layouts, save)

    def _tell(self, message: Message) -> None:
        """Send a message that has no answer."""
        for _ in self._backend.call(message):
            pass
