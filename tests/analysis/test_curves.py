"""Learning curves: what a run's curve holds, whether it is flat at the end, and whether the term oscillates."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from fedsim.analysis.curves import accuracy_by_round, late_gains, learning_curve
from fedsim.analysis.oscillation import oscillations
from fedsim.engine.record.run_directory import Run
from fedsim.engine.record.term import ratio_by_round

NAN = float("nan")
ALTERNATING = [NAN, 0.055, 0.237, 0.036, 0.238, 0.014, 0.239, 0.003]  # of four hospitals, beta 10: bound 0.25
STEADY = [NAN, 0.047, 0.028, 0.025, 0.025, 0.026, 0.027, 0.026]


def curve(method: str, psnr: list[float], ratio: list[float] | None = None, **labels: object) -> pd.DataFrame:
    """Rows of curves.parquet of one run."""
    rounds = range(1, 1 + len(psnr))
    frame = pd.DataFrame({"regime": "all", "method": method, "seed": 1, **labels, "round": rounds, "psnr": psnr})
    return frame if ratio is None else frame.assign(contrastive_ratio=ratio, contrastive_bound=0.25)


def test_a_curve_has_what_its_method_notes(finished: Run) -> None:
    found = learning_curve(finished, regime="all", method="fedmri", seed=1).set_index("round")
    term = ratio_by_round(finished.clients)
    assert len(term) > 0
    pd.testing.assert_series_equal(found["contrastive_ratio"].dropna(), term["ratio"], check_names=False)
    pd.testing.assert_series_equal(found["contrastive_bound"].dropna(), term["bound"], check_names=False)
    assert found["contrastive_ratio"].isna().tolist() == [True] + [False] * len(term), "the term begins in round 2"
    assert "discriminator_accuracy" not in found


def test_the_accuracy_is_the_mean_over_clients() -> None:
    clients = pd.DataFrame({"round": [1, 1, 2, 2], "discriminator_accuracy": [0.8, 0.6, 0.5, NAN]})
    assert accuracy_by_round(clients).tolist() == pytest.approx([0.7, 0.5])
    assert accuracy_by_round(clients[["round"]]).empty


@pytest.mark.parametrize(
    ("psnr", "gain"),
    [
        ([20, 22, 23, 24, 24.5, 24.7, 24.8, 24.9, 24.92, 24.95], 0.05),  # rounds 9 and 10
        ([20, 22, 23, 24, 25, 24.7, 24.8, 24.9, 24.92, 24.95], 0.0),  # the best came before
        ([20, 22, 23, 24.0, 23.0, 24.6], 0.6),  # two of six rounds, as a fifth is more than one
        ([NAN, NAN, 23, NAN, NAN, 24, NAN, NAN, 24.1, NAN, NAN, 24.5], 0.4),  # every third round is scored
        ([NAN, NAN, 23, NAN, NAN, 24, NAN, NAN], NAN),  # the last round is not
        ([NAN, NAN, NAN, NAN, 24], NAN),
        ([24], NAN),
    ],
)
def test_the_gain_of_the_last_fifth(psnr: list[float], gain: float) -> None:
    (row,) = late_gains(curve("fedavg", psnr)).to_dict("records")
    assert row["gain"] == pytest.approx(gain, nan_ok=True)
    assert row["runs"] == (0 if np.isnan(gain) else 1)


def test_gains_are_means_over_seeds_and_folds() -> None:
    runs = [(1, 1, 0.1), (1, 2, 0.3), (2, 1, 0.0), (2, 2, 0.4)]
    curves = [curve("fedmri", [20, 21, 22, 23, 23 + gain], seed=seed, fold=fold) for seed, fold, gain in runs]
    other = curve("fedavg", [20, 21, 22, 23, 23], fold=1)
    table = late_gains(pd.concat([*curves, other]))
    assert list(table["method"]) == ["fedmri", "fedavg"], "in the order of the curves"
    assert table["gain"].tolist() == pytest.approx([0.2, 0.0])
    assert table["runs"].tolist() == [4, 1]


def test_an_oscillation_is_counted_and_correlated_by_hand() -> None:
    psnr = [24.0, 25.0, 25.7, 25.1, 25.9, 25.2, 26.0, 25.2]
    runs = [curve("fedmri", psnr, ALTERNATING), curve("fedmri", psnr, STEADY, seed=2), curve("fedavg", psnr)]
    plain, damped = (oscillations(frame).to_dict("records")[0] for frame in (runs[0], runs[1]))
    assert (plain["alternating"], plain["runs"], plain["rounds"]) == (1, 1, 7)
    assert plain["saturated"] == 3, "0.237, 0.238 and 0.239 of 0.25"
    assert damped["alternating"] == damped["saturated"] == 0
    kinks = [psnr[at] - (psnr[at - 1] + psnr[at + 1]) / 2 for at in range(2, 7)]  # from round 3: the term begins in 2
    shares = np.array(ALTERNATING) / 0.25
    of_ratio = [shares[at] - (shares[at - 1] + shares[at + 1]) / 2 for at in range(2, 7)]
    assert plain["kink"] == pytest.approx(np.mean(np.abs(kinks)))
    assert plain["correlation"] == pytest.approx(pearsonr(of_ratio, kinks).statistic)
    assert plain["correlation"] > 0.9
    both = oscillations(pd.concat(runs)).set_index("method")
    assert (both.loc["fedmri", "alternating"], both.loc["fedmri", "runs"], both.loc["fedmri", "saturated"]) == (
        1,
        2,
        1.5,
    )
    assert np.isnan(both.loc["fedavg", "alternating"])
    assert both.loc["fedavg", "kink"] == pytest.approx(plain["kink"]), "of validation alone"


def test_rounds_that_were_not_scored_have_no_correlation() -> None:
    (row,) = oscillations(curve("fedmri", [24, NAN, NAN, 25, NAN, NAN, 26, NAN], ALTERNATING)).to_dict("records")
    assert row["alternating"] == 1
    assert np.isnan(row["correlation"])
    assert np.isnan(row["kink"])
