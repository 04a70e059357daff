"""What a submission is made of: everything resolved, and one id for one content and folder."""

import json
import re
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.ledger import read_table
from fedsim.engine.simulation import run
from fedsim.jobs.sending import submit_all
from fedsim.jobs.submission import prepare, prepare_points
from fedsim.study.runner import run_study
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload, write_yaml

from .conftest import Fedsim
from .nodes import Nodes


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
    points = [point for point in load_study(there / "study.yaml").examples() if point.method == "fedavg"]
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
    submit_all(target, [job], told.append)
    assert target.sent == [job.submission]
    assert job.kind == "study"


@pytest.mark.long
def test_a_study_may_be_a_job_a_point(workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = {"name": "few", "kind": "client-count", "clients": [2, 3], "workload": "tiny.yaml", "seeds": [1, 2],
             "set": {"engine.backend": "serial"}, "methods": {"fedavg": {}}}  # fmt: skip
    file = tmp_path / "few.yaml"
    file.write_text(write_yaml(study))
    jobs, begin = prepare_points(file, [], None)
    folder = tmp_path / "studies" / "few"
    assert not folder.exists(), "looked only"
    assert [job.submission.out for job in jobs] == [
        folder / "runs" / f"clients-{count}" / "fedavg" / f"seed-{seed}" for seed in (1, 2) for count in (2, 3)
    ]
    assert len({job.submission.id for job in jobs}) == 4
    begin()
    (tmp_path / "workload.yaml").write_text(jobs[0].submission.files["workload.yaml"])
    run(load_workload(tmp_path / "workload.yaml"), jobs[0].submission.out)
    assert prepare_points(file, [], None)[0] == jobs[1:], "what is done is not sent again"
    result = run_study(load_study(file), folder)
    assert not result.failed
    assert len(read_table(folder / "results.parquet")) == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["tune={seed: 9, grid: {training.lr: [0.1, 0.2]}}"], "tune: its points depend on the tuning"),
        (["kind=scaling-strong", "cores=[1]", "set={}"], "scaling-strong is measured beside a bare loop"),
    ],
)
def test_points_that_cannot_be_jobs(workload: Path, tmp_path: Path, keys: list[str], message: str) -> None:
    study = {"name": "few", "kind": "compare", "workload": "tiny.yaml", "seeds": [1], "methods": {"fedavg": {}}}
    (tmp_path / "few.yaml").write_text(write_yaml(study))
    with pytest.raises(InputError, match=message):
        prepare_points(tmp_path / "few.yaml", keys, None)
    with pytest.raises(InputError, match=r"--per-point: .* is a workload"):
        prepare_points(workload, [], None)


@pytest.mark.parametrize(("keys", "said"), [
    (["engine.backend=serial"], "engine.backend: serial runs in one process; a cluster needs ray"),
    (["federation.sites.0.source={format: nifti, path: none}"], "/none: no such file or folder"),
    (["federation.sites.0.resources.memory=1e6"], "site A: resources.memory: 1e+06 GB, and Ray counts no more than"),
    (["training.lr=-1"], "training.lr: Input should be greater than 0"),
    (["time={latency_s: 7, available: {share: 1.0e-6}}"], "time: round 1: no client finishes its turn any more; "),
])  # fmt: skip
@pytest.mark.parametrize(("cluster", "more"), [
    ("local", []), ("local", ["--dry-run"]), ("slurm", ["--dry-run"]), ("kuberay", ["--dry-run"]),
])  # fmt: skip
def test_what_can_be_refused_is_refused_first(
    fedsim: Fedsim,
    workload: Path,
    state: Path,
    tmp_path: Path,
    keys: list[str],
    said: str,
    cluster: str,
    more: list[str],
) -> None:
    if cluster == "kuberay" and "none" in keys[0]:
        return  # the cluster has other files
    before = set(tmp_path.rglob("*"))
    arguments = [part for key in keys for part in ("--set", key)]
    status, out, err = fedsim("submit", workload, "--cluster", cluster, *arguments, *more)
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert "starting local" not in err
    assert set(tmp_path.rglob("*")) == before
    assert not state.exists(), "nothing is left, nothing runs"


@pytest.mark.parametrize("how", [["--per-point"], ["--per-point", "--dry-run"]])
def test_the_points_of_a_study_are_refused_before_it_has_a_folder(
    fedsim: Fedsim, workload: Path, tmp_path: Path, how: list[str]
) -> None:
    study = {"name": "few", "kind": "compare", "workload": workload.name, "seeds": [1], "methods": {"fedavg": {}}}
    (tmp_path / "few.yaml").write_text(write_yaml(study))
    status, _, err = fedsim("submit", "few.yaml", "--cluster", "local", *how, "--set", "set.engine.backend=serial")
    assert (status, err) == (2, "fedsim: engine.backend: serial runs in one process; a cluster needs ray\n")
    assert not (tmp_path / "studies").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").touch()
    for more in ([], ["--dry-run"]):
        status, _, err = fedsim("submit", "few.yaml", "--cluster", "local", "--out", "taken", *more)
        said = "exists and is not a study (it has no study.yaml); choose another folder"
        assert (status, err) == (2, f"fedsim: --out {tmp_path / 'taken'}: {said}\n")


REFUSING = """
case $1 in
up) touch $0.up; echo up >>$0.log ;;
down) rm -f $0.up; echo down >>$0.log ;;
address) [ -e $0.up ] && { echo http://127.0.0.1:9; echo $0; } ;;
*) exit 1 ;;
esac
"""


def test_a_cluster_that_was_brought_up_in_vain_is_taken_down(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    (tmp_path / "own.sh").write_text(REFUSING)
    status, _, err = fedsim("submit", workload, "--cluster", "own.sh")
    assert (status, "no Ray dashboard answers there" in err) == (2, True)
    assert (tmp_path / "own.sh.log").read_text() == "up\ndown\n"
