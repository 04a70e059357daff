import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedsim import Run
from fedsim.analysis.timeline import (
    PHASES,
    Timeline,
    actor_shares,
    actor_totals,
    client_times,
    engine_facts,
    overlapping,
    round_shares,
    spans,
    stragglers,
    sum_levels,
    summary,
    time_in,
    timeline_of,
)
from fedsim.report.figures import save_figure
from fedsim.report.gantt import MOST_NAMES, MOST_ROWS, MOST_SPANS, gantt
from fedsim.report.report import write_report

NAN = math.nan


def ledger(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """clients.parquet; a row is (round, client, pid, begin, load, train, send, evaluate_begin, evaluate)."""
    columns = ["round", "client", "pid", "begin", "load", "train", "send", "evaluate_begin", "evaluate"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.rename(columns={column: f"{column}_seconds" for column in columns[3:]})
    frame["node"] = frame["pid"].map(lambda pid: "n" if pid else "")
    return frame.assign(wait_seconds=frame["begin_seconds"].fillna(0.0), samples=range(len(frame)))


def of(rows: list[tuple[Any, ...]], *rounds: tuple[int, float, int]) -> Timeline:
    """A timeline; rounds are (round, seconds, slots)."""
    timeline = timeline_of(pd.DataFrame(rounds, columns=["round", "seconds", "slots"]), ledger(rows))
    assert timeline is not None
    return timeline


@pytest.fixture
def small() -> Timeline:
    """Two rounds, two actors: B rests in the second, in which D is validated without training."""
    rows = [
        (1, "A", 1, 0.0, 1.0, 2.0, 1.0, 6.0, 1.0),
        (1, "B", 1, 4.0, 0.5, 1.0, 0.5, 7.0, 1.0),
        (1, "C", 2, 0.0, 1.0, 4.0, 1.0, NAN, 0.0),
        (1, "D", 0, NAN, 0.0, 0.0, 0.0, NAN, 0.0),
        (2, "A", 1, 0.0, 0.0, 2.0, 0.0, NAN, 0.0),
        (2, "B", 0, NAN, 0.0, 0.0, 0.0, NAN, 0.0),
        (2, "C", 2, 0.0, 0.0, 3.0, 0.0, NAN, 0.0),
        (2, "D", 2, NAN, 0.0, 0.0, 0.0, 3.5, 0.5),
    ]
    return of(rows, (1, 10.0, 2), (2, 5.0, 2))


def crowd(actors: int, clients: int) -> Timeline:
    """One round of actors that work one after another; actor i has clients that train for 1 + i / 1000 s."""
    rows = [
        (1, f"C{actor}-{i}", actor + 1, 2.0 * i + actor / 100, 0.1, 1 + actor / 1000, 0.1, NAN, 0.0)
        for actor in range(actors)
        for i in range(clients)
    ]
    return of(rows, (1, 2.0 * clients + actors, 2))


def labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


# Numbers


def test_the_time_of_a_round_is_shared_out(small: Timeline) -> None:
    shares = round_shares(small)
    np.testing.assert_allclose(shares.loc[1, list(PHASES)].to_numpy(float), [2.5 / 20, 7 / 20, 2.5 / 20, 2 / 20])
    np.testing.assert_allclose(shares["idle"], [6 / 20, 4.5 / 10])
    np.testing.assert_allclose(shares["overhead"], [20 / 9 - 1, 10 / 5.5 - 1])
    np.testing.assert_allclose(shares[[*PHASES, "idle"]].sum(axis=1), 1)


def test_the_first_round_stands_apart_and_the_others_are_pooled(small: Timeline) -> None:
    third = (3, "A", 1, 0.0, 0.0, 9.0, 1.0, NAN, 0.0)
    clients = pd.concat([small.turns, ledger([third, (3, "C", 2, 0.0, 0.0, 5.0, 0.0, NAN, 0.0)])])
    rounds = pd.DataFrame({"round": [1, 2, 3], "seconds": [10.0, 5.0, 10.0], "slots": [2, 2, 2]})
    timeline = timeline_of(rounds, clients)
    assert timeline is not None
    table = summary(timeline)
    assert list(table["rounds"]) == ["1", "2 to 3"]
    assert list(table["seconds"]) == [10, 7.5]
    assert list(table["slots"]) == ["2", "2"]
    np.testing.assert_allclose(table["overhead"], [20 / 9 - 1, 30 / 19.5 - 1])
    np.testing.assert_allclose(table["most"], [20 / 9 - 1, 10 / 5.5 - 1])
    np.testing.assert_allclose(table["least"], [20 / 9 - 1, 20 / 14 - 1])
    np.testing.assert_allclose(table["train"], [7 / 20, 19 / 30])


def test_slots_that_no_client_could_use_are_no_overhead() -> None:
    timeline = of([(1, "A", 1, 0.0, 1.0, 8.0, 1.0, NAN, 0.0)], (1, 10.0, 16))
    np.testing.assert_allclose(
        round_shares(timeline).loc[1, ["train", "idle", "overhead"]].to_numpy(float), [0.8, 0, 0.25]
    )


def test_a_round_without_work_has_no_overhead() -> None:
    timeline = of([(1, "A", 1, 0.0, 1.0, 8.0, 1.0, NAN, 0.0)], (1, 10.0, 1), (2, 1.0, 1))
    assert math.isnan(round_shares(timeline).loc[2, "overhead"])


def test_actors_are_idle_when_they_do_nothing(small: Timeline) -> None:
    table = actor_shares(small).set_index(["actor", "round"])
    assert dict(table["busy"]) == {("n:1", 1): 8, ("n:2", 1): 6, ("n:1", 2): 2, ("n:2", 2): 3.5}
    assert dict(table["clients"]) == {("n:1", 1): 2, ("n:2", 1): 1, ("n:1", 2): 1, ("n:2", 2): 2}
    np.testing.assert_allclose(table["idle"], [0.2, 0.4, 0.6, 0.3])
    totals = actor_totals(small)
    assert list(totals["actor"]) == ["n:1", "n:2"]
    assert list(totals["clients"]) == [2, 2]
    np.testing.assert_allclose(totals["idle"], [1 - 10 / 15, 1 - 9.5 / 15])


def test_times_are_those_of_clients_that_worked(small: Timeline) -> None:
    table = client_times(small).set_index("phase")
    assert list(table.index) == ["wait", "load", "train", "send", "evaluate"]
    np.testing.assert_allclose(table.loc["train"], [2, 3.6, 4])  # of 1, 2, 2, 3, 4
    np.testing.assert_allclose(table.loc["wait"], [0, 2.4, 4])  # of 0, 0, 0, 0, 4
    np.testing.assert_allclose(table.loc["evaluate"], [1, 1, 1])  # of 0.5, 1, 1


def test_stragglers_are_above_the_median_client(small: Timeline) -> None:
    (slow,) = stragglers(small).to_dict("records")  # A, B, C take 3, 2 and 4.5 s in the median of their rounds
    assert slow == {"client": "C", "samples": 2, "seconds": 4.5, "ratio": 1.5}


def test_only_the_slowest_are_listed() -> None:
    table = stragglers(crowd(20, 1), most=3)
    assert list(table["client"]) == ["C19-0", "C18-0", "C17-0"]
    assert stragglers(crowd(1, 20)).empty


def test_more_actors_than_slots_take_turns(small: Timeline) -> None:
    assert not engine_facts(small)["take_turns"]
    many = engine_facts(crowd(9, 1))
    assert many["take_turns"]
    assert (many["actor_count"], many["actors"]) == (9, [])  # too many for a table
    assert many["idle"]["least"] == pytest.approx(1 - 1.208 / 11)
    assert many["idle"]["most"] == pytest.approx(1 - 1.2 / 11)


def test_spans_follow_each_other(small: Timeline) -> None:
    done = spans(small.turns[small.turns["round"] == 1])
    begins = done[done["client"] == "B"].set_index("phase")["begin"]
    assert dict(begins) == {"load": 4, "train": 4.5, "send": 5.5, "evaluate": 7}
    assert set(done.loc[done["client"] == "C", "phase"]) == {"load", "train", "send"}
    assert not overlapping(done, 10)
    assert overlapping(done.assign(seconds=done["seconds"] + 0.1), 10)


def test_time_is_counted_where_it_was_spent(small: Timeline) -> None:
    done = spans(small.turns[small.turns["round"] == 1])
    train = done[(done["phase"] == "train") & (done["actor"] == "n:1")]  # 1 to 3 and 4.5 to 5.5
    np.testing.assert_allclose(time_in(train, np.array([0.0, 2, 5, 10])), [1, 1.5, 0.5])


def test_rounds_that_were_kept_before_times_were_do_not_count(small: Timeline) -> None:
    rounds = small.rounds.reset_index().assign(slots=[NAN, 2])
    timeline = timeline_of(rounds, small.turns)
    assert timeline is not None
    assert list(timeline.rounds.index) == [2]
    assert set(timeline.turns["round"]) == {2}


@pytest.mark.parametrize("column", ["begin_seconds", "wait_seconds", "send_seconds", "evaluate_begin_seconds", "node"])
def test_an_old_ledger_has_no_timeline(small: Timeline, column: str) -> None:
    rounds = small.rounds.reset_index()
    assert timeline_of(rounds, small.turns.drop(columns=column)) is None
    assert timeline_of(rounds.drop(columns="slots"), small.turns) is None
    assert timeline_of(pd.DataFrame(), pd.DataFrame()) is None


# Figure


@pytest.mark.slow
@pytest.mark.parametrize(("actors", "clients"), [(1, 1), (2, 16), (30, 1), (MOST_ROWS, 2), (2, 1000)])
def test_a_figure_has_a_row_an_actor(tmp_path: Path, actors: int, clients: int) -> None:
    figure = gantt(crowd(actors, clients), 1)
    assert labels(figure) == [f"n:{actor + 1}" for actor in range(actors)]  # in the order in which they begin
    with Image.open(save_figure(figure, tmp_path / "timeline.png")) as image:
        width, height = image.size
    assert 900 < width < 2000
    assert 300 < height < 1500


@pytest.mark.slow
def test_of_too_many_actors_the_slow_and_the_fast_are_drawn() -> None:
    figure = gantt(crowd(100, 1), 1)
    slow, fast = [f"n:{pid}" for pid in range(100, 80, -1)], [f"n:{pid}" for pid in range(20, 0, -1)]
    assert labels(figure) == slow + fast
    assert "20 busiest and the 20 least busy of 100 actors" in figure.axes[0].get_title(loc="left")


def test_clients_are_named_while_there_is_room() -> None:
    assert names(gantt(crowd(2, 3), 1)) == ["C0-0", "C0-1", "C0-2", "C1-0", "C1-1", "C1-2"]
    assert not names(gantt(crowd(1, MOST_NAMES + 1), 1))


def test_a_row_of_very_many_clients_stays_small() -> None:
    few, many = gantt(crowd(1, MOST_SPANS), 1), gantt(crowd(1, 10 * MOST_SPANS), 1)
    assert "share of the time" not in few.axes[0].get_title(loc="left")
    assert "share of the time" in many.axes[0].get_title(loc="left")
    shapes = many.axes[0].patches
    assert len(shapes) == len(PHASES)
    height = {shape.get_facecolor(): 0.4 - shape.get_data().values[0] for shape in shapes}
    assert max(height.values()) == pytest.approx(0.8 * 1.2 / 2, rel=0.01)  # of every 2 s it works for 1.2


# Report


def report_text(finished: Run, folder: Path, rounds: pd.DataFrame, clients: pd.DataFrame) -> str:
    copy = shutil.copytree(finished.path, folder / "run", ignore=shutil.ignore_patterns("figures", "report.html"))
    rounds.to_parquet(copy / "rounds.parquet")
    clients.to_parquet(copy / "clients.parquet")
    return " ".join(re.sub("<[^>]+>", " ", write_report(copy).read_text(encoding="utf-8")).split())


def timed(finished: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ledger of four clients on two actors: of 10 s a round, each client trains for 3 and is validated for 1."""
    clients, place = finished.clients, finished.clients.groupby("round").cumcount()
    begin = place % 2 * 3.5
    clients = clients.assign(
        begin_seconds=begin, wait_seconds=begin, load_seconds=0.1, train_seconds=3.0, send_seconds=0.4,
        evaluate_begin_seconds=7 + place % 2, evaluate_seconds=1.0, node="host", pid=1 + place // 2,
    )  # fmt: skip
    return finished.rounds.assign(seconds=10.0, slots=2), clients


def test_the_levels_of_sums_are_those_that_added_anything() -> None:
    columns = {f"{level}_sum_bytes": [size] * 3 for level, size in (("driver", 10), ("group", 0), ("node", 40))}
    columns |= {f"{level}_sum_seconds": [0.5, 0.1, 0.2] for level in ("driver", "group", "node")}
    assert sum_levels(pd.DataFrame(columns)) == [
        {"level": "node", "bytes": 40.0, "seconds": 0.2},
        {"level": "driver", "bytes": 10.0, "seconds": 0.2},
    ]
    assert sum_levels(pd.DataFrame({"round": [1]})) == [], "of an older run"


@pytest.mark.slow
def test_the_report_says_where_the_time_went(finished: Run, tmp_path: Path) -> None:
    text = report_text(finished, tmp_path, *timed(finished))
    for words in (
        "Engine: where the time went", "Overhead = slots × seconds of the round / sum(train + evaluate seconds) − 1",
        "1 (the first) 10.00 s 2 60.0 20.0 2.0 8.0 10.0 25.0 25.0", "2 10.00 s 2 60.0", "train 3.00 s 3.00 s 3.00 s",
        "host:1 2 18.00 s 20.00 s 10.0", "Idle share of 2 actors", "Sums on their way to the server", "by the driver",
    ):  # fmt: skip
        assert words in text
    assert "Stragglers" not in text  # all are alike
    assert "Spans overlap" not in text
    assert (tmp_path / "run" / "figures" / "timeline.png").exists()


@pytest.mark.slow
def test_phases_that_were_added_up_are_pointed_out(finished: Run, tmp_path: Path) -> None:
    rounds, clients = timed(finished)
    assert "Spans overlap" in report_text(finished, tmp_path, rounds, clients.assign(begin_seconds=0.0))


@pytest.mark.slow
def test_an_old_run_has_no_such_section(finished: Run, tmp_path: Path) -> None:
    rounds, clients = timed(finished)
    old = clients.drop(columns=["begin_seconds", "load_seconds", "send_seconds"])
    assert "Engine" not in report_text(finished, tmp_path, rounds.drop(columns="slots"), old)
    assert not (tmp_path / "run" / "figures" / "timeline.png").exists()
