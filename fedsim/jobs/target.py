"""The interface of all clusters: a Submission, which is sent, and a Target, which receives it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from fedsim.engine.place.node import Node

State = Literal["unknown", "pending", "running", "succeeded", "failed", "stopped"]
"""State of a job; unknown: the cluster has no such job (never had, or has forgotten it)."""
RUNS, ENDED = frozenset({"pending", "running"}), frozenset({"succeeded", "failed", "stopped"})


Content = str | bytes
"""Of a file: its text, or what it has if it is none."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job to submit: a fedsim command and the few small files it needs. Data are never sent, only their paths."""

    id: str
    """fedsim-NAME-DIGEST in [a-z0-9-], at most 45 characters: the same content and folder have the same id."""
    files: Mapping[str, Content]
    """By name: workload.yaml or study.yaml and base.yaml, as resolved; the file of a user's own method; a trace."""
    arguments: tuple[str, ...]
    """Arguments for fedsim, run in the folder of the files: run workload.yaml --out DIR --resume."""
    out: Path
    """Absolute path of the run directory or the study's folder, as the cluster sees it."""
    tasks: Mapping[int, "Task"] = field(default_factory=dict)
    """Of an array, which has no files and no arguments of its own: what each of its tasks runs, by number."""
    at_once: int | None = None
    """Number of tasks of an array that may run at a time; None: any."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A point of a study, as a task of an array."""

    label: str
    """The point's name."""
    files: Mapping[str, Content]
    """As of a submission."""
    arguments: tuple[str, ...]
    """As of a submission."""


@dataclass(frozen=True)
class Status:
    """The status of a job."""

    state: State
    reason: str = ""
    """Why it failed, in one line, if the cluster says so."""


class Target(Protocol):
    """A cluster that takes jobs."""

    name: str
    """The value of --cluster."""
    out: Path | None
    """Folder for runs on the cluster, where its file names one; None: this machine's runs/ and studies/."""

    def render(self, submission: Submission) -> str:
        """Exactly what would be sent, as text; needs no running cluster.

        Raises:
            InputError: the cluster's file is wrong; names the field and what would be right.
        """

    def nodes(self) -> "tuple[Node, ...] | None":
        """The nodes that a job would get, to plan for; None if that cannot be known from here."""

    def submit(self, submission: Submission) -> None:
        """Send it. The caller checks `status` first and sends no job that is running or has succeeded.

        Raises:
            InputError: the cluster does not answer, or the token is missing or wrong.
            RunError: the cluster refused the job; with its reason.
        """

    def status(self, submission_id: str) -> Status:
        """The present status of a job."""

    def logs(self, submission_id: str, follow: bool) -> Iterator[str]:
        """A job's output so far, in pieces; with `follow`, until it finishes."""

    def wait(self, submission_id: str) -> Status:
        """Wait until a job has finished, by the cluster's own means if it has any."""

    def stop(self, submission_id: str) -> None:
        """Stop a job so that its run can be resumed."""

    def fetch(self, out: Path, to: Path) -> None:
        """Copy a run directory or a study's folder from the cluster.

        Raises:
            InputError: it does not exist, or `to` exists.
        """
