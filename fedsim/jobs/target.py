"""What is sent to a cluster, and what a cluster can be asked: the two nouns that every kind of cluster shares."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from fedsim.engine.place.machine import NodeCapacity

State = Literal["unknown", "pending", "running", "succeeded", "failed", "stopped"]
"""Of a job; unknown: the cluster does not know it (it never did, or has forgotten it)."""
RUNS, ENDED = frozenset({"pending", "running"}), frozenset({"succeeded", "failed", "stopped"})


@dataclass(frozen=True)
class Submission:
    """A job to be: a fedsim command and the few small files that go along. Data never travel, only their paths."""

    id: str
    """fedsim-NAME-DIGEST in [a-z0-9-], at most 45 characters: the same content and folder have the same id."""
    files: Mapping[str, str]
    """Text by name: workload.yaml or study.yaml and base.yaml, as resolved; the file of a user's own method."""
    arguments: tuple[str, ...]
    """Of fedsim, in a folder that holds the files: run workload.yaml --out DIR --resume."""
    out: Path
    """Where the run directory or the study's folder will be, absolute, as the cluster sees it."""


@dataclass(frozen=True)
class Status:
    """How a job does."""

    state: State
    reason: str = ""
    """Why it failed, in one line, where the cluster says."""


class Target(Protocol):
    """A cluster that takes jobs."""

    name: str
    """What --cluster said."""
    out: Path | None
    """Folder for runs on the cluster, where its file names one; None: this machine's runs/ and studies/."""

    def render(self, submission: Submission) -> str:
        """Exactly what would be sent, as text; needs no cluster.

        Raises:
            InputError: the cluster's file is wrong; names the field and what would be right.
        """

    def rooms(self) -> "tuple[NodeCapacity, ...] | None":
        """The nodes that a job would have, to plan for; None where that cannot be known from here."""

    def submit(self, submission: Submission) -> None:
        """Send it. The caller has asked `status` before, and sends no job that runs or has succeeded.

        Raises:
            InputError: nothing answers there, or the token is missing or wrong.
            RunError: the cluster refused the job; with its reason.
        """

    def status(self, submission_id: str) -> Status:
        """How a job does now."""

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """What a job has printed, in pieces; with `follow` until it ends."""

    def wait(self, submission_id: str) -> Status:
        """Until a job has ended; by the cluster's own means of waiting where it has one."""

    def stop(self, submission_id: str) -> None:
        """End a job, so that its run directory can be gone on with."""

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a run directory or a study's folder from the cluster.

        Raises:
            InputError: it is not there, or `to` exists.
        """
