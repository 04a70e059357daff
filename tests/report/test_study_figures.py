"""Figures of studies: what they draw are the numbers of the tables, with the error bars that they say."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from fedsim.analysis.comparison import interval
from fedsim.analysis.scaling_law import STRONG, WEAK
from fedsim.report.ablation_figures import ablation_figures, quality_by_axis
from fedsim.report.count_figures import costs_by_count, quality_by_count
from fedsim.report.drawing import bar
from fedsim.report.figures import save_figure
from fedsim.report.scaling_figures import scaling, time_shares

Made = Callable[..., Path]


def points(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "results.parquet")


def bars(axis: Axes) -> dict[str, ErrorbarContainer]:
    return {one.get_label(): one for one in axis.containers if isinstance(one, ErrorbarContainer)}


def ends(container: ErrorbarContainer) -> list[tuple[float, float]]:
    """Lower and upper end of each error bar."""
    return [(line[0][1], line[1][1]) for line in container.lines[2][0].get_segments()]


def ticks(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_xticklabels()]


def note(figure: Figure) -> str:
    return " ".join(figure.legends[0].get_title().get_text().split())


def test_error_bars_by_hand() -> None:
    assert bar([1, 2, 3]) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert bar([1, 2]) == (1.5, 1, 2), "the range of two"
    assert np.isnan(bar([1])[1:]).all()
    assert bar([1, float("nan"), 3]) == (2, 1, 3)


def test_quality_against_the_number_of_clients(made_study: Made) -> None:
    frame = points(made_study("client-count"))
    figure = quality_by_count(frame, "psnr", "fedmri")
    figure.canvas.draw()
    quality, difference = figure.axes
    assert ticks(quality) == ["4", "16", "64"], "N themselves, though the axis is logarithmic"
    assert quality.get_xscale() == "log"
    own = frame.query("method == 'fedmri' and clients == 16")["psnr"]
    drawn = bars(quality)["fedmri"]
    assert drawn.lines[0].get_ydata()[1] == pytest.approx(own.mean())
    assert ends(drawn)[1] == pytest.approx(interval(own.tolist())[3:])
    (zero_filled,) = [line for line in quality.lines if line.get_label() == "zero-filled"]
    assert list(zero_filled.get_ydata()) == pytest.approx([27] * 3)
    assert set(bars(difference)) == {"fedavg"}
    assert list(bars(difference)["fedavg"].lines[0].get_ydata()) == pytest.approx([-0.5] * 3)
    empty = [line for line in quality.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_ydata()) for line in empty] == [[pytest.approx(drawn.lines[0].get_ydata()[2])]]
    assert "empty markers: negatives by moments, filled: exact (fedmri)" in note(figure)


def test_costs_are_of_a_client_and_round(made_study: Made) -> None:
    figure = costs_by_count(points(made_study("client-count")), "fedmri")
    seconds, milliseconds, up, down, memory = figure.axes
    drawn = [list(bars(axis)["fedavg"].lines[0].get_ydata()) for axis in (milliseconds, up, down)]
    assert drawn == [pytest.approx([value] * 3) for value in (20.8, 0.4, 0.6)]
    assert bars(memory)["fedavg"].lines[0].get_ydata()[2] == pytest.approx(0.392)
    assert seconds.get_yscale() == "log", "0.08 to 1.4 s"
    assert memory.get_ylim()[0] == 0


def test_the_drivers_memory_is_drawn_where_it_is_known(made_study: Made) -> None:
    frame = points(made_study("client-count")).assign(driver_memory_bytes=3e8)
    labels = [axis.get_ylabel() for axis in costs_by_count(frame, "fedmri").axes]
    assert labels.index("memory of the driver, peak [GB]") == 2
    assert len(labels) == 6


def test_counts_within_a_decade_have_a_linear_axis(made_study: Made) -> None:
    frame = points(made_study("client-count")).query("clients < 64")
    axis = quality_by_count(frame, "psnr", "fedmri").axes[0]
    assert (axis.get_xscale(), ticks(axis)) == ("linear", ["4", "16"])


def test_counts_of_many_clients_are_written_out(made_study: Made) -> None:
    frame = points(made_study("client-count"))
    axis = quality_by_count(frame.assign(clients=frame["clients"] * 15_625), "psnr", "fedmri").axes[0]
    assert ticks(axis)[-1] == "1,000,000"


def test_one_seed_has_intervals_over_the_sites_tested(made_study: Made) -> None:
    frame = points(made_study("client-count")).query("seed == 1")
    shown = frame.assign(psnr_low=frame["psnr"] - 1, psnr_high=frame["psnr"] + 2)
    figure = quality_by_count(shown, "psnr", "fedmri")
    first = bars(figure.axes[0])["fedmri"].lines[0].get_ydata()[0]
    assert ends(bars(figure.axes[0])["fedmri"])[0] == pytest.approx((first - 1, first + 2))
    assert "one seed; bars: 95 % CI over the sites tested" in note(figure)


def test_participants_are_those_that_send(made_study: Made) -> None:
    frame = points(made_study("client-count")).assign(participants=2)
    figure = costs_by_count(frame.query("clients == 4"), "fedmri")
    assert [bars(axis)["fedavg"].lines[0].get_ydata()[0] for axis in figure.axes[1:4]] == pytest.approx(
        [41.6, 0.8, 1.2]
    )


@pytest.mark.parametrize(("kind", "name"), [("scaling-strong", "Amdahl"), ("scaling-weak", "Gustafson")])
def test_scaling_has_its_ideal_its_floor_and_its_law(made_study: Made, kind: str, name: str) -> None:
    frame = points(made_study(kind))
    figure = scaling(frame, STRONG if kind == "scaling-strong" else WEAK, "fedmri")
    figure.canvas.draw()
    time, gain, efficiency = figure.axes
    (ideal,) = [line for line in gain.lines if line.get_label() == "ideal"]
    assert list(ideal.get_ydata()) == [1, 2, 4]
    floor = bars(time)["bare training loop"].lines[0].get_ydata()
    assert list(floor) == pytest.approx([0.95 * value for value in bars(time)["fedmri"].lines[0].get_ydata()])
    gains, workers = bars(gain)["fedmri"].lines[0].get_ydata(), np.array([1, 2, 4])
    expected = 1 / (0.1 + 0.9 / workers) if kind == "scaling-strong" else workers - 0.1 * (workers - 1)
    assert list(gains) == pytest.approx(list(expected))
    assert list(bars(efficiency)["fedmri"].lines[0].get_ydata()) == pytest.approx(list(expected / workers))
    assert f"{name}'s law with a serial share of bare training loop 10.0 %, fedavg 10.0 %, fedmri 10.0 %" in note(
        figure
    )
    assert ticks(gain) == ["1", "2", "4"]
    without = scaling(frame.assign(floor_seconds=math.nan), STRONG if kind == "scaling-strong" else WEAK, "fedmri")
    assert set(bars(without.axes[0])) == {"fedavg", "fedmri"}


def test_shares_of_time_are_stacked_to_100(made_study: Made) -> None:
    figure = time_shares(points(made_study("scaling-strong")))
    one, other = figure.axes
    assert [axis.get_title() for axis in (one, other)] == ["fedavg", "fedmri"]
    heights = {stack.get_label(): stack[0].get_height() for stack in one.containers}
    assert heights == pytest.approx({"train": 70, "evaluate": 10, "load": 5, "send": 5, "idle": 10})
    assert one.containers[-1][0].get_y() + one.containers[-1][0].get_height() == pytest.approx(100)


def test_an_ablation_shows_each_axis_with_the_others_averaged_over(made_study: Made) -> None:
    frame = points(made_study("ablation"))
    figure = quality_by_axis(frame, "psnr", "fedmri", {})
    figure.canvas.draw()
    numbers, names = figure.axes
    assert (ticks(numbers), ticks(names)) == (["0", "1", "10"], ["instance", "affine"])
    own = frame[(frame["method"] == "fedmri") & (frame["algorithm.beta"] == 1)]
    assert bars(numbers)["fedmri"].lines[0].get_ydata()[1] == pytest.approx(own["psnr"].mean())
    by_seed = own.groupby("seed")["psnr"].mean()
    assert ends(bars(numbers)["fedmri"])[1] == pytest.approx(interval(by_seed.tolist())[3:])


def test_an_ablation_leaves_out_seeds_that_lack_a_combination(made_study: Made) -> None:
    """Otherwise means over the other axes would be of different ones."""
    frame = points(made_study("ablation"))
    lacking = frame[~((frame["seed"] == 3) & (frame["regime"] == frame["regime"].iloc[0]))]
    drawn = bars(quality_by_axis(lacking, "psnr", "fedmri", {}).axes[0])["fedmri"].lines[0].get_ydata()
    whole = bars(quality_by_axis(frame.query("seed < 3"), "psnr", "fedmri", {}).axes[0])["fedmri"].lines[0].get_ydata()
    assert list(drawn) == list(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_figure_is_the_same_file_every_time(made_study: Made, tmp_path: Path, kind: str) -> None:
    frame = points(made_study("ablation", seeds=1))
    files = [
        save_figure(figure, tmp_path / f"{index}-{name}.{kind}").read_bytes()
        for index in range(2)
        for name, figure in list(ablation_figures(frame, "fedmri", {}))[:1]
    ]
    assert files[0] == files[1]
    assert b"CreationDate" not in files[0]
