"""Whether the contrastive term switches itself off: measured courses of its ratio, and what a run says of it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.record.term import judge, ratio_by_round, term_warning
from fedsim.engine.simulation import run
from fedsim.workload.schema import Workload

AUTHORS = [0.055, 0.315, 0.036, 0.317, 0.003, 0.318, 0.000, 0.317]  # rounds 2 to 9 of the authors' code, three clients
HOSPITALS = [0.065, 0.237, 0.036, 0.238, 0.014, 0.239, 0.003]  # four clients, beta 10


@pytest.mark.parametrize(
    ("ratios", "clients", "saturated", "alternates"),
    [
        (AUTHORS, 3, [False, True] * 4, True),
        (HOSPITALS, 4, [False, True] * 3 + [False], True),
        ([0.32] * 8, 3, [True] * 8, False),
        ([0.30, 0.2999, 0.301], 3, [False, False, True], False),
        ([0.1, 0.11, 0.1, 0.11, 0.1, 0.11], 3, [False] * 6, False),
        ([0.25, 0.2, 0.15, 0.1, 0.05], 3, [False] * 5, False),
        ([0.05, 0.25, 0.06], 3, [False] * 3, False),
        ([0.05, 0.25, 0.06, 0.25], 3, [False] * 4, True),
        ([0.2], 3, [False], False),
        ([], 3, [], False),
    ],
)
def test_a_course_of_ratios_is_judged(
    ratios: list[float], clients: int, saturated: list[bool], alternates: bool
) -> None:
    judged = judge(ratios, [1 / clients] * len(ratios))
    assert (list(judged.saturated), judged.alternates) == (saturated, alternates)


def ledger(ratios: list[float], weights: list[float]) -> pd.DataFrame:
    """Rows like those of clients.parquet; the term begins in round 2."""
    rows = [(1, weight, float("nan")) for weight in weights]
    rows += [(round_, weight, ratio) for round_, ratio in enumerate(ratios, start=2) for weight in weights]
    return pd.DataFrame(rows, columns=["round", "weight", "contrastive_ratio"]).assign(outcome="trained")


def test_it_is_said_with_its_numbers() -> None:
    found = ratio_by_round(ledger(AUTHORS, [1 / 3] * 3))
    assert list(found.index) == list(range(2, 10))
    assert found["ratio"].tolist() == pytest.approx(AUTHORS)
    assert term_warning(found) == (
        "the contrastive term switches itself off: its ratio is above 0.9 of its bound (0.333), where its gradient "
        "vanishes, in 4 of 8 rounds and alternates between high and low from round to round"
    )
    assert term_warning(ratio_by_round(ledger([0.1, 0.12, 0.11], [1 / 3] * 3))) is None


def test_the_bound_is_the_largest_weight_of_those_who_answered_in_the_round_before() -> None:
    clients = ledger([0.1, 0.2], [2.0, 1.0, 1.0])
    assert ratio_by_round(clients)["bound"].tolist() == [0.5, 0.5]
    clients.loc[2, "outcome"] = "dropped"
    assert ratio_by_round(clients)["bound"].tolist() == pytest.approx([2 / 3, 0.5])
    assert ratio_by_round(clients.drop(columns="contrastive_ratio")).empty


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "warned"), [("100", True), ("0", False)])
def test_a_run_warns_at_its_end(
    workload: Callable[..., Workload], tmp_path: Path, caplog: pytest.LogCaptureFixture, beta: str, warned: bool
) -> None:
    loaded = workload(f"algorithm.beta={beta}", "training.rounds=6", "training.batch_size=1", "training.lr=1e-2")
    with caplog.at_level(logging.WARNING, "fedsim"):
        run(loaded, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if "switches itself off" in record.getMessage()]
    assert len(said) == warned
