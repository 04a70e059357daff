"""The live page of a run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsim.analysis.cohorts import QUANTITIES, Cohorts
from fedsim.cli.live.cells import cells
from fedsim.cli.live.images import NewestImage
from fedsim.cli.live.log import WarningsSoFar
from fedsim.cli.live.standing import Standing
from fedsim.cli.live.subject import Json, Section, Subject, as_json, number, reason
from fedsim.cli.watch_run import WatchedRun
from fedsim.core.errors import InputError, RunError

_BLOCK = 64  # rounds of a section of curves, which is sent again when one of them changes
_MOST_FAILURES = 50


class LiveRun:
    """A run directory, of which nothing need be readable yet."""

    def __init__(self, path: Path, name: str) -> None:
        """Nothing is read yet.

        Args:
            path: Run directory.
            name: What the page calls it until its workload is read.
        """
        self._path, self._name, self._state = path, name, "stopped"
        self._watched: WatchedRun | None = None
        self._standing, self._log, self._image = Standing(path), WarningsSoFar(path / "log.txt"), NewestImage()
        self._curves: dict[int, Json] = {}
        self._followed: Cohorts | None = None  # those that the curves are of
        self._unreadable: list[str] = []

    def look(self) -> None:
        """Read what has changed."""
        found: list[Exception] = []
        try:
            self._watched = self._watched or WatchedRun(self._path)
            self._watched.look()
        except (InputError, RunError) as error:
            found += [error] if self._watched is None else self._watched.unreadable.values()
        try:
            self._log.look()
            if self._watched is not None:
                self._state = self._standing.state(self._watched)
        except (InputError, OSError) as error:
            found.append(error)
        if self._watched is not None:
            self._image.look(self._watched.run)
        texts = [*map(reason, found), self._image.unreadable]
        self._unreadable = list(dict.fromkeys(text for text in texts if text))

    def sections(self) -> Mapping[str, Section]:
        """All parts of the page."""
        watched = self._watched
        if watched is None:
            return {"head": {"kind": "run", "name": self._name, "about": ""}, "unreadable": self._unreadable}
        names, states = cells(watched.cohorts)
        facts = dict(watched.facts())
        clock = facts.pop("simulated", None)
        return {
            "head": {"kind": "run", "name": watched.run.workload.name, "about": _about(watched)},
            "state": {
                "state": self._state, "reached": watched.reached, "total": watched.total, "early": watched.early,
                "written": number(watched.written, 14), "round_s": number(watched.round_seconds),
                "left_s": number(watched.left(watched.reached)) if watched.reached else None,
            },
            "facts": list(facts.items()),
            "clock": clock,
            "names": names,
            "cells": states,
            "lines": watched.cohorts.lines,
            **self._blocks(watched),
            "image": self._image.markup,
            "failures": _failures(watched),
            "log": self._log.rows(),
            "unreadable": self._unreadable,
        }  # fmt: skip

    def child(self, number: int) -> Subject:
        """A run has none."""
        raise IndexError(number)

    def _blocks(self, watched: WatchedRun) -> dict[str, Json]:
        """The curves, a section for some rounds; only those that have changed are made again."""
        cohorts = watched.cohorts
        if cohorts is not self._followed:
            self._followed, self._curves = cohorts, {}
        first = (cohorts.changed_from - 1) // _BLOCK
        self._curves = {block: text for block, text in self._curves.items() if block < first}
        changed = sorted(round_ for round_ in cohorts.quality if (round_ - 1) // _BLOCK >= first)
        for block in sorted({(round_ - 1) // _BLOCK for round_ in changed}):
            rounds = [round_ for round_ in changed if (round_ - 1) // _BLOCK == block]
            self._curves[block] = Json(as_json(_curve(watched, rounds)))
        cohorts.changed_from = cohorts.newest + 1
        return {f"curve-{block}": text for block, text in self._curves.items()}


def _curve(watched: WatchedRun, rounds: list[int]) -> dict[str, Section]:
    """Every quantity of every line, by round; with the simulated time at which rounds ended, if there is any [s]."""
    values = np.stack([watched.cohorts.quality[round_] for round_ in rounds])  # rounds x quantities x lines
    found: dict[str, Section] = {
        name: [[number(value) for value in line] for line in values[:, at].T] for at, name in enumerate(QUANTITIES)
    }
    if "virtual_s" in watched.rounds:
        ends = dict(zip(watched.rounds["round"], watched.rounds["virtual_s"], strict=True))
        found["virtual_s"] = [number(ends.get(round_, float("nan"))) for round_ in rounds]
    return {"round": rounds, **found}


def _about(watched: WatchedRun) -> str:
    workload = watched.run.workload
    clients, sites = watched.cohorts.clients, len(workload.federation.expanded_sites())
    who = f"{clients:,} client{'' if clients == 1 else 's'} of {sites:,} site{'' if sites == 1 else 's'}"
    return f"{workload.algorithm.name} · {workload.model.name} · {who} · seed {workload.seed}"


def _failures(watched: WatchedRun) -> Section:
    """How many there were by what was done, and the newest of them."""
    table = watched.failures
    rows = table.iloc[::-1].head(_MOST_FAILURES).to_dict("records")
    return {
        "counts": [[str(action), int(count)] for action, count in table["action"].value_counts().items()],
        "rows": [[str(value) for value in row.values()] for row in rows],
    }
