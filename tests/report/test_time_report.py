"""Simulated time in reports of runs and studies, in the terminal and in its figures."""

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fedsim import Run
from fedsim.analysis.virtual_time import staleness_counts, turns_of
from fedsim.cli.watch_run import simulated_text
from fedsim.core.text import time_unit
from fedsim.core.yaml import read_yaml
from fedsim.engine.record.log import round_figures
from fedsim.report.compared import compare_runs
from fedsim.report.page import Picture
from fedsim.report.report import write_report
from fedsim.report.time_figures import MOST_ROWS, staleness_and_steps, virtual_gantt
from fedsim.report.time_section import time_section
from fedsim.report.time_table import FOLDED, times_of
from fedsim.workload.reading import write_yaml
from tests.analysis.timed import TURNS, clients_of, curve, rounds_of, three_modes

NAN = float("nan")
ROUNDS = rounds_of([20, 30, 40], [20, 29, 30])


def section(rounds: pd.DataFrame, clients: pd.DataFrame, count: int) -> tuple[dict[str, object], dict[str, str]]:
    """The section, and its captions by the figures' names."""
    captions: dict[str, str] = {}

    def draw(name: str, figure: Figure, title: str, caption: str) -> Picture:
        captions[name] = caption
        return {"source": "", "title": title, "caption": caption}

    return time_section(rounds, clients, count, 3, draw), captions


def crowd(clients: int, turns: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clients with turns of 1 to 2 s, one after another; a server step every second."""
    rows = [
        (int(np.ceil((turn + 1) * length)), f"C-{at:03d}", turn * length, (turn + 1) * length, turn % 3, "trained")
        for at, length in enumerate(np.linspace(1, 2, clients))
        for turn in range(turns)
    ]
    ends = list(range(1, 2 * turns + 1))
    return rounds_of([float(end) for end in ends], [20 + end / 100 for end in ends]), clients_of(rows)


def test_the_section_says_what_the_ledger_says() -> None:
    content, captions = section(ROUNDS, clients_of(TURNS), count=4)
    assert (content["elapsed"], content["turns"], content["at_work"]) == (40, 6, 2.5)
    assert content["staleness"] == {"mean": pytest.approx(1 / 3), "most": 1}
    assert content["busy"] == {"least": 0, "median": 0.75, "most": 1}
    assert (content["idle"], content["never"]) == (pytest.approx(1 - 100 / 160), 1)
    assert list(captions) == ["virtual-quality", "virtual-gantt", "virtual-staleness"]
    assert "Shown" not in captions["virtual-gantt"], "all is shown"


def test_regions_have_bytes_and_a_quality_of_their_own() -> None:
    without = section(ROUNDS, clients_of(TURNS), count=4)[0]
    assert without["levels"] == without["regions"] == []
    clients = clients_of(TURNS).assign(psnr=[20.0, 30, 20, 32, 22, 28], region=[1, 2, 1, 2, 1, 2])
    assert section(ROUNDS, clients, count=4)[0]["regions"] == [
        {"region": 1, "clients": 1, "best": 22, "last": 22}, {"region": 2, "clients": 2, "best": 28, "last": 28},
    ]  # fmt: skip
    rounds = ROUNDS.assign(region_uplink_bytes=[0, 0, 8_000], region_downlink_bytes=[0, 0, 9_000])
    levels = section(rounds, clients_of(TURNS), count=4)[0]["levels"]
    assert levels == [
        {"between": "clients and the servers of their regions", "uplink": 3_000_000, "downlink": 3_000_000},
        {"between": "servers of regions and the top", "uplink": 8_000, "downlink": 9_000},
    ]


def test_a_run_without_validation_or_uploads_has_the_rest() -> None:
    _, captions = section(ROUNDS.assign(psnr=NAN), clients_of([(1, "A", 0, 20, 0, "dropped")]), count=1)
    assert list(captions) == ["virtual-gantt"]


def test_the_gantt_chart_draws_turns_where_they_were() -> None:
    (axis,) = virtual_gantt(turns_of(ROUNDS, clients_of(TURNS)), ROUNDS).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["A", "B", "C"], "the fastest on top"
    spans = sorted(
        (round(box.y0 + 0.38), box.x0, box.x1)
        for bars in axis.collections[:-1] for box in (path.get_extents() for path in bars.get_paths())
    )  # fmt: skip
    assert spans == [(0, 0, 10), (0, 20, 30), (0, 30, 40), (1, 0, 20), (1, 20, 40), (2, 0, 30)]
    steps = axis.collections[-1].get_segments()
    assert [line[0][0] for line in steps] == [20, 30, 40]


def test_many_clients_are_a_sample_that_the_caption_says() -> None:
    rounds, clients = crowd(200, 100)
    _, captions = section(rounds, clients, count=200)
    assert "40 of the 200 clients that had a turn" in captions["virtual-gantt"]
    assert "up to round 60 of 200" in captions["virtual-gantt"], "60 turns of the fastest"
    (axis,) = virtual_gantt(turns_of(rounds, clients), rounds).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert (len(names), names[0], names[-1]) == (MOST_ROWS, "C-000", "C-199")
    assert axis.get_xlim() == (0, 60)


def test_the_histogram_has_shares_of_all_uploads() -> None:
    stale, steps = staleness_and_steps(staleness_counts(turns_of(ROUNDS, clients_of(TURNS))), ROUNDS).axes
    assert [bar.get_height() for bar in stale.patches] == pytest.approx([4 / 6, 2 / 6])
    assert list(steps.lines[0].get_ydata()) == [20, 10, 10]
    many = pd.Series(1, range(100))
    wide, _ = staleness_and_steps(many, ROUNDS).axes
    assert sum(bar.get_height() for bar in wide.patches) == pytest.approx(1)
    assert len(wide.patches) <= 40


def test_axes_have_readable_units() -> None:
    assert [time_unit(seconds)[1] for seconds in (0.1, 179, 180, 10_799, 10_800, 259_199, 259_200)] == [
        "s", "s", "min", "min", "h", "h", "days",
    ]  # fmt: skip


def test_a_round_says_when_it_ended_in_simulated_time() -> None:
    row = {"loss": 0.5, "psnr": 30.0}
    assert round_figures(row) == "loss 0.5000  PSNR 30.00 dB"
    assert round_figures({**row, "virtual_s": 7500.0}) == "loss 0.5000  PSNR 30.00 dB  simulated 2 h 5 min"


def test_watch_says_the_simulated_time_so_far_and_of_a_round() -> None:
    assert simulated_text(pd.Series([60.0, 120.0, 240.0])) == "4 min 0 s so far, 1 min 20 s per round"


def test_a_study_says_its_times_and_who_never_got_there() -> None:
    times = times_of(three_modes(), {}, "synchronous")
    assert list(times.sentences()) == [
        "buffered reaches 98 % of synchronous's best validation PSNR after 2 min 32 s of simulated time, "
        "1.97 times as fast as synchronous, 95 % CI [1.94, 2.01], p < 0.001 after Holm's correction for 1 comparison",
        "deadline reaches 98 % of synchronous's best validation PSNR with 2 of 3 seeds "
        "within 4 min 0 s of simulated time",
    ]
    columns = {column.head: [cell.text for cell in column.cells] for column in times.columns()}
    assert columns["reached by"] == ["3 of 3 seeds", "3 of 3 seeds", "2 of 3 seeds"]
    assert columns["simulated time [95 % CI]"][2] == "", "no mean over some of the seeds"
    assert times_of(three_modes().drop(columns="virtual_s"), {}, "synchronous").reached.empty


def test_an_interval_that_reaches_below_zero_says_so() -> None:
    curves = [curve("fedavg", seed, [10.0**seed, 2e3], [30, 30]) for seed in (1, 2, 3)]
    (told,) = [column for column in times_of(pd.concat(curves), {}, "fedavg").columns() if "simulated" in column.head]
    assert told.cells[0].text.startswith("6 min 10 s [below 0, ")


@pytest.mark.slow
def test_the_report_of_a_run_with_simulated_time(finished: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    rounds, clients = finished.rounds, pd.read_parquet(folder / "clients.parquet")
    rounds.assign(virtual_s=100.0 * rounds["round"]).to_parquet(folder / "rounds.parquet")
    begin = 100.0 * (clients["round"] - 1)
    timed = {"virtual_begin_s": begin, "virtual_end_s": begin + 50, "staleness": 0}
    clients.assign(**timed).to_parquet(folder / "clients.parquet")
    with (folder / "workload.yaml").open("a") as file:
        file.write("time: {mode: buffered, buffer: 2, latency_s: 50}\n")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<h2>Simulated time</h2>" in page
    assert "took <strong>3 min 20 s</strong> in mode <strong>buffered</strong>" in page
    assert "No upload was stale" in page
    assert {path.name for path in (folder / "figures").glob("virtual-*")} == {
        "virtual-quality.png", "virtual-gantt.png", "virtual-staleness.png",
    }  # fmt: skip


@pytest.mark.slow
def test_folds_are_no_seeds(finished: Run, tmp_path: Path) -> None:
    """Two runs of one method and seed, each with a fold of its own, give no time to quality."""
    content, rounds = read_yaml(finished.path / "workload.yaml"), finished.rounds
    for fold in (1, 2):
        folder = Path(shutil.copytree(finished.path, tmp_path / f"fold-{fold}"))
        rounds.assign(virtual_s=100.0 * rounds["round"]).to_parquet(folder / "rounds.parquet")
        folds = {**content["federation"], "folds": {"count": 2, "test": fold}}
        (folder / "workload.yaml").write_text(write_yaml({**content, "federation": folds, "time": {"latency_s": 50}}))
    told = StringIO()
    compare_runs([tmp_path / "fold-1", tmp_path / "fold-2"], None, None, Console(file=told, width=200))
    assert FOLDED in told.getvalue()
    assert "simulated time" not in told.getvalue()
