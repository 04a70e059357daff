"""Trackers: told what the ledger has, each round once, and never in the way of a run."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state.checkpoint import digest_of_arrays, read_state
from fedsim.engine.tracking import news, tracking
from fedsim.engine.tracking.news import CLIENT_COLUMNS, News
from fedsim.engine.tracking.tracking import tracked
from fedsim.trackers.tracked import Tracked
from fedsim.workload.schema import Workload
from tests.engine.conftest import assert_same

OWN = '''
import json, os, signal, time
from pathlib import Path
from fedsim.trackers.base import Tracker


class Lines(Tracker):
    """Writes what it is told, a line each."""

    trouble: str = ""
    _file: Path | None = None

    def begin(self, run):
        self._file = run.folder / "told.jsonl"
        self._tell(begins=run.name)

    def scalars(self, round_, values):
        if round_ == 2 and self.trouble:
            exec(self.trouble)
        self._tell(round=round_, values=dict(values))

    def end(self, status, digest, figures):
        self._tell(status=status, digest=digest, figures=[figure.name for figure in figures])

    def _tell(self, **what):
        with self._file.open("a") as file:
            file.write(json.dumps(what) + "\\n")
'''

Simulate = Callable[..., Run]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tracker in a file beside the workload, and time for it on a busy machine."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(tracking, "PATIENCE_S", 100.0)


def told(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "told.jsonl").read_text().splitlines()]


def scalars_told(run: Run) -> dict[int, dict[str, float]]:
    rows = [one for one in told(run) if "round" in one]
    assert len({one["round"] for one in rows}) == len(rows), "a round was told twice"
    return {one["round"]: one["values"] for one in rows}


def scalars_of(run: Run, clients: int = 50) -> dict[int, dict[str, float]]:
    """What the ledger has, as trackers name it."""
    found: dict[int, dict[str, float]] = {}
    for row in run.rounds.to_dict("records"):
        found[row["round"]] = {f"rounds/{key}": value for key, value in row.items() if key != "round"}
    named = run.clients["client"].unique()[:clients]
    for row in run.clients[run.clients["client"].isin(named)].to_dict("records"):
        found[row["round"]] |= {f"clients/{key}/{row['client']}": row[key] for key in CLIENT_COLUMNS}
    return {at: {key: float(x) for key, x in values.items() if not math.isnan(x)} for at, values in found.items()}


def digest(run: Run) -> str:
    return digest_of_arrays(read_state(run.path, 3))


OWN_TRACKER = "trackers=[own:Lines]"


def test_a_tracker_is_told_what_the_ledger_has_and_how_the_run_ended(simulate: Simulate, whole: Run) -> None:
    run = simulate(OWN_TRACKER)
    assert scalars_told(run) == scalars_of(run)
    assert told(run)[0] == {"begins": run.path.name}
    assert told(run)[-1] == {"status": "finished", "digest": digest(whole), "figures": []}
    assert_same(run, whole)


@pytest.mark.long
def test_a_resumed_run_tells_each_round_once(simulate: Simulate, tmp_path: Path) -> None:
    rounds = iter([False, True])
    simulate(OWN_TRACKER, out=tmp_path / "run", stop=lambda: next(rounds))
    run = simulate(OWN_TRACKER, out=tmp_path / "run", resume=True)
    assert [one["status"] for one in told(run) if "status" in one] == ["stopped", "finished"]
    assert scalars_told(run) == scalars_of(run)


def test_the_first_clients_alone_have_scalars(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "MOST_CLIENTS", 2)
    expected = scalars_of(whole, clients=2)
    assert len(whole.clients["client"].unique()) > 2
    assert dict(News(whole.path, 0).read()) == expected
    assert dict(News(whole.path, 2).read()) == {3: expected[3]}, "also when told by another process"


class Fails(Observer):
    """Ends a run with an error after a round."""

    def round_ends(self, row: Row) -> None:
        if row["round"] == 3:
            raise RuntimeError("the power fails")


@pytest.mark.slow
def test_a_round_that_is_repeated_is_told_once(simulate: Simulate, tmp_path: Path, whole: Run) -> None:
    keys, out = (OWN_TRACKER, "engine.checkpoint_every=2"), tmp_path / "run"
    with pytest.raises(RuntimeError, match="power"):
        simulate(*keys, out=out, observer=Fails())
    first = scalars_told(Run(out))
    assert sorted(first) == [1, 2, 3]
    run = simulate(*keys, out=out, resume=True)
    assert scalars_told(run) == first, "round 3, trained again, was told before"
    assert [one["status"] for one in told(run) if "status" in one] == ["failed", "finished"]
    assert told(run)[-1]["digest"] == digest(whole)


@pytest.mark.long
def test_a_tracker_that_is_added_later_is_told_the_whole_run(simulate: Simulate, tmp_path: Path) -> None:
    simulate(out=tmp_path / "run")
    run = simulate(OWN_TRACKER, out=tmp_path / "run", resume=True)
    assert scalars_told(run) == scalars_of(run)


def test_a_run_is_a_point_of_the_study_in_whose_folder_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tmp_path / "runs" / "all" / "fedavg" / "seed-1"
    point.mkdir(parents=True)
    assert Tracked(folder=point, tracker="mlflow").study is None, "there is no study there"
    (tmp_path / "study.yaml").touch()
    monkeypatch.chdir(point.parent)
    for path in (point, Path("seed-1"), Path("../fedavg/seed-1")):
        run = Tracked(folder=path, tracker="mlflow")
        assert run.name == "all/fedavg/seed-1"
        assert run.study == Tracked(folder=tmp_path, tracker="mlflow")
        assert run.store == tmp_path
    for path in (tmp_path, point.parent, point / "another", Path("/")):
        assert Tracked(folder=path, tracker="mlflow").study is None


@pytest.mark.slow
def test_a_study_is_told_how_it_ended(workload: Callable[..., Workload], tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: tiny")
    with tracked(workload(OWN_TRACKER).trackers, tmp_path) as trackers:
        trackers.end("stopped")
    ends = {"status": "stopped", "digest": "", "figures": []}
    assert [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()][1:] == [ends]


TROUBLES = {
    "raises": (
        "raise OSError('no network')",
        100.0,
        "tracker own:Lines: OSError: no network (in scalars of own:Lines)",
    ),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", 100.0, "its process was killed (status -9)"),
    "exits": ("raise SystemExit", 100.0, "SystemExit"),
    "hangs": ("time.sleep(1000)", 0.0, "is not done"),
}
"""By what a tracker does: its code, the patience with it [s], and the warning."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        "is killed",
        "hangs",
        pytest.param("raises", marks=pytest.mark.long),
        pytest.param("exits", marks=pytest.mark.long),
    ],
)
def test_a_tracker_in_trouble_costs_a_warning_and_is_told_the_rest_later(
    simulate: Simulate, whole: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    tmp_path: Path, trouble: str,
) -> None:  # fmt: skip
    code, patience, warning = TROUBLES[trouble]
    monkeypatch.setattr(tracking, "PATIENCE_S", patience)
    with caplog.at_level(logging.WARNING, "fedsim"):
        run = simulate(f"trackers=[{{name: 'own:Lines', trouble: {json.dumps(code)}}}]", out=tmp_path / "run")
    (said,) = (record.getMessage() for record in caplog.records if "tracker" in record.getMessage())
    assert warning in said
    assert said.endswith("has everything, and a resumed run tells it the rest")
    assert_same(run, whole)
    monkeypatch.setattr(tracking, "PATIENCE_S", 100.0)
    again = simulate(OWN_TRACKER, out=tmp_path / "run", resume=True)
    assert scalars_told(again) == scalars_of(again)
    assert told(again)[-1]["digest"] == digest(whole)


def test_a_missing_library_is_one_line(simulate: Simulate, tmp_path: Path) -> None:
    more = OWN.replace('trouble: str = ""', 'packages = ("a_library.that_is_not_there",)')
    (tmp_path / "needy.py").write_text(more)
    with pytest.raises(
        InputError, match=r"^trackers: needy:Lines needs a_library, which is not installed; pip install"
    ):
        simulate("trackers=[needy:Lines]", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trackers_are_not_part_of_what_a_run_is(workload: Callable[..., Workload]) -> None:
    plain = workload().model_dump(mode="json")
    with_trackers = workload("trackers=[tensorboard, {name: mlflow}]").model_dump(mode="json")
    assert with_trackers.pop("trackers") == ["tensorboard", "mlflow"]
    assert plain.pop("trackers") == []
    assert with_trackers == plain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[tensorbord]", "unknown 'tensorbord'; did you mean 'tensorboard'"),
        ("[{name: mlflow, port: 1}]", "unknown key"),
        ("[mlflow, tensorboard, {name: mlflow}]", "^.*trackers: mlflow is listed twice; list each once$"),
        ("[nowhere:Tracker]", "nowhere cannot be imported"),
        ("[fedsim.trackers.base:Tracker]", "Tracker of fedsim.trackers.base must define begin and end and scalars"),
    ],
)
def test_a_wrong_tracker_is_refused(workload: Callable[..., Workload], given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        workload(f"trackers={given}")
