"""Making a submission from a workload or a study, with everything resolved so that it means the same elsewhere."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from fedsim.core.errors import InputError
from fedsim.core.yaml import read_yaml
from fedsim.engine.record.kept import keep_own, with_copies
from fedsim.jobs.target import Content, Submission, Task
from fedsim.study.ended import is_finished, read_failures, write_failures
from fedsim.study.frozen import check_folder, freeze
from fedsim.study.runner import check_data
from fedsim.study.study import Point, StudyPlan, load_study
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Federation

_LARGEST = 1_000_000  # bytes of all files; ample for workloads and methods, too small for data, which are not sent
_MOST_COPIED = 900_000  # bytes, own classes included, beyond which a trace or a start is not sent
_RUN, _STUDY, _ARRAY = ("run", "workload.yaml", "--resume"), ("study", "study.yaml"), ("array",)
_LONGEST_NAME = 27  # of the 45 characters of an id


@dataclass(frozen=True, kw_only=True)
class Job:
    """A submission and what it was made from."""

    submission: Submission
    name: str
    kind: Literal["run", "study", "array"]
    """An array runs the points of a study as tasks of one job."""
    workloads: tuple[Workload, ...]
    """The run's workload; of a study or an array, one for each method in each regime."""
    plan: StudyPlan | None = None
    """Points of a study."""


def prepare(file: Path, overrides: Sequence[str], out: Path | None, beside: Path | None) -> Job:
    """The job that a workload or a study file describes.

    Args:
        file: YAML; a study's names its workload.
        overrides: `KEY=VALUE`.
        out: The run directory or the study's folder; default runs/NAME or studies/NAME here, or NAME in `beside`.
        beside: Folder for runs on the cluster, if its file names one; a relative `out` is in it.

    Raises:
        InputError: the file or one of its workloads is wrong.
    """
    study, plan = "workload" in read_yaml(file), None
    if study:
        plan = _plan(file, overrides, beside)
        name, keep = plan.study.name, partial(freeze, plan, most=_MOST_COPIED)
        workloads = [
            point.workload for point in plan.examples() if point.seed == plan.study.seeds[0] and point.fold in {None, 1}
        ]
    else:
        workload = _workload(file, overrides, beside)
        name, keep, workloads = workload.name, partial(_keep, workload, _MOST_COPIED), [workload]
    here = Path.cwd() if beside is None else beside
    default = Path("studies" if study else "runs") if beside is None else Path()
    where = here / (out.expanduser() if out else default / name)
    command = _STUDY if study else _RUN
    return Job(
        submission=_submission(name, keep, command, where),
        name=name,
        kind="study" if study else "run",
        workloads=tuple(workloads),
        plan=plan,
    )


def prepare_points(file: Path, overrides: Sequence[str], out: Path | None) -> tuple[list[Job], Callable[[], None]]:
    """A job for each unfinished point of a study; `fedsim study` with the same folder collects them when they are done.

    Also returns a function that makes the study's folder, to be called once all jobs are checked.

    Args:
        file: A study.
        overrides: `KEY=VALUE`.
        out: The study's folder, visible to the cluster; default studies/NAME.

    Raises:
        InputError: the file is not a study, its data are wrong, or its points depend on each other or on a bare loop.
    """
    plan, folder = _separable(file, overrides, out, "--per-point")
    jobs = [_of_point(point, folder) for point in plan.examples() if not is_finished(point, folder)]
    return jobs, partial(freeze, plan, folder)


def prepare_array(
    file: Path, overrides: Sequence[str], out: Path | None, at_once: int | None
) -> tuple[list[Job], Callable[[], None]]:
    """One job with a task for each unfinished point of a study, if there are any.

    Also returns a function that makes the study's folder, as `prepare_points` does.

    Args:
        file: A study.
        overrides: `KEY=VALUE`.
        out: The study's folder, visible to the cluster; default studies/NAME.
        at_once: Number of tasks that may run at a time; None: any.

    Raises:
        InputError: as of `prepare_points`.
    """
    plan, folder = _separable(file, overrides, out, "--array")
    points = dict(enumerate(plan.examples(), start=1))
    left = {number: point for number, point in points.items() if not is_finished(point, folder)}
    keep = partial(freeze, plan, most=_MOST_COPIED)
    whole = _submission(plan.study.name, keep, _ARRAY, folder)  # its id is that of all points
    # tasks get no copies of traces and starts: SLURM's nodes see this machine's files
    submission = replace(
        whole,
        files={},
        arguments=(),
        tasks={number: _task(_of_point(point, folder, copied=0)) for number, point in left.items()},
        at_once=at_once,
    )
    workloads = tuple(point.workload for point in points.values())[: len(plan.cases)]
    job = Job(submission=submission, name=plan.study.name, kind="array", workloads=workloads, plan=plan)
    return [job] if left else [], partial(_begin_array, plan, folder)


def _begin_array(plan: StudyPlan, folder: Path) -> None:
    """Make the study's folder; points that had failed are about to be retried."""
    freeze(plan, folder)
    known, points = read_failures(folder), {point.label for point in plan.examples()}
    if known.keys() & points:
        write_failures(folder, {label: error for label, error in known.items() if label not in points})


def _separable(file: Path, overrides: Sequence[str], out: Path | None, option: str) -> tuple[StudyPlan, Path]:
    """A study whose points can be jobs, and its folder.

    Raises:
        InputError: the file is not a study, its data are wrong, or its points depend on each other or on a bare loop.
    """
    if "workload" not in read_yaml(file):
        raise InputError(f"{option}: {file} is a workload; only a study has points")
    plan = load_study(file, overrides)
    if plan.tuning_runs:
        raise InputError(f"{file}: tune: its points depend on the tuning; leave out {option}")
    if plan.study.has_floor:
        raise InputError(f"{file}: kind: {plan.study.kind} is measured beside a bare loop; leave out {option}")
    folder = Path.cwd() / (out.expanduser() if out else Path("studies") / plan.study.name)
    check_data(plan)
    check_folder(plan, folder)
    return plan, folder


def _of_point(point: Point, folder: Path, copied: int = _MOST_COPIED) -> Job:
    submission = _submission(point.label, partial(_keep, point.workload, copied), _RUN, folder / point.folder)
    return Job(submission=submission, name=point.label, kind="run", workloads=(point.workload,))


def _task(job: Job) -> Task:
    return Task(label=job.name, files=job.submission.files, arguments=job.submission.arguments)


def _submission(name: str, keep: Callable[[Path], None], command: tuple[str, ...], out: Path) -> Submission:
    """A submission of the files that `keep` writes into a folder, with the command to run there."""
    with tempfile.TemporaryDirectory() as folder:
        keep(Path(folder))
        paths = sorted(Path(folder).iterdir())
        size, files = sum(path.stat().st_size for path in paths), {path.name: _content(path) for path in paths}
    if size > _LARGEST:
        raise InputError(f"{name}: with its method's file it has {size:,} bytes; at most {_LARGEST:,} can be sent")
    known = {**files, "": command[0]} if command == _ARRAY else files  # a study as one job is another job
    return Submission(id=_id_of(name, known, out), files=files, arguments=(*command, "--out", str(out)), out=out)


def _content(path: Path) -> Content:
    """Of a file, as text if it is that."""
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _keep(workload: Workload, copied: int, folder: Path) -> None:
    """Write a workload into a folder with its own classes, and with copies of other files up to `copied` bytes."""
    keep_own(folder, workload)
    content = with_copies(json.loads(workload.model_dump_json(exclude_none=True)), folder, copied)
    (folder / "workload.yaml").write_text(write_yaml(content), encoding="utf-8")


def _workload(file: Path, overrides: Sequence[str], beside: Path | None) -> Workload:
    workload = load_workload(file, overrides)
    federation = workload.federation.model_copy(update={"cache": _cache(workload, beside)})
    return workload.model_copy(update={"federation": federation})


def _plan(file: Path, overrides: Sequence[str], beside: Path | None) -> StudyPlan:
    plan = load_study(file, overrides)
    cache = _cache(plan.examples()[0].workload, beside)
    return load_study(file, [*overrides, f"set.federation.cache={json.dumps(str(cache))}"])  # may be relative


def _cache(workload: Workload, beside: Path | None) -> Path:
    """The cluster's cache of shards: as the file says, else a folder that its nodes share."""
    default = Federation.model_fields["cache"].get_default(call_default_factory=True)
    cache = workload.federation.cache
    return cache if beside is None or cache != default else beside / "cache"


def _id_of(name: str, files: Mapping[str, Content], out: Path) -> str:
    """The same id for the same content and folder, whatever the cluster."""
    told = {one: text if isinstance(text, str) else hashlib.sha256(text).hexdigest() for one, text in files.items()}
    content = json.dumps([sorted(told.items()), str(out)])
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-")
    return f"fedsim-{plain}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
