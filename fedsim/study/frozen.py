"""A study's folder: what the study was started with, and what may change when it is resumed."""

import json
import math
from pathlib import Path

from fedsim.core.errors import InputError
from fedsim.core.files import write_text
from fedsim.core.yaml import read_yaml
from fedsim.engine.record.claim import LOCK
from fedsim.engine.record.kept import keep_own, with_copies
from fedsim.engine.record.resuming import check_same
from fedsim.study.kinds import Study
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.reading import with_found_files, write_yaml
from fedsim.workload.schema import Workload

_KEPT = (
    "name", "kind", "folds", "endpoint.metric", "endpoint.margin", "tune.seed", "tune.regime", "tune.sampler",
    "tune.trials", "tune.pruner",
)  # fmt: skip


def open_study(folder: Path) -> StudyPlan:
    """The plan of a study's folder.

    Raises:
        InputError: the folder is not a study.
    """
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder}: is not a study (it has no study.yaml)")
    return load_study(folder / "study.yaml", code=False)


def freeze(plan: StudyPlan, folder: Path, most: float = math.inf) -> None:
    """Write the study and its base workload into its folder, or check that the folder's study is the same.

    Seeds, methods and regimes may be added; the reference and all that a resumed run may change may change.

    Args:
        plan: Of the study.
        folder: Gets a copy of what it names, too: own classes, traces, starts.
        most: Bytes of what it names that are copied.

    Raises:
        InputError: the folder holds something else, or another study; naming the first key that differs.
    """
    check_folder(plan, folder)
    file = folder / "study.yaml"
    root = str(plan.examples()[0].workload.federation.root)
    content = with_found_files(json.loads(plan.study.model_dump_json(exclude_none=True)), plan.base.parent)
    content = {**content, "workload": "base.yaml", "set": {**content["set"], "federation.root": root}}
    base = with_found_files(read_yaml(plan.base), plan.base.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for point in plan.examples():
            keep_own(folder, point.workload)
        for name, settings in (("base.yaml", base), (file.name, content)):
            write_text(folder / name, write_yaml(with_copies(settings, folder, most)))
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from error


def check_folder(plan: StudyPlan, folder: Path) -> None:
    """Refuse a folder that is neither empty nor the study's.

    Raises:
        InputError: it holds something else, or another study; naming the first key that differs.
    """
    file = folder / "study.yaml"
    if file.exists():
        _check_grown(load_study(file, code=False), plan)
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {LOCK}):
        raise InputError(f"--out {folder}: exists and is not a study (it has no study.yaml); choose another folder")


def check_same_point(name: str, was: Workload, is_: Workload) -> None:
    """Refuse a point that has changed, also by more rounds, which would be another comparison."""
    if is_.training.rounds != was.training.rounds:
        change = f"was {was.training.rounds} and is now {is_.training.rounds}"
        raise InputError(f"{name}: training.rounds: {change}; a resumed study must keep it")
    if is_.training.early_stopping != was.training.early_stopping:
        raise InputError(f"{name}: training.early_stopping: is not what it was; a resumed study must keep it")
    try:
        check_same(was.settled(), is_.settled())
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_grown(before: StudyPlan, now: StudyPlan) -> None:
    """Refuse a study that differs in anything but additional seeds, methods and regimes."""
    old, new = before.study, now.study
    for key in _KEPT:
        was, is_ = (_at(study, key) for study in (old, new))
        if was != is_:
            raise InputError(f"{key}: was {was!r} and is now {is_!r}; a resumed study must keep it")
    grown = {
        "seeds": (old.seeds, new.seeds),
        "methods": (old.methods, new.methods),
        "regimes": (before.regimes, now.regimes),
    }
    for key, (was, is_) in grown.items():
        missing = [str(item) for item in was if item not in is_]
        if missing:
            raise InputError(f"{key}: {missing[0]} was in the study and is missing; a resumed study may only grow")
    for label in old.methods:
        if _tried(before, label) != _tried(now, label):
            raise InputError(f"tune: the candidates of {label} are not those the study began with")
    for case in before.cases:
        example = [before.example(case.method)]
        for candidate in before.candidates(case.method) if not before.searched else example:
            was, is_ = (plan.finals({case: candidate})[0].workload for plan in (before, now))
            check_same_point(
                f"regime {case.regime}, method {case.method}", was, is_.model_copy(update={"seed": was.seed})
            )


def _tried(plan: StudyPlan, method: str) -> object:
    """What tuning may try for a method."""
    tune = plan.study.tune
    return tune.space_of(method) if tune and tune.searches else plan.candidates(method)


def _at(study: Study, key: str) -> object:
    node: object = study
    for part in key.split("."):
        node = getattr(node, part, None)
    return node
