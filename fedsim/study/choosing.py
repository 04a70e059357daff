"""What became of the candidates of tuning, and which were chosen."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.analysis.scores import mean_over_sites, scores
from fedsim.engine.record.run_directory import Run
from fedsim.study.ended import is_finished
from fedsim.study.journal import FILE
from fedsim.study.outcome import REFUSED, diverged, refused
from fedsim.study.search import State, trials_of
from fedsim.study.study import Case, Point, StudyPlan
from fedsim.study.tune import Candidate


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate that tuning has tried, or is going to."""

    point: Point
    state: State
    psnr: float
    """Validation PSNR [dB] of its best round, mean over sites; NaN unless it finished."""
    pruned_after: int | None = None
    """Round after which it was pruned; what comes later is no part of the study."""
    error: str = ""
    """Why it failed, in one line."""

    @property
    def candidate(self) -> Candidate:
        """Its number and settings."""
        assert self.point.candidate is not None
        return Candidate(self.point.candidate, self.point.settings)


def tried(plan: StudyPlan, folder: Path, failures: Mapping[str, str]) -> dict[Case, list[Tried]]:
    """The candidates of each case that is tuned: all of a grid, those of a search that have begun."""
    found: dict[Case, list[Tried]] = {}
    for point in plan.tuning():
        found.setdefault(point.case, []).append(_of_grid(point, folder, failures))
    for case, trials in trials_of(plan, folder).items():
        points = [plan.trial(case, Candidate(trial.number, trial.settings)) for trial in trials]
        found[case] = [
            Tried(
                point=point,
                state=trial.state,
                psnr=trial.psnr,
                pruned_after=trial.pruned_after,
                error=trial.refused or failures.get(point.label, ""),
            )
            for point, trial in zip(points, trials, strict=True)
        ]
    return found


def _of_grid(point: Point, folder: Path, failures: Mapping[str, str]) -> Tried:
    if is_finished(point, folder):
        psnr = mean_over_sites(scores(Run(folder / point.folder), point.part), "psnr")
        return Tried(point=point, state="finished", psnr=psnr)
    error = failures.get(point.label, "")
    state: State = "diverged" if diverged(error) else "refused" if refused(error) else "running"
    return Tried(point=point, state=state, psnr=math.nan, error=error)


def choose(plan: StudyPlan, folder: Path, failures: Mapping[str, str]) -> dict[Case, Candidate]:
    """The candidate with the best validation PSNR, by case; cases with unfinished tuning are missing."""
    found = tried(plan, folder, failures)
    chosen: dict[Case, Candidate] = {}
    for case in plan.cases:
        known = found.get(plan.tuned_in(case))
        if known is None:
            chosen[case] = plan.candidates(case.method)[0]
        elif len(known) == plan.tune.runs(case.method) and all(one.state != "running" for one in known):
            scored = [one for one in known if not math.isnan(one.psnr)]
            if scored:
                chosen[case] = max(scored, key=lambda one: one.psnr).candidate
    return chosen


def why_none(plan: StudyPlan, folder: Path, failures: Mapping[str, str], case: Case) -> str:
    """Why no candidate is chosen for a case, in one line."""
    known = tried(plan, folder, failures)[plan.tuned_in(case)]
    if len(known) < plan.tune.runs(case.method) or any(one.state != "refused" for one in known):
        return "its tuning has no result"
    first = known[0].error.removeprefix(REFUSED)
    files = " and ".join(["failed.parquet", *([FILE] if plan.tune.searches else [])])
    return f"all {len(known)} candidates of its tuning were refused, the first: {first}; delete {files} to retry them"


def tuning_rows(
    plan: StudyPlan, folder: Path, failures: Mapping[str, str], chosen: Mapping[Case, Candidate]
) -> Iterator[dict[str, Any]]:
    """The rows of tuning.parquet."""
    for case, candidates in tried(plan, folder, failures).items():
        for one in candidates:
            yield {
                "regime": case.regime, "method": case.method, "fold": case.fold, "candidate": one.candidate.number,
                "settings": json.dumps(one.candidate.settings), "psnr": one.psnr,
                "error": one.error, "state": one.state, **_spent(one, folder),
                "chosen": case in chosen and chosen[case].number == one.candidate.number,
            }  # fmt: skip


def _spent(one: Tried, folder: Path) -> dict[str, float]:
    """The rounds of a candidate so far, and the time of the cores that it had [h]."""
    run = folder / one.point.folder
    if not (run / "rounds.parquet").exists():
        return {"rounds": 0, "core_hours": 0.0}
    rounds = Run(run).rounds.iloc[: one.pruned_after]
    core_seconds = rounds["seconds"] * rounds["slots"] * rounds["threads"]
    return {"rounds": len(rounds), "core_hours": float(core_seconds.sum()) / 3600}
