"""The live page of a study, or of a folder of runs and studies."""

import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fedsim.cli.live.run import LiveRun
from fedsim.cli.live.standing import Standing
from fedsim.cli.live.subject import Section, Subject, number, reason
from fedsim.cli.watch_run import WatchedRun
from fedsim.cli.watch_study import WatchedStudy
from fedsim.core.errors import InputError, RunError
from fedsim.core.text import counted
from fedsim.report.runs_page import runs_below

_MOST_ROWS = 200
_LETTERS = {"running": "r", "testing": "r", "silent": "s", "stopped": "s", "failed": "d", "damaged": "d",
            "gone": "d", "not started": "n", "finished": "t", "finished early": "t", "study": "b",
            "not read yet": "n"}  # fmt: skip
_ORDER = ("running", "testing", "silent", "failed", "damaged", "gone", "stopped")  # first; the rest as in the folder
_OPEN_FOR_S = 1.0  # how long a look may open runs
_SEARCH_EVERY_S = 15.0


class Item(NamedTuple):
    """A run or a study as a row of a table."""

    name: str
    state: str
    reached: int | None = None
    """The last round in the ledger."""
    total: int | None = None
    """Rounds."""
    psnr: float | None = None
    """Of the newest validation [dB]."""
    left_s: float | None = None
    """Time left [s], while it runs."""
    note: str = ""


def sections_of(kind: str, name: str, about: str, items: list[Item], unreadable: list[str]) -> Mapping[str, Section]:
    """The sections of a page about some items."""
    order = {state: place for place, state in enumerate(_ORDER)}
    places = sorted(range(len(items)), key=lambda at: order.get(items[at].state, len(order)))
    return {
        "head": {"kind": kind, "name": name, "about": about},
        "names": [item.name for item in items],
        "cells": {"states": "".join(_LETTERS[item.state] for item in items), "clients": len(items)},
        "items": {"all": len(items), "rows": [[at, *items[at]] for at in places[:_MOST_ROWS]]},
        "unreadable": unreadable,
    }


def item_of(name: str, run: WatchedRun, standing: Standing) -> Item:
    """A run that has been looked at; whatever its files hold, others are shown."""
    try:
        state = standing.state(run)
    except (InputError, RunError, OSError) as damage:
        return Item(name, "damaged", note=_short(damage, run.run.path))
    quality = run.rounds["psnr"].dropna().tolist() if len(run.rounds) else []
    ahead = run.left(run.reached) if run.reached else math.nan
    left = number(ahead) if state == "running" else None
    error = next(iter(run.unreadable.values()), None)
    psnr = number(quality[-1]) if quality else None
    return Item(name, state, run.reached, run.total, psnr, left, _short(error, run.run.path) if error else run.early)


def _short(error: Exception, path: Path) -> str:
    """Why a run cannot be read; its files are named relative to it."""
    return reason(error).replace(f"{path}{os.sep}", "")


class LiveStudy:
    """A study's folder."""

    def __init__(self, path: Path, name: str) -> None:
        """Nothing is read yet; see `LiveRun`."""
        self._path, self._name = path, name
        self._watched: WatchedStudy | None = None
        self._standing: dict[str, Standing] = {}
        self._unreadable: list[str] = []

    def look(self) -> None:
        """Read what has changed."""
        self._unreadable = []
        try:
            self._watched = self._watched or WatchedStudy(self._path)
            self._watched.look()
        except (InputError, RunError) as error:
            self._unreadable = [reason(error)]

    def sections(self) -> Mapping[str, Section]:
        """All parts of the page."""
        watched = self._watched
        if watched is None:
            return {"head": {"kind": "study", "name": self._name, "about": ""}, "unreadable": self._unreadable}
        items = [self._item(watched, label, state) for label, state in watched.states.items()]
        counts = Counter(item.state for item in items)
        about = f"{watched.about} · {', '.join(f'{count} {state}' for state, count in counts.items())}"
        progress = {"reached": watched.finished, "total": len(items), "state": "", "early": ""}
        return {**sections_of("study", watched.name, about, items, self._unreadable), "state": progress}

    def _item(self, watched: WatchedStudy, label: str, state: str) -> Item:
        run = watched.running.get(label) if state == "running" else None
        if run is None:
            damaged = watched.unreadable.get(label)
            return Item(
                label,
                "damaged" if damaged else state,
                note=_short(damaged, watched.folders[label]) if damaged else watched.failed.get(label, ""),
            )
        standing = self._standing.setdefault(label, Standing(watched.folders[label]))
        return item_of(label, run, standing)

    def child(self, number: int) -> Subject:
        """The point of a number, in the order of the page's grid.

        Raises:
            IndexError: there is none.
            InputError: the study cannot be read.
        """
        self._watched = self._watched or WatchedStudy(self._path)
        label, path = list(self._watched.folders.items())[number]
        return LiveRun(path, label)


class LiveFolder:
    """A folder with runs and studies below it."""

    def __init__(self, path: Path) -> None:
        """Find them.

        Raises:
            InputError: there is none.
        """
        self._path = path
        self._studies: dict[Path, None] = {}
        self._runs: dict[Path, WatchedRun | None] = {}
        self._standing: dict[Path, Standing] = {}
        self._errors: dict[Path, Exception] = {}
        self._found: list[Path] = []  # in the order in which they were found, which does not change
        self._searched = -math.inf
        self._search()
        if not self._found:
            raise InputError(f"{path}: holds no run and no study; name a run, a study, or a folder of them")

    def look(self) -> None:
        """Read what has changed; runs that were not opened yet only for a while."""
        if time.monotonic() - self._searched > _SEARCH_EVERY_S:
            self._search()
        until = time.monotonic() + _OPEN_FOR_S
        for path, run in self._runs.items():
            if run is None and time.monotonic() > until:
                continue
            try:
                self._runs[path] = opened = run or WatchedRun(path)
                opened.look()
                self._errors.pop(path, None)
            except (InputError, RunError) as error:
                self._errors[path] = error

    def _search(self) -> None:
        runs, studies = runs_below(self._path)
        for path in (*runs, *studies):
            if path not in self._runs and path not in self._studies:
                self._found.append(path)
                if path in studies:
                    self._studies[path] = None
                else:
                    self._runs[path] = None
        self._searched = time.monotonic()

    def sections(self) -> Mapping[str, Section]:
        """All parts of the page."""
        studies = f"{len(self._studies)} {'study' if len(self._studies) == 1 else 'studies'}"
        about = f"{counted(len(self._runs), 'run')}, {studies}"
        return sections_of("folder", self._path.resolve().name, about, [self._item(path) for path in self._found], [])

    def _item(self, path: Path) -> Item:
        name = path.relative_to(self._path).as_posix()
        run, error = self._runs.get(path), self._errors.get(path)
        if path in self._studies:
            return Item(name, "study")
        if run is None:
            return Item(name, "damaged", note=_short(error, path)) if error else Item(name, "not read yet")
        standing = self._standing.setdefault(path, Standing(path))
        return item_of(name, run, standing)

    def child(self, number: int) -> Subject:
        """The run or study of a number, in the order of the page's grid.

        Raises:
            IndexError: there is none.
        """
        path = self._found[number]
        name = path.relative_to(self._path).as_posix()
        return LiveStudy(path, name) if path in self._studies else LiveRun(path, name)
