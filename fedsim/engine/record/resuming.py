"""What must be unchanged when a run is resumed, evaluated or inspected: workload, data, and a user's own method."""

import json
import logging
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from fedsim.algorithms.training import Training
from fedsim.core.errors import DamagedError, InputError
from fedsim.core.yaml import flat
from fedsim.engine.federation import Federation
from fedsim.engine.record.claim import LOCK
from fedsim.engine.record.kept import check_kept
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import complete_rounds, read_state
from fedsim.workload.reading import read_content
from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")

_FREE_ON_RESUME = (
    "engine", "federation.root", "federation.cache", "training.rounds", "training.early_stopping", "training.init",
    "tags", "trackers", "time.available.trace", "metrics.references", "metrics.boxes", "provenance",
)  # fmt: skip
_KEPT_ON_RESUME = ("engine.on_client_error",)
"""What a client that fails does to its round is part of what the run computes. A lost process (`on_lost_process`,
`client_timeout_s`) is an accident of the machine: no workload determines it, and a resumed run may answer it otherwise.
"""
_COMPARED = 256  # sites that are made by a rule
_CHANGES_BITS = ("threads", "device")
_OF_VOLUMES = {"digest": "other images", "mask_kind": "another mask", "acceleration": "another acceleration"}
"""Columns of the manifest that are the same for all slices of a volume, with the wording for a change."""


def resumes(path: Path, workload: Workload) -> bool:
    """Whether a run directory holds a run to resume.

    Args:
        path: The run directory, claimed.
        workload: What is to run there.

    Raises:
        InputError: it holds something else, or a run that cannot be resumed with this workload.
    """
    inside = [file.name for file in path.iterdir()]
    if all(name == LOCK or name.endswith(".part") for name in inside):  # it was killed before it began
        return False
    check_resumed(path, workload)
    return (path / "manifest.parquet").exists()


def check_resumed(path: Path, now: Workload) -> None:
    """Refuse to resume a run with another workload; warn of fewer rounds, and of what may affect the last bits.

    Raises:
        InputError: naming the key or the file.
    """
    check_kept(path, now)
    before = check_goes_on(path, now)
    if now.training.rounds < (rounds := before.training.rounds):
        log.warning("training.rounds: was %d and is now %d: the run ends sooner", rounds, now.training.rounds)
    for key in _CHANGES_BITS:
        was, is_ = getattr(before.engine, key), getattr(now.engine, key)
        if was != is_:
            log.warning("engine.%s: was %s and is now %s: the last bits may differ from here on", key, was, is_)


def check_goes_on(path: Path, now: Workload) -> Workload:
    """Refuse to use a run with another workload than it was trained with; returns that one.

    Raises:
        InputError: naming the first key that differs but must not.
    """
    before = _began_with(path)
    check_same(before, now)
    _check_no_shorter(before.training, now.training, max(complete_rounds(path), default=0))
    return before


def _began_with(path: Path) -> Workload:
    """The workload that a run was trained with: its newest checkpoint's; that of workload.yaml before there is one.

    Raises:
        InputError: neither can be read.
    """
    for round_ in reversed(complete_rounds(path)):
        with suppress(DamagedError):
            return read_content(read_state(path, round_)["workload"], f"{path}, round {round_}: ").settled()
    return Run(path).workload.settled()


def check_manifest(path: Path, federation: Federation) -> None:
    """Refuse to resume a run with other data, or with data divided or measured otherwise, than it began with.

    Of sites that are made by a rule, the first are compared: where the rule has changed, all of them have.

    Raises:
        InputError: naming the first site and volume that differ.
    """
    before, now = Run(path).manifest, federation.manifest
    if federation.by_rule:
        sites = {*now["site"], *before["site"].unique()[:_COMPARED]}
        before, now = before[before["site"].isin(sites)], federation.manifest_of(sites)
    _check_alike(path, (before, now))


def _check_alike(path: Path, frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Compare the rows of a run with those of now."""
    keys = ["site", "volume", "slice", "subject", "split", "client"]
    before, now = (dict.fromkeys(frame[keys].fillna("").itertuples(index=False, name=None)) for frame in frames)
    differing = [row for row in (*before, *now) if row not in before or row not in now]
    if differing:
        site, volume, *_ = differing[0]
        raise InputError(
            f"site {site}: {volume} is not what it was when {path} began; bring back the data of that time"
        )
    for column, what in _OF_VOLUMES.items():
        if column not in frames[0]:
            log.warning(
                "%s: was begun by an older fedsim without %s in its manifest; that is not compared", path, column
            )
            continue
        was, is_ = (_by_volume(frame, column) for frame in frames)
        for site, volume in was:
            if was[site, volume] != is_[site, volume]:
                raise InputError(f"site {site}: {volume} has {what} than when {path} began; bring back what there was")


def _by_volume(manifest: pd.DataFrame, column: str) -> dict[tuple[str, str], Hashable]:
    rows = manifest.drop_duplicates(["site", "volume"])
    return dict(zip(zip(rows["site"], rows["volume"], strict=True), rows[column], strict=True))


def check_same(before: Workload, now: Workload) -> None:
    """Refuse another workload, apart from how many rounds it has.

    Raises:
        InputError: naming the first key that differs but must not.
    """
    old, new = (dict(flat(json.loads(w.model_dump_json()))) for w in (before, now))
    for key in sorted(old.keys() | new.keys()):
        free = any(key == prefix or key.startswith(f"{prefix}.") for prefix in _FREE_ON_RESUME)
        if (not free or key in _KEPT_ON_RESUME) and old.get(key) != new.get(key):
            raise InputError(f"{key}: was {old.get(key)!r} and is now {new.get(key)!r}; a run that has begun keeps it")


def _check_no_shorter(before: Training, now: Training, trained: int) -> None:
    """Refuse to resume a run that would have ended sooner than it did, after `trained` rounds.

    Raises:
        InputError: it has fewer rounds, or a rule of early stopping that is not the old one with more patience.
    """
    if now.rounds < trained:
        change = f"was {before.rounds} and is now {now.rounds}"
        raise InputError(f"training.rounds: {change}; the run has {trained} already, so set at least that")
    was, is_ = before.early_stopping, now.early_stopping
    patient = was and is_ and is_.patience >= was.patience and is_.model_copy(update={"patience": was.patience}) == was
    if is_ is not None and not patient:
        raise InputError("training.early_stopping: on resume its patience may grow, or it may be null; nothing else")
