"""The endpoint in words: a sentence for each outcome, none of which says more than was shown."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from fedsim.analysis.comparison import MEAN
from fedsim.analysis.endpoint import Outcome
from fedsim.report.budget_table import budget_columns, budgets, equality
from fedsim.report.endpoint import Judgement
from fedsim.report.patient_figures import patient_differences
from fedsim.report.tables import as_markdown, as_text
from fedsim.report.wording import caption
from tests.analysis.compared import results
from tests.analysis.test_endpoint import volumes

from .conftest import png, texts

NAN = float("nan")


def row(outcome: Outcome, mean: float, p: float, equivalent: float, **keys: object) -> dict[str, object]:
    return {
        "regime": "all", "method": "ditto", "patients": 34, "sites": 4, "mean": mean, "low": mean - 0.1,
        "high": mean + 0.1, "median": mean, "p_holm": p, "equivalent_p_holm": equivalent, "tests": 5,
        "outcome": outcome, **keys,
    }  # fmt: skip


def judgement(*rows: dict[str, object], floors: pd.DataFrame | None = None, metric: str = "psnr") -> Judgement:
    none = pd.DataFrame() if floors is None else floors
    return Judgement(
        metric=metric, margin=0.2, reference="fedmri", table=pd.DataFrame(rows), floors=none, alone="single"
    )


HOLM, WILCOXON = "after Holm's correction for 5 comparisons", "(Wilcoxon's signed-rank test)"
TOST = "of equivalence, corrected likewise (two one-sided t tests)"
SENTENCES = {
    Outcome.BETTER: (
        row(Outcome.BETTER, 0.31, 0.0123, 0.9),
        f"ditto is better than fedmri by 0.31 dB, 95 % CI [0.21, 0.41], 34 patients, p 0.012 {HOLM} {WILCOXON}",
    ),
    Outcome.WORSE: (
        row(Outcome.WORSE, -0.31, 0.0001, 0.9),
        f"ditto is worse than fedmri by 0.31 dB, 95 % CI [0.21, 0.41], 34 patients, p < 0.001 {HOLM} {WILCOXON}",
    ),
    Outcome.BETTER_WITHIN: (
        row(Outcome.BETTER_WITHIN, 0.05, 0.01, 0.02, low=0.01, high=0.09),
        f"ditto is better than fedmri by 0.05 dB, 95 % CI [0.01, 0.09], 34 patients, p 0.010 {HOLM} {WILCOXON}; "
        f"but by less than the margin of 0.2 dB (p 0.020 {TOST})",
    ),
    Outcome.WORSE_WITHIN: (
        row(Outcome.WORSE_WITHIN, -0.05, 0.01, 0.02, low=-0.09, high=-0.01),
        f"ditto is worse than fedmri by 0.05 dB, 95 % CI [0.01, 0.09], 34 patients, p 0.010 {HOLM} {WILCOXON}; "
        f"but by less than the margin of 0.2 dB (p 0.020 {TOST})",
    ),
    Outcome.EQUIVALENT: (
        row(Outcome.EQUIVALENT, 0.02, 0.6, 0.004),
        f"ditto and fedmri are equivalent within the margin of 0.2 dB: +0.02 dB, 95 % CI [-0.08, +0.12], 34 patients, "
        f"p 0.004 {TOST}",
    ),
    Outcome.NOT_SHOWN: (
        row(Outcome.NOT_SHOWN, 0.1, 0.3, 0.2),
        "ditto: neither a difference from fedmri nor equivalence within 0.2 dB is shown (+0.10 dB, 95 % CI [+0.00, "
        f"+0.20], 34 patients, p 0.300 {HOLM} {WILCOXON}; p 0.200 {TOST})",
    ),
    Outcome.TOO_FEW: (
        row(Outcome.TOO_FEW, 0.4, NAN, NAN, patients=4, sites=4),
        "ditto: nothing can be shown against fedmri: too few patients (4 patients at 4 sites; at least 5 are needed, "
        "and more than sites)",
    ),
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_sentence(outcome: Outcome) -> None:
    found, said = SENTENCES[outcome]
    assert judgement(found).sentences() == [said]
    assert "no difference" not in said
    claims = {word for word in ("better", "worse", "are equivalent") if word in said}
    assert bool(claims) == (outcome not in {Outcome.NOT_SHOWN, Outcome.TOO_FEW})
    assert ("after Holm's correction" in said or "corrected likewise" in said) == (outcome != Outcome.TOO_FEW)
    assert ("equivalent" in claims) <= ("margin of 0.2 dB" in said), "never without its margin"


def test_regimes_are_named_if_there_are_several_and_units_are_those_of_the_metric() -> None:
    found = SENTENCES[Outcome.BETTER][0]
    verdict, *lines = judgement(found, {**found, "regime": "few"}).sentences()
    assert verdict.startswith("ditto against fedmri (margin 0.2 dB): helps in 2 of 2 (all, few); harms in none of 2; ")
    assert [line.partition(": ")[0] for line in lines] == ["all", "few"]
    nmse = row(Outcome.BETTER, -0.0031, 0.01, 0.9, low=-0.005, high=-0.001)
    assert (
        judgement(nmse, metric="nmse")
        .sentences()[0]
        .startswith("ditto is better than fedmri by 0.0031, 95 % CI [0.0010, 0.0050], 34 patients")
    )


def test_sites_where_most_patients_are_worse_off_than_alone_are_named() -> None:
    floors = pd.DataFrame(
        [("all", "fedmri", site, 8, worse) for site, worse in (("CS", 5), ("DU", 4), (MEAN, 9))],
        columns=["regime", "method", "site", "patients", "worse"],
    )
    shown = judgement(floors=floors)
    assert shown.sentences() == ["fedmri serves 5 of 8 patients of CS worse than training alone (single)"]
    assert as_markdown(as_text(shown.floor_columns())).splitlines() == [
        "| method | CS | DU | all sites |", "|---|---:|---:|---:|", "| fedmri | 5 of 8 | 4 of 8 | 9 of 8 |",
    ]  # fmt: skip


def test_the_table_stars_what_is_shown() -> None:
    table = as_markdown(as_text(judgement(*(found for found, _ in SENTENCES.values())).columns())).splitlines()
    assert (
        table[0] == "| method | patients | PSNR [dB] − fedmri [95 % CI] | median | p (Holm) | p, equivalence | shown |"
    )
    assert table[2] == "| ditto | 34 | +0.31 [+0.21, +0.41] | +0.31 | 0.012 * | 0.900 | better |"
    assert table[-1] == "| ditto | 4 | +0.40 [+0.30, +0.50] | +0.40 |  |  | too few patients |"


# Budgets


POINTS = pd.DataFrame(
    [("all", m, s, 12, steps) for m, steps in (("fedavg", 600.0), ("ditto", 1200.0)) for s in (1, 2)],
    columns=["regime", "method", "seed", "rounds", "steps"],
)
CURVES = pd.DataFrame(
    [("all", m, s, r, 30.0 if r % 3 == 0 or m == "ditto" else NAN) for m in ("fedavg", "ditto") for s in (1, 2)
     for r in range(1, 13)], columns=["regime", "method", "seed", "round", "psnr"],
)  # fmt: skip


def test_what_methods_were_given_is_told_and_where_it_was_not_the_same() -> None:
    tuning = pd.DataFrame(
        {"regime": "all", "method": ["ditto"] * 4 + ["fedavg"] * 2, "fold": [1, 1, 2, 2, 1, 2], "rounds": 12}
    )
    table = budgets(POINTS, CURVES, tuning)
    shown = as_markdown(as_text(budget_columns(table))).splitlines()
    assert shown[0] == "| method | candidates | rounds per candidate | rounds | rounds scored | steps |"
    assert shown[2:] == ["| fedavg | 1 | 12 | 12 | 4 | 600 |", "| ditto | 2 | 12 | 12 | 12 | 1,200 |"]
    assert list(equality(table)) == [
        "the same for all methods of a regime: rounds per candidate, rounds",
        "NOT the same for all methods: candidates, from 1 (fedavg) to 2 (ditto)",
        "NOT the same for all methods: rounds scored, from 4 (fedavg) to 12 (ditto)",
        "NOT the same for all methods: steps, from 600 (fedavg) to 1,200 (ditto)",
        "the best round was chosen among some rounds only (4 of 12 of fedavg); set metrics.every to 1",
    ]
    untuned = budgets(POINTS.assign(steps=NAN), CURVES.dropna(), pd.DataFrame())
    assert [column.head for column in budget_columns(untuned)] == ["method", "candidates", "rounds", "rounds scored"]


# The figure


@pytest.mark.slow
def test_the_figure_has_every_patient_the_margin_and_the_means() -> None:
    frame = volumes(seeds=2, C=True)
    table = pd.DataFrame([{**row(Outcome.BETTER, 0.4, 0.01, 0.9), "method": "ditto"}])
    shown = Judgement(metric="psnr", margin=0.2, reference="fedmri", table=table, floors=pd.DataFrame(), alone="")
    figure = patient_differences(frame, "psnr", "fedmri", shown)
    assert figure is not None
    (axis,) = figure.axes
    points = np.concatenate([one.get_offsets() for one in axis.collections if isinstance(one, PathCollection)])
    assert len(points) == 3 * 12, "three methods, twelve patients at the sites that count"
    by_method = frame.set_index(["method", "seed", "site", "subject"])["psnr"]
    apart = (by_method["ditto"] - by_method["fedmri"]).groupby(["site", "subject"]).mean()
    assert set(np.round(apart.loc[["A", "B"]], 9)) <= set(np.round(points[:, 0], 9))
    assert "band: the margin, 0.2" in " ".join(texts(figure).split())
    assert len(png(figure)) > 10_000
    alone = frame[frame["method"] == "fedmri"]
    assert patient_differences(alone, "psnr", "fedmri") is None


def test_a_caption_says_what_seeds_of_folds_are() -> None:
    from fedsim.analysis.comparison import compare  # noqa: PLC0415

    frame = results()
    assert "Seeds divide the same subjects anew" in caption(compare(frame, "psnr", "fedmri"), "all")
    folded = compare(frame.assign(fold=frame["volume"].map({"one": 1, "two": 2})), "psnr", "fedmri")
    assert "Every seed tests every subject once, in 2 folds" in caption(folded, "all")


def test_a_caption_says_where_seeds_draw_the_subjects() -> None:
    from fedsim.analysis.comparison import compare  # noqa: PLC0415

    frame = results().assign(drawn=True)
    said = "Every seed draws other subjects: the spread is over subjects, splits and starts."
    assert said in caption(compare(frame, "psnr", "fedmri"), "all")
    folded = compare(frame.assign(fold=frame["volume"].map({"one": 1, "two": 2})), "psnr", "fedmri")
    assert "Every seed draws other subjects and tests each once, in 2 folds: the spread is over subjects" in caption(
        folded, "all"
    )
