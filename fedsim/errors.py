"""Errors with a meaning for whoever runs fedsim; their text is one line and says what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches


def hint(name: str, known: Iterable[str], among: str = "known") -> str:
    """What to say of a name that is none of the known ones: the nearest, or all of them."""
    listed = list(known)
    near = get_close_matches(name, listed, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{among}: {', '.join(listed)}"


class InputError(Exception):
    """The workload, the data or the arguments are wrong: exit status 2."""


class DamagedError(InputError):
    """A file that fedsim wrote is not what it was: truncated, changed or gone."""


class RunError(Exception):
    """The run failed though its input was right: exit status 1."""


class WriteError(RunError):
    """A file cannot be written: the disk is full, or may not be written to."""


class ClientError(RunError):
    """A client failed in its own training, and would only do so again."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message, trace)

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """One line with client, round and seed."""
        return str(self.args[0])

    @property
    def trace(self) -> str:
        """The traceback in the client's process; empty where it would tell nothing."""
        return str(self.args[1])


class DivergedError(ClientError):
    """A client's training left the finite numbers: a setting is wrong for its data, often the learning rate."""
