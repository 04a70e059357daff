"""Making a submission of a workload or a study: everything resolved, so that it means the same elsewhere."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from fedsim.core.errors import InputError
from fedsim.core.yaml import read_yaml
from fedsim.engine.record.run_directory import keep_own
from fedsim.jobs.target import Submission
from fedsim.study.frozen import check_folder, freeze
from fedsim.study.results import is_finished
from fedsim.study.runner import check_data
from fedsim.study.study import Point, StudyPlan, load_study
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Federation

_LARGEST = 1_000_000  # bytes; nobody's workload and method are larger, and data are not to travel
_RUN, _STUDY = ("run", "workload.yaml", "--resume"), ("study", "study.yaml")
_LONGEST_NAME = 27  # of an id's 45 characters


@dataclass(frozen=True)
class Job:
    """A submission with what it was made of."""

    submission: Submission
    name: str
    kind: Literal["run", "study"]
    workloads: tuple[Workload, ...]
    """The run's; of a study one for each method in each regime."""
    plan: StudyPlan | None = None
    """Of a study."""


def prepare(file: Path, overrides: Sequence[str], out: Path | None, beside: Path | None) -> Job:
    """The job that a workload or a study file describes.

    Args:
        file: YAML; a study's names its workload.
        overrides: `KEY=VALUE`.
        out: The run directory or the study's folder; default runs/NAME or studies/NAME here, or NAME in `beside`.
        beside: Folder for runs on the cluster, where it has one of its own; a relative `out` is in it.

    Raises:
        InputError: the file or one of its workloads is wrong.
    """
    study, plan = "workload" in read_yaml(file), None
    if study:
        plan = _plan(file, overrides, beside)
        name, keep = plan.study.name, partial(freeze, plan)
        workloads = [point.workload for point in plan.finals(dict.fromkeys(plan.pairs, 0))][: len(plan.pairs)]
    else:
        workload = _workload(file, overrides, beside)
        name, keep, workloads = workload.name, partial(_keep, workload), [workload]
    here = Path.cwd() if beside is None else beside
    default = Path("studies" if study else "runs") if beside is None else Path()
    where = here / (out.expanduser() if out else default / name)
    command = _STUDY if study else _RUN
    return Job(_submission(name, keep, command, where), name, "study" if study else "run", tuple(workloads), plan)


def prepare_points(file: Path, overrides: Sequence[str], out: Path | None) -> tuple[list[Job], Callable[[], None]]:
    """A job for each unfinished point of a study; `fedsim study` with the same folder collects them when they are done.

    Also what makes the study's folder, to be called once all jobs are checked.

    Args:
        file: A study.
        overrides: `KEY=VALUE`.
        out: The study's folder, which the cluster sees; default studies/NAME.

    Raises:
        InputError: the file is no study, its data are wrong, or its points need each other or a bare loop.
    """
    if "workload" not in read_yaml(file):
        raise InputError(f"--per-point: {file} is a workload; a study has points")
    plan = load_study(file, overrides)
    if plan.tuning():
        raise InputError(f"{file}: tune: its points wait for what tuning chooses; leave --per-point out")
    if plan.study.has_floor:
        raise InputError(f"{file}: kind: {plan.study.kind} measures a bare loop beside; leave --per-point out")
    folder = Path.cwd() / (out.expanduser() if out else Path("studies") / plan.study.name)
    check_data(plan)
    check_folder(plan, folder)
    points = plan.finals(dict.fromkeys(plan.pairs, 0))
    jobs = [_of_point(point, folder) for point in points if not is_finished(point, folder)]
    return jobs, partial(freeze, plan, folder)


def _of_point(point: Point, folder: Path) -> Job:
    submission = _submission(point.label, partial(_keep, point.workload), _RUN, folder / point.folder)
    return Job(submission, point.label, "run", (point.workload,))


def _submission(name: str, keep: Callable[[Path], None], command: tuple[str, ...], out: Path) -> Submission:
    """What `keep` writes into a folder, with the command that is to be run there."""
    with tempfile.TemporaryDirectory() as folder:
        keep(Path(folder))
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
    size = sum(len(text.encode()) for text in files.values())
    if size > _LARGEST:
        raise InputError(f"{name}: with its method's file it has {size:,} bytes; {_LARGEST:,} go along at most")
    return Submission(_id_of(name, files, out), files, (*command, "--out", str(out)), out)


def _keep(workload: Workload, folder: Path) -> None:
    content = json.loads(workload.model_dump_json(exclude_none=True))
    (folder / "workload.yaml").write_text(write_yaml(content), encoding="utf-8")
    keep_own(folder, workload)


def _workload(file: Path, overrides: Sequence[str], beside: Path | None) -> Workload:
    workload = load_workload(file, overrides)
    federation = workload.federation.model_copy(update={"cache": _cache(workload, beside)})
    return workload.model_copy(update={"federation": federation})


def _plan(file: Path, overrides: Sequence[str], beside: Path | None) -> StudyPlan:
    plan = load_study(file, overrides)
    cache = _cache(plan.finals(dict.fromkeys(plan.pairs, 0))[0].workload, beside)
    return load_study(file, [*overrides, f"set.federation.cache={json.dumps(str(cache))}"])  # which may be relative


def _cache(workload: Workload, beside: Path | None) -> Path:
    """Where the cluster keeps imported shards: what the file says, else a folder that its nodes share."""
    default = Federation.model_fields["cache"].get_default(call_default_factory=True)
    cache = workload.federation.cache
    return cache if beside is None or cache != default else beside / "cache"


def _id_of(name: str, files: Mapping[str, str], out: Path) -> str:
    """One id for one content and folder, whatever the cluster."""
    content = json.dumps([sorted(files.items()), str(out)])
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-")
    return f"fedsim-{plain}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
