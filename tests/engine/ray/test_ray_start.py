"""What keeps Ray from starting on a machine is named before it is tried."""

import subprocess
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.ray import cluster
from tests.conftest import COMMAND
from tests.engine.plans import TINY, MakeWorkload, checked, machine


@pytest.mark.parametrize(("folder", "message"), [("none", "is not a writable folder"), ("ü", "non-ASCII")])
def test_a_wrong_ray_tmpdir_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, message: str
) -> None:
    (tmp_path / "ü").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
    with pytest.raises(InputError, match=rf"^RAY_TMPDIR: .*{message}"):
        cluster._base()


def test_a_folder_that_sockets_cannot_lie_in_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ü", "x" * 100):
        (tmp_path / name).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        assert cluster._base() == "/tmp"


@pytest.mark.long
def test_few_open_files_are_named(workload: MakeWorkload, tmp_path: Path) -> None:
    workload()
    limited = ["bash", "-c", 'ulimit -n 64 && exec "$@"', "bash", *COMMAND, "run", tmp_path / "small.yaml"]
    command = [*limited, "--set", "engine.backend=ray", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "fedsim: a process may have 64 files open (ulimit -n), and one on Ray needs 256; raise the limit"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, said)
    assert not (tmp_path / "run").exists()


def test_few_open_files_are_foreseen(workload: MakeWorkload) -> None:
    said = r"^a process may have 64 files open \(ulimit -n\), and one .* needs 256; raise the limit$"
    with pytest.raises(InputError, match=said):
        checked(workload(*TINY), machine(open_files=64))
