"""The server of a federation: its method's state, its broadcasts, and its updates."""

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Algorithm, Received, ServerState, Upload, Vector
from fedsim.engine.host.uploads import uploads_of


class Server:
    """The one place where a method's server steps: in a run, in a calibration, and in a plan derived from sizes."""

    def __init__(self, algorithm: Algorithm, state: ServerState) -> None:
        """A server at the start of a round.

        Args:
            algorithm: The method, settled.
            state: `shared` (P,), `buffers` (B,) if shared layers keep running statistics, and the method's own arrays.
        """
        self.state = state
        """The state after the last phase; set when a run is restored."""
        self.others: dict[str, ServerState] = {}
        """What a run needs beside it: earlier states by version, or those of regions; set when a run is restored."""
        self._algorithm = algorithm

    def uploads(self, phase: str, where: str = "") -> list[Upload]:
        """What each client of a phase sends.

        Args:
            phase: The method's name for it.
            where: The round, for messages.

        Raises:
            MethodError: the method raises, or gives no uploads.
        """
        return uploads_of(self._algorithm, phase, self.state, where)

    def broadcast(self, phase: str, where: str = "", state: ServerState | None = None) -> dict[str, Vector]:
        """What each client of a phase may read: the method's vectors, and the running statistics.

        Args:
            phase: The method's name for it.
            where: The round, for messages.
            state: That is read; default the present one.

        Raises:
            MethodError: the method raises, or gives no finite vectors.
        """
        state = self.state if state is None else state
        return {**hooks.broadcast(self._algorithm, state, phase, where), **_buffers(state)}

    def take_up(self, received: Received, where: str = "") -> None:
        """Let the method update the state at the end of a phase; if no client answered, the state stays.

        Args:
            received: Sums and collected vectors of the phase.
            where: The round, for messages.

        Raises:
            MethodError: the method raises, or gives no state.
        """
        if received.phase.clients:
            updated = hooks.update(self._algorithm, self.state, received, where)
            sent = {"buffers": received.mean("buffers")} if "buffers" in received.sums else _buffers(self.state)
            self.state = {**updated, **sent}

    def deployed(self) -> dict[str, Vector]:
        """What a client needs to reconstruct: the shared parameters (P,), and the running statistics (B,)."""
        return {"shared": self.state["shared"], **_buffers(self.state)}


def _buffers(state: ServerState) -> dict[str, Vector]:
    """Running statistics of shared layers; none in most networks."""
    return {"buffers": state["buffers"]} if "buffers" in state else {}
