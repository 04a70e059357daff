"""What a submission is made of: everything resolved, and one id for one content and folder."""

import json
import re
from pathlib import Path

import pytest

from fedsim.engine.machine import Room
from fedsim.engine.placement import Node
from fedsim.errors import InputError
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.sending import send
from fedsim.jobs.submission import prepare
from fedsim.jobs.target import Status, Submission
from fedsim.study.study import load_study
from fedsim.workload import load_workload, write_yaml

METHOD = """
from typing import Literal
from fedsim.algorithms.fedavg import FedAvg
class Algorithm(FedAvg):
    name: Literal["mine:Algorithm"] = "mine:Algorithm"
"""


def test_the_workload_means_the_same_elsewhere(workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    keys = ["federation.root=data", "federation.cache=shards", "engine.scratch=scratch", "training.lr=0.5"]
    job = prepare(workload, keys, None, None)
    assert job.submission.out == tmp_path / "runs" / "tiny"
    assert job.submission.arguments == ("run", "workload.yaml", "--resume", "--out", str(job.submission.out))
    assert (job.name, job.kind, list(job.submission.files)) == ("tiny", "run", ["workload.yaml"])
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    (there / "workload.yaml").write_text(job.submission.files["workload.yaml"])
    assert load_workload(there / "workload.yaml") == job.workloads[0]
    assert job.workloads[0].federation.cache == tmp_path / "shards"
    assert job.workloads[0].training.lr == 0.5


def test_an_id_is_of_content_and_folder(workload: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = prepare(workload, [], out, None).submission
    assert prepare(workload, [], out, None).submission == one
    again = tmp_path / "copy.yaml"
    again.write_text(workload.read_text() + "\n# the same in other words\n")
    assert prepare(again, ["training.rounds=2"], out, None).submission == one
    others = {prepare(workload, keys, to, None).submission.id for keys, to in (
        ([], tmp_path / "other"), (["seed=6"], out), (["training.rounds=3"], out), (["engine.retries=4"], out),
    )}  # fmt: skip
    assert len(others - {one.id}) == 4


@pytest.mark.parametrize("name", ["a", "A_b-C", "x" * 64, "a" * 26 + "_" + "b"])
def test_an_id_is_a_name_anywhere(workload: Path, name: str) -> None:
    job = prepare(workload, [f"name={name}"], None, None).submission.id
    assert re.fullmatch(r"fedsim-[a-z0-9]+(-[a-z0-9]+)*", job)
    assert len(job) <= 45


def test_a_cluster_with_a_folder_of_its_own(workload: Path) -> None:
    shared = Path("/shared/runs")
    assert prepare(workload, [], None, shared).submission.out == shared / "tiny"
    assert prepare(workload, [], Path("a/b"), shared).submission.out == shared / "a" / "b"
    assert prepare(workload, [], Path("/else/where"), shared).submission.out == Path("/else/where")


def test_a_users_own_method_goes_along(workload: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    submission = prepare(workload, ["algorithm.name=mine:Algorithm"], None, None).submission
    assert submission.files["mine.py"] == METHOD
    (tmp_path / "mine.py").write_text(METHOD + "# " + "x" * 1_000_000)
    with pytest.raises(InputError, match=r"tiny\.yaml: with its method's file it has 1,0\d\d,\d\d\d bytes"):
        prepare(workload, ["algorithm.name=mine:Algorithm"], None, None)


def test_a_study_is_told_by_its_workload(workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = {"name": "pair", "kind": "compare", "workload": "tiny.yaml", "seeds": [1, 2], "reference": "fedavg",
             "set": {"federation.cache": "shards"}, "methods": {"fedavg": {}, "fedbn": {}}}  # fmt: skip
    (tmp_path / "pair.yaml").write_text(json.dumps(study))
    job = prepare(tmp_path / "pair.yaml", ["seeds=[3]"], None, None)
    assert job.submission.arguments == ("study", "study.yaml", "--out", str(tmp_path / "studies" / "pair"))
    assert (job.kind, len(job.workloads), sorted(job.submission.files)) == ("study", 2, ["base.yaml", "study.yaml"])
    there = tmp_path / "there"
    there.mkdir()
    for name, text in job.submission.files.items():
        (there / name).write_text(text)
    monkeypatch.chdir(there)
    points = load_study(there / "study.yaml").finals({("all", "fedavg"): 0})
    assert [(point.seed, point.workload.federation.cache) for point in points] == [(3, tmp_path / "shards")]
    assert prepare(tmp_path / "pair.yaml", [], None, Path("/shared")).submission.out == Path("/shared/pair")


def test_imported_sites_go_where_all_nodes_of_the_cluster_see_them(workload: Path) -> None:
    text = workload.read_text().replace("  cache:", "  # cache:")
    workload.write_text(text)
    shared = Path("/shared/runs")
    assert prepare(workload, [], None, shared).workloads[0].federation.cache == shared / "cache"
    assert prepare(workload, [], None, None).workloads[0].federation.cache != shared / "cache"
    given = prepare(workload, ["federation.cache=/fast"], None, shared)
    assert given.workloads[0].federation.cache == Path("/fast")


@pytest.mark.parametrize("keys", [["set.engine.backend=serial"], ["nodes=[1, 2]", "kind=scaling-strong"]])
def test_a_study_for_other_nodes_than_this_machine_fits(workload: Path, tmp_path: Path, keys: list[str]) -> None:
    study = {"name": "few", "kind": "client-count", "workload": "tiny.yaml", "seeds": [1], "methods": {"fedavg": {}}}
    study |= {"clients": [2, 3]} if len(keys) == 1 else {}
    (tmp_path / "few.yaml").write_text(write_yaml(study))
    job, told = prepare(tmp_path / "few.yaml", keys, None, None), list[str]()
    target = Nodes("two", "")
    send(target, job, told.append)
    assert target.sent == [job.submission]
    assert job.kind == "study"


class Nodes(RayJobs):
    """A cluster of two nodes that takes a job."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self.sent: list[Submission] = []

    def rooms(self) -> tuple[Room, ...]:
        return tuple(Room(Node(name, 2, 0, 8e9), 16e9, None, name) for name in ("a", "b"))

    def status(self, submission_id: str) -> Status:
        return Status("unknown")

    def submit(self, submission: Submission) -> None:
        self.sent.append(submission)
