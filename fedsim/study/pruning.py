"""Whether a trial ends early: a function of the trials before it and of its own rounds, so a resumed trial agrees."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsim.study.library import optuna
from fedsim.study.tune import Asha, Pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

_FEWEST = 5  # trials before the median of their values is one to compare with


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges one trial at its rungs."""

    pruner: Pruner | None
    rounds: int
    """Of a trial that is not pruned."""
    before: "tuple[FrozenTrial, ...]"
    """The trials that ended before it began, in their order."""

    def reached(self, validated: Iterable[tuple[int, float]]) -> dict[int, float]:
        """The best validation PSNR so far at each rung that a trial has reached, by round.

        Args:
            validated: Every round's number and its validation PSNR [dB]; NaN where it was not validated.
        """
        rungs = set(self.pruner.rungs(self.rounds)) if self.pruner else set()
        best, values = -math.inf, {}
        for round_, psnr in validated:
            best = max(best, psnr) if psnr == psnr else best  # noqa: PLR0124 - NaN
            if round_ in rungs and best > -math.inf:
                values[round_] = best
        return values

    def prunes(self, validated: Iterable[tuple[int, float]]) -> bool:
        """Whether a trial ends at the last of its rounds so far."""
        rounds = list(validated)
        reached = self.reached(rounds)
        return bool(reached) and max(reached) == rounds[-1][0] and self.replayed(reached)[0]

    def replayed(self, reached: dict[int, float]) -> "tuple[bool, FrozenTrial]":
        """Whether the pruner ends a trial with these values at its rungs, and the trial up to there."""
        idle = optuna().samplers.RandomSampler(seed=0)  # draws nothing here
        study = optuna().create_study(direction="maximize", sampler=idle, pruner=_pruner(self.pruner))
        study.add_trials(self.before)
        trial = study.ask()
        for round_, value in reached.items():
            trial.report(value, round_)
            if trial.should_prune():
                return True, study.trials[-1]
        return False, study.trials[-1]


def _pruner(section: Pruner | None) -> "BasePruner":
    pruners = optuna().pruners
    if section is None:
        return pruners.NopPruner()  # type: ignore[no-any-return]
    if isinstance(section, Asha):
        return pruners.SuccessiveHalvingPruner(section.grace, section.factor)  # type: ignore[no-any-return]
    return pruners.MedianPruner(n_startup_trials=_FEWEST, n_warmup_steps=0)  # type: ignore[no-any-return]
