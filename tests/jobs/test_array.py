"""A study as one job array: what is submitted, and what becomes of its tasks; test_slurm_real.py has a real SLURM."""

import json
import subprocess
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, RunError
from fedsim.jobs.array import option_of
from fedsim.jobs.receipts import receipt_of, state_of, status_of, wait_for
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.submission import Job, prepare, prepare_array
from fedsim.jobs.target import Status, Submission, Task
from fedsim.study.ended import read_failures, write_failures
from fedsim.study.frozen import freeze
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload

from .arrays import LABELS, SCRIPT, folder_of, queued, sent, site, study  # noqa: F401 - fixtures too

# ruff: noqa: F811 - the fixtures


@pytest.mark.parametrize(
    ("numbers", "at_once", "option"),
    [([1, 2, 3], None, "--array=1-3"), ([2], 4, "--array=2%4"), ([9, 1, 3, 2, 7, 8, 5], 2, "--array=1-3,5,7-9%2")],
)
def test_tasks_have_the_numbers_of_their_points(numbers: list[int], at_once: int | None, option: str) -> None:
    tasks = {number: Task(label=str(number), files={}, arguments=()) for number in numbers}
    array = Submission(id="fedsim-a", files={}, arguments=(), out=Path("/x"), tasks=tasks, at_once=at_once)
    assert option_of(array) == option


def test_one_job_is_submitted_with_a_folder_a_point(site: Path, study: Path, state: Path, tmp_path: Path) -> None:
    (job,), begin = prepare_array(study, [], None, 3)
    whole, slurm = tmp_path / "studies" / "few", Slurm("slurm", SCRIPT)
    assert not whole.exists(), "looked only"
    begin()
    shown = slurm.render(job.submission)
    slurm.submit(job.submission)
    own = state / "slurm" / job.submission.id
    given = (site / "sbatch.given").read_text().splitlines()
    assert given == [
        "--parsable", f"--job-name={job.submission.id}", f"--chdir={own}", f"--output={own}/%a/output.txt",
        "--array=1-4%3", str(SCRIPT), str(own),
    ]  # fmt: skip
    assert " ".join(["sbatch", *given]) in shown
    assert (whole / "study.yaml").is_file()
    assert json.loads((own / "array.json").read_text()) == {
        "study": str(whole), "tasks": dict(zip("1234", LABELS, strict=True)),
    }  # fmt: skip
    for number, label in enumerate(LABELS, start=1):
        files = {path.name: path.read_text() for path in (own / str(number)).iterdir()}
        assert set(files) == {"workload.yaml", "arguments", "job"}
        assert files["arguments"] == f"run\nworkload.yaml\n--resume\n--out\n{whole / 'runs' / label}\n"
        assert files["job"] == "17\n"
        assert f"# {own}/{number}/arguments\nrun\n" in shown
        load = load_workload(own / str(number) / "workload.yaml")
        assert f"clients-{load.federation.clients}/fedavg/seed-{load.seed}" == label


def test_an_array_is_another_job_than_the_study_in_one_piece(study: Path) -> None:
    (array,), _ = prepare_array(study, [], None, None)
    assert prepare_array(study, [], None, 2)[0][0].submission.id == array.submission.id
    assert prepare(study, [], None, None).submission.id != array.submission.id


TASK = """#!/bin/bash
mkdir -p "$5"
printf '%s|' "$@" >"$5.given"
(: >"/dev/tcp/${ADDRESS%:*}/${ADDRESS#*:}") && touch "$5/report.html"
"""
RAY = """#!/usr/bin/python3
import signal, socket, sys
port = next(int(option.partition("=")[2]) for option in sys.argv if option.startswith("--port="))
with socket.create_server(("127.0.0.1", port)):
    signal.sigwait({signal.SIGTERM})
"""


@pytest.mark.parametrize(
    ("left", "given"),
    [("3:59:58", "--walltime|3:59:58|"), ("1-00:00:00", "--walltime|1-00:00:00|"), ("UNLIMITED", ""), ("", "")],
)
def test_the_script_runs_the_point_of_its_task_with_the_time_that_is_left(
    sent: Job, site: Path, state: Path, tmp_path: Path, left: str, given: str
) -> None:
    programs = {
        "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nSLURM_NODEID=0 exec "$@"\n',
        "ray": RAY, "fedsim": TASK, "python3": "#!/bin/sh\nexit 0\n",
        "squeue": f"#!/bin/sh\n[ \"$*\" = '--noheader --jobs=%s_3 --format=%%L' ] && echo {left}\n",
    }  # fmt: skip
    number = 912_345  # the array's, which one of its tasks has too
    for name, text in programs.items():
        (site / name).write_text(text.replace("%s", str(number)).replace("%%", "%") if name == "squeue" else text)
        (site / name).chmod(0o755)
    environment = {
        "PATH": f"{site}:/usr/bin:/bin", "SLURM_JOB_ID": str(number), "SLURM_JOB_NUM_NODES": "1",
        "SLURMD_NODENAME": "node1", "SLURM_CPUS_ON_NODE": "1", "SLURM_ARRAY_JOB_ID": str(number),
        "SLURM_ARRAY_TASK_ID": "3",
    }  # fmt: skip
    folder = state / "slurm" / sent.submission.id
    command = ["bash", str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "studies" / "few" / "runs" / LABELS[2]
    found = Path(f"{out}.given").read_text()
    assert found.startswith(f"run|workload.yaml|--resume|--out|{out}|--address|127.0.0.1:")
    assert found.split("|", 7)[-1] == given
    assert (folder / "3" / "status").read_text() == "0\n"
    assert not (folder / "3" / "token").exists()


def test_a_script_that_knows_no_arrays_is_refused(study: Path, tmp_path: Path) -> None:
    (tmp_path / "old.sbatch").write_text("#!/bin/bash\n#SBATCH --nodes=1\n")
    (job,), _ = prepare_array(study, [], None, None)
    with pytest.raises(InputError, match=r"old\.sbatch: has no lines for SLURM_ARRAY_TASK_ID, which --array needs"):
        Slurm("old", tmp_path / "old.sbatch").render(job.submission)


def test_more_points_than_the_site_has_tasks_for_are_said(sent: Job, site: Path) -> None:
    said = "Batch job submission failed: Invalid job array specification"
    (site / "sbatch").write_text(f"#!/bin/sh\necho 'sbatch: error: {said}' >&2\nexit 1\n")
    with pytest.raises(RunError, match=rf"^sbatch: {said}; this site allows fewer tasks .*; use --per-point$"):
        Slurm("slurm", SCRIPT).submit(sent.submission)


@pytest.mark.parametrize(
    ("queue", "accounting", "codes", "status"),
    [
        (["17|1|COMPLETED|None"], "", {},
         Status("stopped", f"3 of 4 points stopped: {LABELS[1]}; also {LABELS[2]}, {LABELS[3]}")),
        (["17|1|RUNNING|None", *(f"17|{task}|PENDING|JobArrayTaskLimit" for task in (2, 3, 4))], "", {},
         Status("running", "0 of 4 points done, 1 running")),
        (["17|3|PENDING|Priority", "17|4|PENDING|Priority"], "17_2|FAILED\n", {1: "0", 2: "1"},
         Status("pending", "1 of 4 points done, 1 failed")),
        ([f"17|{task}|COMPLETED|None" for task in (1, 2, 3, 4)], "", {}, Status("succeeded")),
        (["17|1|COMPLETED|None", "17|2|CANCELLED|None", "17|3|CANCELLED|None"], "17_4|COMPLETED\n", {4: "0"},
         Status("stopped", f"2 of 4 points stopped: {LABELS[1]}; also {LABELS[2]}")),
        ([], "17_1|COMPLETED\n17_2|OUT_OF_MEMORY\n17_3|CANCELLED by 1000\n17_4|TIMEOUT\n", {},
         Status("failed", f"2 of 4 points failed: {LABELS[1]}: SLURM says out of memory; see FOLDER/2/output.txt; "
                          f"also {LABELS[3]}")),
        ([f"9|{task}|FAILED|None" for task in (1, 2)] + [f"17|{task}|RUNNING|None" for task in (1, 2)], "",
         {3: "0", 4: "130"}, Status("running", "1 of 4 points done, 2 running, 1 stopped")),
    ],
    ids=["never began", "one at a time", "some wait", "done", "two cancelled", "forgotten", "an array before it"],
)  # fmt: skip
def test_the_tasks_together_are_the_job(
    sent: Job, site: Path, state: Path, queue: list[str], accounting: str, codes: dict[int, str], status: Status
) -> None:
    queued(site, *queue)
    (site / "accounting").write_text(accounting)
    for number, code in codes.items():
        (folder_of(state, sent, number) / "status").write_text(f"{code}\n")
    receipt = receipt_of("few")
    expected = Status(status.state, status.reason.replace("FOLDER", str(state / "slurm" / receipt.id)))
    assert status_of(receipt) == expected
    assert state_of(receipt, set()) == (f"{expected.state}: {expected.reason}" if expected.reason else expected.state)


def test_without_slurm_what_the_tasks_left_is_known(
    sent: Job, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="squeue is not on PATH"):
        Slurm("slurm", SCRIPT).status(sent.submission.id)
    for number in (1, 2, 3, 4):
        (folder_of(state, sent, number) / "status").write_text("0\n")
    assert Slurm("slurm", SCRIPT).status(sent.submission.id) == Status("succeeded")


def test_failed_points_are_noted_with_the_study_until_they_are_retried(
    sent: Job, site: Path, state: Path, study: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "studies" / "few"
    freeze(load_study(study), whole)
    write_failures(whole, {"clients-2/other/seed-1": "of another time"})
    queued(
        site, *(f"17|{task}|{word}|None" for task, word in enumerate(("COMPLETED", "FAILED", "CANCELLED", "FAILED"), 1))
    )
    (folder_of(state, sent, 2) / "status").write_text("1\n")
    (folder_of(state, sent, 2) / "output.txt").write_text("round 1\nfedsim: the disk is full\n")
    assert wait_for(receipt_of("few")).state == "failed"
    failed = read_failures(whole)
    assert failed.pop("clients-2/other/seed-1") == "of another time"
    assert list(failed) == [LABELS[1], LABELS[3]]
    assert failed[LABELS[1]] == "the disk is full"
    _, begin = prepare_array(study, [], None, None)
    begin()
    assert set(read_failures(whole)) == {"clients-2/other/seed-1"}
