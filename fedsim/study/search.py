"""Searches: each draws the trials of one method in one regime, one after another, and learns from those that ended.

What a trial is drawn from is the seed, its number and the trials that ended before it, nothing else. So it does not
matter how often a study was interrupted; a trial that was interrupted is in the journal with its settings, and its run
resumes.
"""

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsim.core.errors import DamagedError
from fedsim.core.seeds import derive
from fedsim.study.axes import Settings
from fedsim.study.journal import FILE, REMEDY, journal
from fedsim.study.library import optuna
from fedsim.study.outcome import Outcome, is_answer
from fedsim.study.pruning import Judge
from fedsim.study.space import Range, applies
from fedsim.study.study import Case, Point, StudyPlan
from fedsim.study.tune import Candidate

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Drawing


State = Literal["running", "finished", "pruned", "diverged", "refused"]

_REFUSED = "refused"  # attribute of a trial in the journal: why


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial of a search."""

    number: int
    """Its place in its search, counted from 0."""
    settings: Settings
    state: State
    psnr: float
    """Validation PSNR [dB] of its best round, mean over sites; NaN unless it finished."""
    pruned_after: int | None = None
    """Round after which it was pruned."""
    refused: str = ""
    """Error of one that was refused."""


class Searches:
    """The searches of a study for some cases, which write to its journal."""

    def __init__(self, plan: StudyPlan, cases: Container[Case], storage: "JournalStorage") -> None:
        self._by_case = {case: _Search(plan, case, storage) for case in plan.searched if case in cases}

    def heads(self) -> list[Point]:
        """The next trial of each search that has not ended."""
        return [point for search in self._by_case.values() if (point := search.next())]

    @property
    def left(self) -> int:
        """The number of trials that have not ended."""
        return sum(search.left for search in self._by_case.values())

    def after(self, point: Point, outcome: Outcome) -> Point | None:
        """Take up how a trial ended; the next of its search, if there is one."""
        return self._by_case[point.case].after(point, outcome)


class _Search:
    """Draws and judges the trials of one case."""

    def __init__(self, plan: StudyPlan, case: Case, storage: "JournalStorage") -> None:
        self._plan, self._case, self._storage = plan, case, storage
        self._study: Study = optuna().create_study(
            study_name=_name(case), storage=storage, direction="maximize", load_if_exists=True
        )
        self._tune, self._space = plan.tune, plan.tune.space_of(case.method)
        _check_drawn(self._study.trials, plan, case)

    @property
    def left(self) -> int:
        """The number of its trials that have not ended."""
        return self._tune.runs(self._case.method) - len(self._ended())

    def _ended(self) -> "list[FrozenTrial]":
        return [trial for trial in self._study.trials if trial.state.is_finished()]

    def next(self) -> Point | None:
        """The trial that was interrupted, or else a new one, as a point; None after the last."""
        ended = self._ended()
        if not self.left:
            return None
        if len(self._study.trials) == len(ended):
            self._study.add_trial(self._drawn(ended))
        trial = self._study.trials[len(ended)]
        point = self._plan.trial(self._case, Candidate(trial.number, _settings(trial, self._space)))
        rounds = point.workload.training.rounds
        return replace(point, judge=Judge(pruner=self._tune.pruner, rounds=rounds, before=tuple(ended)))

    def _drawn(self, ended: "list[FrozenTrial]") -> "FrozenTrial":
        """A new trial, drawn in memory and then recorded at once, so that none is ever recorded in part."""
        number = len(ended)
        study = optuna().create_study(direction="maximize", sampler=_sampler(self._tune.sampler, self._seed(number)))
        study.add_trials(ended)
        drawing, drawn = study.ask(), dict[str, Any]()
        for key, range_ in self._space.items():
            if applies(range_, drawn):
                drawn[key] = _draw(drawing, key, range_)
        trial = optuna().trial
        return trial.create_trial(  # type: ignore[no-any-return]
            state=trial.TrialState.RUNNING, params=drawing.params, distributions=drawing.distributions
        )

    def _seed(self, number: int) -> int:
        """Of a trial; that of another method is the same, so that all methods begin with the same settings."""
        return derive(self._tune.seed, "trial", number) % 2**32

    def after(self, point: Point, outcome: Outcome) -> Point | None:
        """Record how a trial ended, and draw the next; a trial that was stopped or failed is tried again."""
        if outcome.stopped or (outcome.error and not is_answer(point.label, outcome.error)):
            return None
        assert point.judge is not None
        assert point.candidate is not None
        trial, states = self._study.trials[point.candidate], optuna().trial.TrialState
        _, judged = point.judge.replayed({} if outcome.error else outcome.rungs)
        for round_, value in judged.intermediate_values.items():
            self._storage.set_trial_intermediate_value(trial._trial_id, round_, value)
        for key, value in judged.system_attrs.items():
            self._storage.set_trial_system_attr(trial._trial_id, key, value)
        if outcome.refused:
            self._storage.set_trial_user_attr(trial._trial_id, _REFUSED, outcome.error)
        whole = not outcome.pruned and math.isfinite(outcome.psnr)
        state, values = (states.COMPLETE, [outcome.psnr]) if whole else (states.PRUNED, None)
        self._storage.set_trial_state_values(trial._trial_id, state, values)
        return self.next()


def trials_of(plan: StudyPlan, folder: Path) -> dict[Case, list[Trial]]:
    """The trials of every search of a study's folder that have begun, in their order.

    Raises:
        InputError: optuna is not installed.
        DamagedError: the journal is damaged, or that of another study.
    """
    found: dict[Case, list[Trial]] = {case: [] for case in plan.searched}
    if not found or not (folder / FILE).exists():
        return found
    storage = journal(folder)
    names = {study.study_name: study._study_id for study in storage.get_all_studies()}
    for case in found:
        space = plan.tune.space_of(case.method)
        known = storage.get_all_trials(names[_name(case)]) if _name(case) in names else []
        _check_drawn(known, plan, case)
        found[case] = [_trial(trial, space) for trial in known]
    return found


def ended_trials(plan: StudyPlan, folder: Path) -> set[str]:
    """The labels of the trials that have ended, as `trials_of` knows them."""
    return {
        plan.trial(case, Candidate(trial.number, trial.settings)).label
        for case, trials in trials_of(plan, folder).items()
        for trial in trials
        if trial.state != "running"
    }


def _trial(trial: "FrozenTrial", space: Mapping[str, Range]) -> Trial:
    states = optuna().trial.TrialState
    ends: dict[Any, State] = {states.COMPLETE: "finished", states.PRUNED: "pruned"}
    state = ends.get(trial.state, "running")
    refused = trial.user_attrs.get(_REFUSED, "")
    if state == "pruned" and not trial.intermediate_values:
        state = "refused" if refused else "diverged"
    psnr = trial.values[0] if trial.values else math.nan
    last = max(trial.intermediate_values) if state == "pruned" else None
    settings = _settings(trial, space)
    return Trial(number=trial.number, settings=settings, state=state, psnr=psnr, pruned_after=last, refused=refused)


def _check_drawn(trials: "list[FrozenTrial]", plan: StudyPlan, case: Case) -> None:
    """Refuse trials that the search of a case cannot have drawn, as those of another study."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    in_turn = ended == trials[: len(ended)] and len(trials) - len(ended) <= 1
    space, most = plan.tune.space_of(case.method), plan.tune.runs(case.method)
    if not in_turn or len(trials) > most or not all(_may_draw(space, trial.params) for trial in trials):
        raise DamagedError(f"{FILE}: has trials of {_name(case)} that this study has not drawn; {REMEDY}")


def _may_draw(space: Mapping[str, Range], params: Mapping[str, Any]) -> bool:
    """Whether a search may draw these parameters, as Optuna has them."""
    drawn: Settings = {}
    for key, range_ in space.items():
        if applies(range_, drawn):
            if key not in params or not _may_be(range_, params[key]):
                return False
            drawn[key] = params[key] if range_.values is None else json.loads(params[key])
    return drawn.keys() == params.keys()


def _may_be(range_: Range, value: object) -> bool:
    if range_.values is not None:
        return value in _texts(range_)
    low, high = range_.ends
    return isinstance(value, int | float) and math.isclose(value, min(max(value, low), high))


def _name(case: Case) -> str:
    return "/".join((case.regime, case.method, *([f"fold-{case.fold}"] if case.fold else [])))


def _settings(trial: "FrozenTrial", space: Mapping[str, Range]) -> Settings:
    return {
        key: trial.params[key] if range_.values is None else json.loads(trial.params[key])
        for key, range_ in space.items()
        if key in trial.params
    }


def _sampler(name: str, seed: int) -> "BaseSampler":
    samplers = optuna().samplers
    return samplers.TPESampler(seed=seed) if name == "tpe" else samplers.RandomSampler(seed=seed)  # type: ignore[no-any-return]


def _draw(drawing: "Drawing", key: str, range_: Range) -> object:
    """A key's value; one of a list is drawn as JSON text, because Optuna takes only plain values."""
    if range_.values is not None:
        return json.loads(drawing.suggest_categorical(key, _texts(range_)))
    low, high = range_.ends
    if range_.whole:
        return drawing.suggest_int(key, int(low), int(high), step=int(range_.step or 1), log=range_.log)
    return drawing.suggest_float(key, low, high, step=range_.step, log=range_.log)


def _texts(range_: Range) -> list[str]:
    """The values of a list as JSON."""
    return [json.dumps(value, default=str) for value in range_.values or ()]
