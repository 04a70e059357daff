"""What a study may not say about a search gets one line."""

from typing import Any

import pytest

from fedsim.core.errors import InputError

from .conftest import SEARCH, PlanOf

LR = "training.lr"
BAD = {
    "an unknown sampler": ({"sampler": "bayes"},
        "tune.sampler: Input should be 'grid', 'tpe' or 'random', got 'bayes'"),
    "no trials": ({"trials": 0}, "tune.trials: Input should be greater than or equal to 1, got 0"),
    "trials missing": ({"trials": None}, "tune.trials: is required with sampler random"),
    "too many trials": ({"trials": 10**5}, "make more than 10,000 runs; split the study"),
    "nothing to search": ({"space": {}}, "tune.space: is required with sampler random"),
    "a grid, too": ({"grid": {LR: [1e-3]}},
        "tune.grid: belongs to sampler grid; with sampler random, write its lists under"),
    "a space without a sampler": ({"sampler": "grid"}, "tune.space: belongs to a search; add sampler: tpe or random"),
    "a pruner of a grid": ({"sampler": "grid", "space": {}, "trials": None, "pruner": {"kind": "asha", "grace": 1}},
        "tune.pruner: belongs to a search"),
    "a range in a grid": ({"sampler": "grid", "space": {},
        "trials": None, "methods": {"fedmri": {LR: {"low": 1, "high": 2}}}},
        f"tune.methods: fedmri: {LR}: a grid needs a list of values"),
    "low above high": ({"space": {LR: {"low": 1e-2, "high": 1e-3}}},
        f"tune.space.{LR}.low: 0.01 must be less than high, 0.001"),
    "no high": ({"space": {LR: {"low": 1e-2}}},
        f"tune.space.{LR}: must be a list of values, or {{low: ..., high: ...}}"),
    "one number": ({"space": {LR: 0.1}}, f"tune.space.{LR}: must have keys"),
    "an empty list": ({"space": {LR: []}}, f"tune.space.{LR}.values: Tuple should have at least 1 item"),
    "a list with ends": ({"space": {LR: {"values": [1], "low": 0}}}, "low: give either values, or low and high"),
    "the logarithm of 0": ({"space": {LR: {"low": 0, "high": 1, "log": True}}}, "low: 0 has no logarithm"),
    "steps in the logarithm": ({"space": {LR: {"low": 1, "high": 9, "step": 2, "log": True}}},
        "step: with log: true it"),
    "steps that miss the end": ({"space": {LR: {"low": 0, "high": 1, "step": 0.3}}},
        "step: no number of steps of 0.3 leads"),
    "a step backwards": ({"space": {LR: {"low": 0, "high": 1, "step": -1}}},
        f"tune.space.{LR}.step: Input should be greater"),
    "more steps than can be counted": ({"space": {LR: {"low": 1e-4, "high": 1e308, "step": 1e-300}}},
        "step: no number of steps of 1e-300 leads"),
    "an unknown key of a range": ({"space": {LR: {"min": 0, "high": 1}}}, "min: unknown key"),
    "text for a number": ({"space": {LR: {"low": "a", "high": 1}}}, f"tune.space.{LR}.low: must be a"),
    "an unknown workload key": ({"space": {"training.lrr": [1e-3]}}, "training.lrr: unknown key; did you mean 'lr'?"),
    "a key of another method": ({"methods": {"fedmri": {"algorithm.mu": [1]}}},
        "algorithm.mu: is not a key of fedmri"),
    "a key of another method, for all": ({"space": {"algorithm.mu": [1]}},
        "method fedmri: algorithm.mu: is not a key of fedmri; known: "),
    "a value that the key does not take": ({"space": {LR: {"low": -1.0, "high": 1.0}}},
        f"{LR}: Input should be greater than 0"),
    "no whole number": ({"space": {"training.batch_size": {"low": 1, "high": 8}}},
        "training.batch_size: must be a whole number"),
    "the seed": ({"space": {"seed": [1, 2]}}, "tune.space: seed: cannot be searched"),
    "the method": ({"space": {"algorithm.name": ["fedavg", "fedmri"]}},
        "tune.space: algorithm.name: cannot be searched"),
    "the budget": ({"space": {"training.rounds": [1, 2]}},
        "tune.space: training.rounds: cannot be searched; a search may choose"),
    "what it is judged by": ({"space": {"metrics.every": [1, 2]}}, "tune.space: metrics.every: cannot be searched"),
    "the data": ({"methods": {"fedmri": {"federation.normalise": ["max"]}}},
        "tune.methods: fedmri: federation.normalise: cannot"),
    "a whole section": ({"space": {"training": [{}]}}, "tune.space: training would replace the whole section"),
    "a condition on nothing": ({"space": {LR: {"low": 1, "high": 2, "when": {"training.optimizer": "sgd"}}}},
        f"tune.space: {LR}: when: training.optimizer is not a key of the space"),
    "a condition that never holds": ({"space": {LR: {"low": 1, "high": 2, "when": {"training.optimizer": "lion"}},
        "training.optimizer": ["sgd", "adam"]}},
        f"{LR}: when: training.optimizer is never 'lion'; it is one of sgd, adam"),
    "a condition without a value": ({"space": {LR: {"low": 1, "high": 2, "when": {"training.optimizer": []}},
        "training.optimizer": ["sgd", "adam"]}},
        f"{LR}: when: training.optimizer: needs a value, or a list of at least one"),
    "a condition on a range": ({"space": {LR: {"low": 1, "high": 2, "when": {"training.clip_norm": 1}},
        "training.clip_norm": {"low": 1, "high": 2}}},
        f"{LR}: when: training.clip_norm has no list of values to depend on"),
    "a circle": ({"space": {LR: {"values": [1], "when": {LR: 1}}}}, f"tune.space: {LR}: when depends on itself"),
    "an unknown pruner": ({"pruner": {"kind": "hyperband", "grace": 1}}, "tune.pruner.kind: unknown 'hyperband'"),
    "a pruner without grace": ({"pruner": {"kind": "asha"}}, "tune.pruner.grace: is required"),
    "grace beyond the rounds": ({"pruner": {"kind": "asha", "grace": 2}},
        "tune.pruner.grace: 2 must be less than training.rounds, 2"),
    "a factor of 1": ({"pruner": {"kind": "asha", "grace": 1, "factor": 1}},
        "tune.pruner.factor: Input should be greater"),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), BAD.values(), ids=BAD)
def test_a_bad_search_is_refused_in_one_line(plan_of: PlanOf, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_of(seeds=[1], methods={"fedmri": {}}, tune={**SEARCH, **keys})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"set": {"training.rounds": 9, "metrics.every": 2}},
         "tune.pruner.grace: round 3 must be a multiple of metrics"),
        ({"set": {"training.rounds": 9, "metrics.every": 0}},
         "tune.pruner.grace: round 3 must be validated; set metrics"),
        ({"methods": {"fedavg": {}, "fedmri": {"training.rounds": 5}}, "set": {"training.rounds": 9}},
         "method fedmri: training.rounds: is 5, and 9 for another method; a search gives all the same budget"),
    ],
)  # fmt: skip
def test_rungs_are_validated_rounds_and_methods_have_as_many(
    plan_of: PlanOf, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(**{"methods": {"fedmri": {}}, **keys}, tune={**SEARCH, "pruner": {"kind": "median", "grace": 3}})
