"""clusters/local.sh without a cluster: what it would run, and what it refuses; and scripts of other people."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import SCRIPT, Fedsim, script


def test_the_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    assert SCRIPT.stat().st_mode & 0o111 == 0o111
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_dry_run_prints_what_would_be_run(tmp_path: Path, nodes: int) -> None:
    done = script(tmp_path / "state", "up", str(nodes), DRY_RUN="1")
    head, *others = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(others)) == (0, "", nodes - 1)
    assert head.startswith("ray start --head --port=0 --dashboard-host=127.0.0.1 --dashboard-port=0 ")
    for at, line in enumerate(sorted(others)):
        assert line.startswith(f"ray start --address=GCS-ADDRESS --temp-dir=FOLDER/{at + 2} --num-cpus=1 --memory=")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("up", "0"), "up 0: NODES must be a number from 1 to 99"), (("up", "3; ls"), "up 3; ls: NODES must be a number"),
     (("address",), "is down; bring it up with: "), ((), "no command: say up"), (("halt",), "halt: say up [NODES]")],
)  # fmt: skip
def test_what_the_script_refuses(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = script(tmp_path / "state", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"local.sh: {said}")
    assert not (tmp_path / "state").exists()


def test_down_when_down(tmp_path: Path) -> None:
    assert script(tmp_path, "status").stdout == "is down\n"
    assert script(tmp_path, "down").stdout == "is down\n"


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "local.sh")  # away from the project's environment
    ray = tmp_path / "bin" / "ray"
    ray.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    ray.chmod(0o755)
    environment = {"PATH": f"{ray.parent}:/usr/bin:/bin", "FEDSIM_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        ["bash", tmp_path / "local.sh", "up"], env=environment, capture_output=True, text=True, check=False
    )
    log = tmp_path / "state" / "local" / "start.log"
    assert (done.returncode, done.stderr) == (1, f"local.sh: Ray did not start; {log} says why\n")
    assert log.read_text() == "no room\n"
    assert sorted(path.name for path in log.parent.iterdir()) == ["lock", "start.log"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [("echo 'no nodes are free' >&2; exit 3", 1, "no nodes are free"),
     ("[ $1 = up ] || exit 1", 2, "its script printed neither an address nor a reason"),
     ("echo http://127.0.0.1:9; echo $0", 2, "no Ray dashboard answers there ([Errno 111] Connection refused)")],
)  # fmt: skip
def test_a_script_of_somebody_else(
    fedsim: Fedsim, workload: Path, tmp_path: Path, body: str, status: int, said: str
) -> None:
    (tmp_path / "mine.sh").write_text(body + "\n")
    got, _, err = fedsim("submit", workload, "--cluster", "mine.sh")
    assert (got, err.splitlines()[-1]) == (status, f"fedsim: --cluster mine.sh: {said}")
