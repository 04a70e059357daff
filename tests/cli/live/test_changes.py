"""What becomes of a live page while folders below it are deleted, replaced, or written over with something else."""

import math
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from fedsim.cli.live import overview
from fedsim.cli.live.overview import LiveFolder, LiveStudy
from fedsim.cli.live.run import LiveRun
from fedsim.cli.live.subject import Subject
from fedsim.cli.watch_run import WatchedRun
from fedsim.core.errors import DamagedError, InputError
from fedsim.engine.record.ledger import write_table
from fedsim.engine.record.run_directory import Run
from fedsim.study.frozen import freeze
from fedsim.study.study import load_study
from tests.cli.conftest import PAIR

from .conftest import Make, Serve
from .made import MadeRun


def told(subject: Subject) -> dict[str, Any]:
    """What a page says after two looks: what cannot be read at one is tried again before it is said."""
    for _ in range(2):
        subject.look()
    return dict(subject.sections())


def damaged(run: MadeRun, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = change(Run(run.path).rounds)
    shutil.rmtree(run.path / "rounds.parquet")
    write_table(run.path / "rounds.parquet", table)


def test_a_run_that_is_deleted_is_said_and_what_was_known_stays(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(3)
    shown = LiveRun(run.path, "run")
    before = told(shown)
    shutil.rmtree(run.path)
    after = told(shown)
    assert after["unreadable"] == [f"{run.path}: is no run any longer; it was moved or deleted"]
    assert after["state"] == {**before["state"], "state": "gone"}
    assert {name: after[name] for name in ("cells", "facts")} == {name: before[name] for name in ("cells", "facts")}


def test_a_run_that_takes_the_place_of_another_is_shown_from_its_beginning(make: Make, tmp_path: Path) -> None:
    old = make(tmp_path / "run", 3, 3)
    old.rounds(3)
    shown = LiveRun(old.path, "run")
    assert told(shown)["state"]["reached"] == 3
    shutil.rmtree(old.path)
    new = make(tmp_path / "run", 5, 5)
    begun = told(shown)
    assert (begun["state"]["reached"], begun["facts"], begun["unreadable"]) == (0, [], [])
    assert len(begun["names"]) == len(begun["lines"]) == 5
    new.rounds(1)
    assert told(shown)["cells"]["states"] == "ttttt"


def test_the_terminal_does_not_wait_for_a_run_that_is_gone(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    watched = WatchedRun(run.path)
    shutil.rmtree(run.path)
    watched.look()
    with pytest.raises(InputError, match="is no run any longer"):
        watched.look()


@pytest.mark.parametrize(
    "change",
    [
        lambda rounds: rounds.assign(seconds=float("nan")),
        lambda rounds: rounds.assign(uplink_bytes=float("inf")),
        lambda rounds: rounds.assign(round=["one", "two"]),
        lambda rounds: rounds.drop(columns="psnr"),
    ],
    ids=["no number", "infinite", "text", "a column less"],
)
def test_a_table_of_rounds_that_is_none_is_named(
    make: Make, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(2)
    damaged(run, change)
    watched = WatchedRun(run.path)
    watched.look()
    with pytest.raises(DamagedError, match=r"rounds\.parquet: is another table, or lacks a number in one of"):
        watched.look()
    (line,) = told(LiveRun(run.path, "run"))["unreadable"]
    assert line.startswith(f"{run.path / 'rounds.parquet'}: is another table")


def test_slices_that_would_fill_the_memory_are_not_shown(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    file = run.path / "images" / "S0" / "v.h5"
    file.parent.mkdir(parents=True)
    with h5py.File(file, "w") as written:
        for name in ("target", "zero_filled", "reconstruction"):
            written.create_dataset(name, (1, 4000, 4000), np.float32, chunks=(1, 100, 100), fillvalue=1.0)
    assert file.stat().st_size < 10_000
    shown = told(LiveRun(run.path, "run"))
    (line,) = shown["unreadable"]
    assert (shown["image"], "slices of 4000 x 4000 are too large to be shown" in line) == ("", True)


def test_scores_that_are_no_numbers_are_left_out(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(2)
    damaged(run, lambda rounds: rounds.assign(psnr=[float("inf"), float("nan")], loss=float("nan")))
    assert told(LiveRun(run.path, "run"))["unreadable"] == []
    run.path.rename(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "run")
    (row,) = told(LiveFolder(tmp_path))["items"]["rows"]
    assert row[1:6] == ["run", "stopped", 2, 40, None]


def test_one_that_cannot_be_read_or_is_gone_hides_no_other(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "_OPEN_FOR_S", math.inf)  # all at the first look
    runs = {name: make(tmp_path / "runs" / name, 3, 3) for name in ("bad", "gone", "good")}
    for run in runs.values():
        run.rounds(1)
    runs["bad"].fail("S0", "as told")
    folder = LiveFolder(tmp_path / "runs")
    folder.look()
    (runs["bad"].path / "failures.parquet").write_bytes(b"PAR1 half of it")
    shutil.rmtree(runs["gone"].path)
    rows = {row[1]: row for row in told(folder)["items"]["rows"]}
    assert {name: row[2] for name, row in rows.items()} == {"bad": "damaged", "gone": "gone", "good": "stopped"}
    assert rows["bad"][-1].startswith("failures.parquet: is damaged")
    assert "is no run any longer" in rows["gone"][-1]


def test_a_study_counts_its_points_as_it_shows_them(make: Make, workload: Path, tmp_path: Path) -> None:
    """The folder of a point says whether it is still written; that of a study does not."""
    (tmp_path / "pair.yaml").write_text(PAIR)
    plan, folder = load_study(tmp_path / "pair.yaml"), tmp_path / "pair"
    freeze(plan, folder)
    first, _ = plan.examples()
    MadeRun(folder / first.folder, first.workload).rounds(1)
    shown = told(LiveStudy(folder, "pair"))
    assert [row[2] for row in shown["items"]["rows"]] == ["stopped", "not started"]
    assert shown["head"]["about"].endswith(" · 1 stopped, 1 not started")


@pytest.mark.parametrize(
    ("line", "status"), [("GET http://[/", 403), ("GET //", 403), ("GET ?", 403), ("POST /", 501), ("HEAD /", 501)]
)
def test_every_request_is_answered(make: Make, serve: Serve, tmp_path: Path, line: str, status: int) -> None:
    server = serve(make(tmp_path / "run", 3, 3).path)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            assert answer.readline().split()[1] == str(status).encode()
