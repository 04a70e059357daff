"""What travels with a job: the files of own classes, a trace, and what networks start from."""

import json
import shutil
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.kept import files_of
from fedsim.jobs.common import as_bytes
from fedsim.jobs.sending import submit_all
from fedsim.jobs.submission import prepare
from fedsim.jobs.target import Submission
from fedsim.study.frozen import freeze
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload

from .nodes import Nodes

METHOD = """
from typing import Literal
from fedsim.algorithms.fedavg import FedAvg
class Algorithm(FedAvg):
    name: Literal["mine:Algorithm"] = "mine:Algorithm"
"""


def test_a_users_own_method_goes_along(workload: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    submission = prepare(workload, ["algorithm.name=mine:Algorithm"], None, None).submission
    assert submission.files["mine.py"] == METHOD
    (tmp_path / "mine.py").write_text(METHOD + "# " + "x" * 1_000_000)
    with pytest.raises(InputError, match=r"tiny: with its method's file it has 1,0\d\d,\d\d\d bytes"):
        prepare(workload, ["algorithm.name=mine:Algorithm"], None, None)


def test_a_trace_and_a_start_go_along(workload: Path, tmp_path: Path) -> None:
    """What is too large, or is not here, keeps its path."""
    trace, start, there = "client,from_s,to_s\nA,0,4\n", b"\xff\x00 numbers", tmp_path / "there"
    (tmp_path / "night.csv").write_text(trace)
    (tmp_path / "start.safetensors").write_bytes(start)
    keys = ["training.init=start.safetensors", "time={latency_s: 1, available: {trace: night.csv}}"]
    sent = prepare(workload, keys, None, None).submission
    loaded = load_workload(written(sent, there) / "workload.yaml")
    found = files_of(loaded).values()
    assert {file and file.parent for file in found} == {there}
    assert [file and file.read_bytes() for file in found] == [start, trace.encode()]
    (tmp_path / "start.safetensors").write_bytes(start + b"0")
    assert prepare(workload, keys, None, None).submission.id != sent.id
    (tmp_path / "start.safetensors").write_bytes(b"0" * 1_000_001)
    (tmp_path / "night.csv").unlink()
    loaded = load_workload(written(prepare(workload, keys, None, None).submission, there) / "workload.yaml")
    assert loaded.training.init == tmp_path / "start.safetensors"


def test_a_trace_that_a_study_names_goes_along(workload: Path, tmp_path: Path) -> None:
    (tmp_path / "night.csv").write_text("client,from_s,to_s\nA,0,4\n")
    timed = {"time.latency_s": 1, "time.available.trace": "night.csv"}
    study = {"name": "pair", "kind": "compare", "workload": "tiny.yaml", "seeds": [1],
             "methods": {"fedavg": {}, "late": {"algorithm.name": "fedavg", **timed}}}  # fmt: skip
    (tmp_path / "pair.yaml").write_text(json.dumps(study))
    there = written(prepare(tmp_path / "pair.yaml", [], None, None).submission, tmp_path / "there")
    (late,) = (one.workload for one in load_study(there / "study.yaml").examples() if one.method == "late")
    trace = files_of(late)["time.available.trace"]
    assert trace is not None
    assert trace.parent == there
    assert trace.read_text() == (tmp_path / "night.csv").read_text()
    plan = load_study(there / "study.yaml")
    freeze(plan, tmp_path / "study")
    shutil.rmtree(there)
    (late,) = (one.workload for one in load_study(tmp_path / "study" / "study.yaml").examples() if one.method == "late")
    trace = files_of(late)["time.available.trace"]
    assert trace is not None
    assert trace.parent == tmp_path / "study", "the study goes on without the job's folder"
    assert trace.read_text() == (tmp_path / "night.csv").read_text()


def written(submission: Submission, folder: Path) -> Path:
    """A folder with what is sent."""
    folder.mkdir(exist_ok=True)
    for name, content in submission.files.items():
        (folder / name).write_bytes(as_bytes(content))
    return folder


def test_what_is_too_large_to_be_sent_is_told(workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, or together with what else is sent."""
    trace = tmp_path / "night.csv"
    trace.write_text("client,from_s,to_s\nB,0,4\n")
    (tmp_path / "mine.py").write_text(METHOD)
    size, keys = trace.stat().st_size, ["time={latency_s: 1, available: {trace: night.csv}}"]
    own = [*keys, "algorithm.name=mine:Algorithm"]
    for most, given, lines in ((size, keys, 0), (size - 1, keys, 1), (size + len(METHOD), own, 0), (size, own, 1)):
        monkeypatch.setattr("fedsim.jobs.submission._MOST_COPIED", most)
        told = list[str]()
        submit_all(Nodes("two", ""), [prepare(workload, given, None, None)], told.append)
        assert told.count(f"{trace} is too large to be sent; the cluster needs it under the same path") == lines
