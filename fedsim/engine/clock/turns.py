"""The turns of clients in simulated time, and the server's steps that they enter."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["trained", "late", "unavailable", "dropped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One client's turn; only if it has trained is its private state another afterwards."""

    client: str
    round: int
    """The server step that it enters, or would have entered; from 1."""
    version: int
    """Server steps that were done when it began: 0 to round - 1."""
    begin_s: float
    """Virtual seconds since the start of the run."""
    end_s: float
    """When it ended or gave up, likewise."""
    outcome: Outcome

    @property
    def in_vain(self) -> bool:
        """Whether the client received what the server sends, and sent nothing; who was absent when drawn did not."""
        return self.outcome != "trained" and (self.outcome != "unavailable" or self.begin_s < self.end_s)

    @property
    def staleness(self) -> int:
        """Server steps between the parameters it began with and the step that it enters."""
        return self.round - 1 - self.version


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of the server, a round of the ledger. At least one of its turns is trained."""

    round: int
    """From 1."""
    begin_s: float
    """End of the step before [virtual seconds]; 0 for the first."""
    end_s: float
    """Virtual seconds since the start of the run."""
    turns: tuple[Turn, ...]
    """At most one per client, in the order of their ends; equal ends in the order of the federation."""
    in_flight: frozenset[int] = frozenset()
    """The versions that clients had begun with who are at work when it ends."""
