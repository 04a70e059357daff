"""A comparison in words, tables and figures, made from numbers."""

import numpy as np
import pandas as pd
import pytest

from fedsim.analysis.comparison import MEAN, by_seed, compare
from fedsim.report.comparison_figures import comparison_figures, convergence, differences, scarcity
from fedsim.report.tables import markdown
from fedsim.report.wording import sentences
from tests.analysis.compared import METHODS, results, row

DIFFERENCES = ("differences-psnr", "differences-ssim", "differences-nmse")


# Words


def test_what_it_says() -> None:
    table = compare(results(noise=0.01), "psnr", "fedavg")
    found = row(table, "fedmri")
    assert sentences(table, "psnr", "fedavg") == [
        f"fedmri leads fedavg by {found['difference']:.2f} dB, 95 % CI "
        f"[{found['low']:.2f}, {found['high']:.2f}], 4 seeds, p < 0.001 after Holm's correction for 2 comparisons",
        f"fedavg leads single by {-row(table, 'single')['difference']:.2f} dB, 95 % CI "
        f"[{-row(table, 'single')['high']:.2f}, {-row(table, 'single')['low']:.2f}], 4 seeds, "
        "p < 0.001 after Holm's correction for 2 comparisons",
    ]
    assert sentences(compare(results(noise=3), "psnr", "fedavg"), "psnr", "fedavg") == [
        "no method is shown to differ from fedavg (p > 0.05 after Holm's correction for 2 comparisons)"
    ]


def test_lower_nmse_leads() -> None:
    frame = results()
    frame["nmse"] += frame["psnr"] * 1e-5
    (first, *_) = sentences(compare(frame, "nmse", "single"), "nmse", "single")
    assert first.startswith("fedmri leads single by ")


def test_markdown_has_a_row_a_method_best_first_and_a_column_a_site() -> None:
    lines = markdown(compare(results(noise=0.01), "psnr", "fedmri"), "psnr", "fedmri").splitlines()
    heads = "method | n | A | B | C | mean over sites | difference to fedmri | 95 % CI | p (Holm) | p, subjects"
    assert lines[2] == f"| {heads} |"
    assert [line.split(" | ")[0] for line in lines[4:8]] == ["| zero-filled", "| fedmri", "| fedavg", "| single"]
    assert lines[5].endswith("|  |  |  |"), "the reference differs from nothing"
    assert lines[6].split(" | ")[5].startswith("31.90 ± 1.29")


# Figures


def curves(regimes: tuple[str, ...] = ("all",)) -> pd.DataFrame:
    rows = [
        {
            "regime": regime, "method": method, "seed": seed, "round": round_, "psnr": 30 + gain * round_ + 0.1 * seed,
            "ssim": 0.8, "bytes": 0 if method == "single" else 2_000_000 * round_, "clients": 2,
        }
        for regime in regimes
        for method, gain in METHODS.items()
        for seed in range(3)
        for round_ in range(1, 5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_convergence_shows_means_over_seeds_by_round_and_by_bytes() -> None:
    by_round, by_bytes = convergence(curves(), "fedmri").axes
    lines = {line.get_label(): line for line in by_round.lines}
    assert set(lines) == set(METHODS)
    assert list(lines["fedavg"].get_ydata()) == pytest.approx([30.1 + 0.4 * n for n in (1, 2, 3, 4)])
    sent = {line.get_label(): line for line in by_bytes.lines}
    assert list(sent["fedavg"].get_xdata()) == [1, 2, 3, 4]
    assert lines["fedmri"].get_linewidth() > lines["fedavg"].get_linewidth()
    level = next(line for line in by_bytes.lines if line.get_label() not in METHODS)
    assert level.get_ydata()[0] == pytest.approx(30.1), "what single reaches, sending nothing"
    assert len(by_round.collections) == len(METHODS), "a band a method"


def test_scarcity_is_the_gain_over_training_alone() -> None:
    frame = results(regimes=("all", "few"))
    (axis,) = scarcity(frame, "fedmri").axes
    table = by_seed(frame)
    means = table[table["site"] == MEAN].pivot_table(index=["regime", "seed"], columns="method", values="psnr")
    gain = (means["fedmri"] - means["single"]).groupby("regime").mean()
    line = next(bar for bar in axis.containers if bar.get_label() == "fedmri").lines[0]
    assert list(line.get_ydata()) == pytest.approx([gain["all"], gain["few"]])
    assert list(line.get_xdata()) == pytest.approx([1, 2], rel=0.02)


def test_differences_are_filled_where_they_are_shown() -> None:
    frame = results(noise=0.01)
    frame.loc[frame["method"] == "single", "psnr"] += 10 * np.sin(1 + frame["seed"])
    table = compare(frame, "psnr", "fedmri")
    (axis,) = differences(table, "psnr", "fedmri").axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    points = axis.collections[-1]
    faces = dict(zip(names, [tuple(face[:3]) for face in points.get_facecolors()], strict=True))
    assert (faces["fedavg"] == (1, 1, 1), faces["single"] == (1, 1, 1)) == (False, True)
    at = dict(zip(names, points.get_offsets()[:, 0], strict=True))
    assert at["fedavg"] == pytest.approx(row(table, "fedavg")["difference"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame", "names"),
    [
        (results(), {"convergence", *DIFFERENCES}),
        (results(1), {"convergence", *DIFFERENCES}),
        (results(regimes=("all", "few")), {"convergence", *DIFFERENCES, "scarcity"}),
        (results(regimes=("all", "few")).query("method != 'single'"), {"convergence", *DIFFERENCES}),
        (results().query("method == 'fedmri'"), {"convergence"}),
    ],
)
def test_figures_are_drawn_where_there_is_something_to_show(frame: pd.DataFrame, names: set[str]) -> None:
    tables = {quality: compare(frame, quality, "fedmri") for quality in ("psnr", "ssim", "nmse")}
    drawn = dict(comparison_figures(frame, curves(), tables, "fedmri"))
    assert set(drawn) == names
    for figure in drawn.values():
        figure.canvas.draw()
