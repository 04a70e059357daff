"""Submitting from Python: send workloads to a cluster, wait for them, and collect their scores.

base = "workloads/quickstart.yaml"
jobs = [fedsim.submit(base, "slurm", {"training.lr": lr}, out=f"runs/lr-{lr}") for lr in (1e-4, 1e-3)]
fedsim.wait(jobs)
print(fedsim.collect(jobs).groupby("training.lr")["psnr"].mean())
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedsim.core.errors import InputError, RunError
from fedsim.engine.record.run_directory import Run
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.receipts import Receipt, receipt_of, receipts, status_of, wait_for
from fedsim.jobs.sending import submit_all
from fedsim.jobs.submission import prepare
from fedsim.jobs.target import RUNS, Target
from fedsim.jobs.targets import find_target, source_of
from fedsim.workload.reading import parse_setting

log = logging.getLogger("fedsim")


@dataclass(frozen=True)
class Submitted:
    """A job on a cluster; its id is the one that `fedsim jobs` shows."""

    id: str
    out: Path
    """Its run directory or study folder, as the cluster sees it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The keys that were set at its submission, with their values."""

    @property
    def state(self) -> str:
        """unknown, pending, running, succeeded, failed or stopped.

        Raises:
            InputError: its cluster does not answer, and no final status is known here.
        """
        return status_of(receipt_of(self.id)).state


def submit(
    workload: str | Path,
    cluster: str = "local",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    out: str | Path | None = None,
) -> Submitted:
    """Send a workload or a study to a cluster; submitting the same again resumes it, and never runs it twice.

    SLURM and KubeRay queue jobs. A Ray cluster has no queue, and a run takes all of it: there, jobs
    sent before are waited for first.

    Args:
        workload: YAML file of a workload or a study.
        cluster: Name of a file in clusters/, path of such a file, or http://HOST:PORT of a Ray dashboard.
        overrides: Values by dotted key, or KEY=VALUE strings as for --set.
        out: Folder of the run or study; default runs/NAME or studies/NAME.

    Raises:
        InputError: the file, a key or the cluster is wrong, or the job does not fit; nothing was sent.
        RunError: the cluster refused the job.
    """
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    target = find_target(cluster)
    job = prepare(Path(workload), overrides, None if out is None else Path(out), target.out)
    if isinstance(target, RayJobs):
        _await_others(target, job.submission.id)
    submit_all(target, [job], log.info)
    return Submitted(job.submission.id, job.submission.out, dict(map(parse_setting, overrides)))


def wait(jobs: Submitted | Iterable[Submitted]) -> None:
    """Wait until all jobs have finished.

    Raises:
        RunError: some did not succeed, once all have finished; names the first with its reason.
        InputError: a cluster does not answer, and a job's final status is not known here.
    """
    statuses = {job.id: wait_for(receipt_of(job.id)) for job in _listed(jobs)}
    failed = [
        f"{name}: {status.state} {status.reason}".strip()
        for name, status in statuses.items()
        if status.state != "succeeded"
    ]
    if failed:
        more = f"; {len(failed) - 1} more of {len(statuses)} jobs did not succeed" if len(failed) > 1 else ""
        raise RunError(failed[0] + more)


def collect(jobs: Submitted | Iterable[Submitted]) -> pd.DataFrame:
    """The test scores of runs, one row per volume, with a column for every key that was set at submission.

    Raises:
        InputError: a run is not on this machine (`fedsim jobs fetch` brings it), or has no scores yet.
    """
    tables = []
    for job in _listed(jobs):
        if not job.out.is_dir():
            raise InputError(f"{job.out}: is not on this machine; copy it here with: fedsim jobs fetch {job.id}")
        tables.append(
            Run(job.out).evaluation.assign(job=job.id, **{key: _cell(value) for key, value in job.settings.items()})
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _await_others(target: Target, job_id: str) -> None:
    """Wait for the jobs that were sent to a cluster earlier and are still running."""
    for receipt in receipts():
        if receipt.id != job_id and receipt.cluster == source_of(target) and _runs(receipt):
            log.info("waiting for %s, which occupies the cluster", receipt.id)
            wait_for(receipt)


def _runs(receipt: Receipt) -> bool:
    try:
        return status_of(receipt).state in RUNS
    except InputError:  # the cluster is not running
        return False


def _listed(jobs: Submitted | Iterable[Submitted]) -> list[Submitted]:
    return [jobs] if isinstance(jobs, Submitted) else list(jobs)


def _cell(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    """A value for a table cell: lists and sections as text."""
    return json.dumps(value) if isinstance(value, list | dict) else value
