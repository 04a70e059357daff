"""Making a submission of a workload or a study: everything resolved, so that it means the same elsewhere."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedsim.config import Federation, Workload
from fedsim.engine.rundir import keep_method
from fedsim.errors import InputError
from fedsim.jobs.target import Submission
from fedsim.study.frozen import freeze
from fedsim.study.kinds import Scaling
from fedsim.study.results import is_finished
from fedsim.study.runner import check_data
from fedsim.study.study import Point, load_study
from fedsim.workload import load_workload, read_yaml, write_yaml

_LARGEST = 1_000_000  # bytes; nobody's workload and method are larger, and data are not to travel
_LONGEST_NAME = 27  # of an id's 45 characters


@dataclass(frozen=True)
class Job:
    """A submission with what it was made of."""

    submission: Submission
    name: str
    kind: Literal["run", "study"]
    workloads: tuple[Workload, ...]
    """The run's; of a study one for each method in each regime."""


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
    study = "workload" in read_yaml(file)
    with tempfile.TemporaryDirectory() as folder:
        name, workloads = (_study if study else _run)(file, overrides, Path(folder), beside)
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
    size = sum(len(text.encode()) for text in files.values())
    if size > _LARGEST:
        raise InputError(f"{file}: with its method's file it has {size:,} bytes; {_LARGEST:,} go along at most")
    here = Path.cwd() if beside is None else beside
    default = Path("studies" if study else "runs") if beside is None else Path()
    where = here / (out.expanduser() if out else default / name)
    command = ("study", "study.yaml") if study else ("run", "workload.yaml", "--resume")
    submission = Submission(_id_of(name, files, where), files, (*command, "--out", str(where)), where)
    return Job(submission, name, "study" if study else "run", workloads)


def prepare_points(file: Path, overrides: Sequence[str], out: Path | None, *, begin: bool) -> list[Job]:
    """A job for each unfinished point of a study; `fedsim study` with the same folder collects them when they are done.

    Args:
        file: A study.
        overrides: `KEY=VALUE`.
        out: The study's folder, which the cluster sees; default studies/NAME.
        begin: Whether to make the folder, or only to look.

    Raises:
        InputError: the file is no study, its data are wrong, or its points need each other or a bare loop.
    """
    if "workload" not in read_yaml(file):
        raise InputError(f"--per-point: {file} is a workload; a study has points")
    plan = load_study(file, overrides)
    if plan.tuning():
        raise InputError(f"{file}: tune: its points wait for what tuning chooses; leave --per-point out")
    if isinstance(plan.study, Scaling):
        raise InputError(f"{file}: kind: {plan.study.kind} measures a bare loop beside; leave --per-point out")
    folder = Path.cwd() / (out.expanduser() if out else Path("studies") / plan.study.name)
    check_data(plan)
    if begin:
        freeze(plan, folder)
    points = plan.finals(dict.fromkeys(plan.pairs, 0))
    return [_of_point(point, folder) for point in points if not is_finished(point, folder)]


def _of_point(point: Point, folder: Path) -> Job:
    out = folder / point.folder
    with tempfile.TemporaryDirectory() as made:
        keep_method(Path(made), point.workload.algorithm)
        files = {path.name: path.read_text(encoding="utf-8") for path in Path(made).iterdir()}
    files["workload.yaml"] = write_yaml(json.loads(point.workload.model_dump_json(exclude_none=True)))
    arguments = ("run", "workload.yaml", "--resume", "--out", str(out))
    submission = Submission(_id_of(point.label, files, out), files, arguments, out)
    return Job(submission, point.label, "run", (point.workload,))


def _run(file: Path, overrides: Sequence[str], folder: Path, beside: Path | None) -> tuple[str, tuple[Workload, ...]]:
    workload = load_workload(file, overrides)
    workload = load_workload(file, [*overrides, f"federation.cache={json.dumps(str(_cache(workload, beside)))}"])
    content = json.loads(workload.model_dump_json(exclude_none=True))
    (folder / "workload.yaml").write_text(write_yaml(content), encoding="utf-8")
    keep_method(folder, workload.algorithm)
    return workload.name, (workload,)


def _study(file: Path, overrides: Sequence[str], folder: Path, beside: Path | None) -> tuple[str, tuple[Workload, ...]]:
    plan = load_study(file, overrides)
    cache = _cache(plan.finals(dict.fromkeys(plan.pairs, 0))[0].workload, beside)
    plan = load_study(file, [*overrides, f"set.federation.cache={json.dumps(str(cache))}"])  # which may be relative
    freeze(plan, folder)
    points = plan.finals(dict.fromkeys(plan.pairs, 0))[: len(plan.pairs)]  # of the first seed
    return plan.study.name, tuple(point.workload for point in points)


def _cache(workload: Workload, beside: Path | None) -> Path:
    """Where the cluster keeps imported shards: what the file says, else a folder that its nodes share."""
    default = Federation.model_fields["cache"].get_default(call_default_factory=True)
    return (
        beside / "cache" if beside is not None and workload.federation.cache == default else workload.federation.cache
    )


def _id_of(name: str, files: Mapping[str, str], out: Path) -> str:
    """One id for one content and folder, whatever the cluster."""
    content = json.dumps([sorted(files.items()), str(out)])
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-")
    return f"fedsim-{plain}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
