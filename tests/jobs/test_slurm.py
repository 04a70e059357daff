"""The sbatch script and what is asked of SLURM, without SLURM; test_slurm_real.py has one."""

import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, RunError
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.target import Submission

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sbatch"
JOB = Submission(
    id="fedsim-small-0a1b", files={"workload.yaml": "name: small\n", "mine.py": "x = 1\n"},
    arguments=("run", "workload.yaml", "--out", "/data/my runs/small", "--resume"), out=Path("/data/my runs/small"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "slurm" / JOB.id


def script_with(folder: Path, **lines: str) -> Slurm:
    text = "#!/bin/bash\n" + "".join(f"#SBATCH {line}\n" for line in lines.values())
    (folder / "own.sbatch").write_text(text)
    return Slurm("own", folder / "own.sbatch")


def sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: int = 0) -> Path:
    """A program on PATH that keeps its arguments and PATH, one a line."""
    program, kept = folder / "bin" / "sbatch", folder / "given"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" \"$PATH\" > {kept}\necho '{says}'\necho '{says}' >&2\nexit {status}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return kept


def test_the_script_is_one_that_bash_takes() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    checker = shutil.which("shellcheck")
    if checker:
        subprocess.run([checker, str(SCRIPT)], check=True)


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "usage: sbatch"), (["."], "usage: sbatch"),
    ([".", "run", "workload.yaml"], "is not on PATH|give --out DIR"),
])  # fmt: skip
def test_the_script_by_hand_says_what_it_needs(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert any(part in done.stderr for part in said.split("|"))
    assert list(tmp_path.iterdir()) == []


RAY = """#!{python}
import os, pathlib, signal, socket, sys, time
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    print(os.environ["SLURM_JOB_ID"], os.environ["RAY_TMPDIR"], os.environ["TMPDIR"], *sys.argv[1:], file=calls)
port = next(int(option.partition("=")[2]) for option in sys.argv if option.startswith("--port="))
with socket.create_server(("127.0.0.1", port)):
    signal.sigwait({{signal.SIGTERM}})
"""
FEDSIM = """#!/bin/bash
until [[ -e $4/go ]]; do sleep 0.05; done
(: >"/dev/tcp/${ADDRESS%:*}/${ADDRESS#*:}") && echo trained && touch "$4/report.html"
"""


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a job as SLURM would on a node; Ray is a program that listens until it is ended."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "srun").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nSLURM_NODEID=0 exec "$@"\n')
    (programs / "ray").write_text(RAY.format(python=sys.executable, folder=str(tmp_path)))
    (programs / "fedsim").write_text(FEDSIM)
    (programs / "python3").write_text("#!/bin/sh\nexit 0\n")  # all nodes are there
    for program in programs.iterdir():
        program.chmod(0o755)

    def start(job: int, temporary: Path) -> subprocess.Popen[str]:
        folder = tmp_path / f"job-{job}"
        folder.mkdir()
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(temporary), "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "node1", "SLURM_CPUS_ON_NODE": "1",
        }  # fmt: skip
        command = ["bash", str(SCRIPT), str(folder), "run", "workload.yaml", "--out", str(folder)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def free_jobs(count: int) -> list[int]:
    """Numbers of jobs whose ports, which follow from them, nobody on this machine uses."""
    with ExitStack() as stack:
        found = list[int]()
        while len(found) < count:
            number = 900_000 + secrets.randbelow(10_000)
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", 20_000 + number % 10_000)))
                found.append(number)
        return found


@pytest.mark.parametrize("name", ["x" * 60, "daten-ä", "a b", "missing"])
def test_a_temporary_folder_that_ray_cannot_use_is_not_used(
    node: Callable[..., subprocess.Popen[str]], tmp_path: Path, name: str
) -> None:
    temporary = tmp_path / name
    if name != "missing":
        temporary.mkdir()
    (number,) = free_jobs(1)
    with node(number, temporary) as job:
        (tmp_path / f"job-{number}" / "go").touch()
        out, err = job.communicate()
    assert (job.returncode, out, err) == (0, "trained\n", "")
    _, folder, its_own, *_ = (tmp_path / "calls").read_text().split()
    assert folder == f"/tmp/fedsim-{number}"
    assert its_own == ("/tmp" if name == "missing" else str(temporary).split()[0])
    assert not Path(folder).exists()


def test_two_jobs_on_a_node_leave_each_other_alone(node: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    earlier, later = free_jobs(2)
    with node(earlier, Path("/tmp")) as first, node(later, Path("/tmp")) as second:
        for job, process in ((later, second), (earlier, first)):  # the second ends while the first runs
            (tmp_path / f"job-{job}" / "go").touch()
            assert process.communicate() == ("trained\n", "")
            assert process.returncode == 0
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert {call[3] for call in calls} == {"start"}, "never ray stop"
    assert {call[1] for call in calls} == {f"/tmp/fedsim-{earlier}", f"/tmp/fedsim-{later}"}
    ports = {option for call in calls for option in call if option.startswith("--port=")}
    assert ports == {f"--port={20_000 + number % 10_000}" for number in (earlier, later)}


def test_a_dry_run_is_the_command_and_the_files(state: Path) -> None:
    text = Slurm("slurm", SCRIPT).render(JOB)
    assert f"# {state}/mine.py\nx = 1\n" in text
    assert f"# {state}/workload.yaml\nname: small\n" in text
    _, command, *_ = text.split("\n")
    assert command.split(" ", 1)[1] == (
        f"sbatch --parsable --job-name={JOB.id} --chdir={state} --output={state}/output.txt "
        f"{SCRIPT} {state} run workload.yaml --out '/data/my runs/small' --resume"
    )
    assert not state.exists()


def test_sbatch_is_given_what_the_dry_run_shows(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = sbatch(tmp_path, monkeypatch, says="17;here")
    slurm = Slurm("slurm", SCRIPT)
    shown = slurm.render(JOB).splitlines()[1]
    slurm.submit(JOB)
    in_shell = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    by_hand = kept.read_text()
    slurm.submit(JOB)
    assert kept.read_text() == by_hand
    assert in_shell.stdout == "17;here\n"
    assert {path.name: path.read_text() for path in state.iterdir()} == {**JOB.files, "job": "17\n"}
    assert state.stat().st_mode & 0o777 == 0o700


def test_no_sbatch_and_no_number_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not on PATH"):
        Slurm("slurm", SCRIPT).submit(JOB)
    sbatch(tmp_path, monkeypatch, says="hello")
    with pytest.raises(RunError, match="printed 'hello' instead of a job number"):
        Slurm("slurm", SCRIPT).submit(JOB)


def test_a_site_that_does_not_answer_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch(tmp_path, monkeypatch, says="sbatch: error: Unable to contact slurm controller", status=1)
    with pytest.raises(InputError, match=r"^sbatch: Unable to contact slurm controller$"):
        Slurm("slurm", SCRIPT).submit(JOB)


def test_rooms_are_those_of_the_script(tmp_path: Path) -> None:
    nodes = Slurm("slurm", SCRIPT).nodes()
    assert nodes is not None
    assert [(node.cpus, node.total_memory) for node in nodes] == [(16, 60 * 2**30)] * 2
    small = {"n": "--nodes=1-3  # at least one", "c": "-c 4", "m": "--mem=500", "g": "--gpus-per-node=a100:2"}
    nodes = script_with(tmp_path, **small).nodes()
    assert nodes is not None
    assert [(node.cpus, node.gpus, node.total_memory) for node in nodes] == [(4, 2, 500 * 2**20)]


@pytest.mark.parametrize("left_out", ["--mem=0", "--time=1 # --mem=4G", "--job-name=x--mem=4G"])
def test_rooms_are_unknown_where_the_script_does_not_say(left_out: str, tmp_path: Path) -> None:
    assert script_with(tmp_path, n="--nodes=1", c="--cpus-per-task=4", m=left_out).nodes() is None


@pytest.mark.parametrize("line", ["--nodes=two", "--mem=4X", "--cpus-per-task=4G"])
def test_an_amount_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    name = line.partition("=")[0]
    script = script_with(tmp_path, n="--nodes=1", c="--cpus-per-task=4", m="--mem=4G", wrong=line)
    with pytest.raises(InputError, match=rf"own\.sbatch: #SBATCH {name}: .* is not a number"):
        script.nodes()


def test_a_file_that_is_no_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.sbatch: cannot be read"):
        Slurm("slurm", tmp_path / "none.sbatch").render(JOB)
    (tmp_path / "x.sbatch").write_text("nodes: 2\n")
    with pytest.raises(InputError, match="its first line should be #!/bin/bash"):
        Slurm("slurm", tmp_path / "x.sbatch").render(JOB)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "-rf", "A", "", "x" * 46, "a\n"])
def test_an_id_is_no_path(name: str) -> None:
    with pytest.raises(InputError, match=r"': is not a job id; ids look like "):
        Slurm("slurm", SCRIPT).status(name)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "-rf", ".hidden", "", "a b"])
def test_a_file_that_goes_along_stays_in_its_folder(name: str) -> None:
    with pytest.raises(InputError, match="cannot be sent with the job"):
        Slurm("slurm", SCRIPT).submit(Submission(id=JOB.id, files={name: ""}, arguments=JOB.arguments, out=JOB.out))


def test_a_run_is_copied_and_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("done")
    slurm = Slurm("slurm", SCRIPT)
    slurm.fetch(tmp_path / "run", tmp_path / "new" / "here")
    assert (tmp_path / "new" / "here" / "report.html").read_text() == "done"
    with pytest.raises(InputError, match="exists"):
        slurm.fetch(tmp_path / "run", tmp_path / "new" / "here")
    with pytest.raises(InputError, match="does not exist here"):
        slurm.fetch(tmp_path / "nothing", tmp_path / "else")
