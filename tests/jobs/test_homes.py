"""Homes and folders as clusters have them: read-only, full, without locks, with odd names."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsim.jobs.kept import run_kept
from tests.conftest import COMMAND

from .conftest import TINY, Fedsim

SBATCH = "#!/bin/sh\necho sent >> {sent}\necho 17\n"


@pytest.fixture(params=["read-only", "full"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that cannot be written."""
    folder = tmp_path / "home"
    folder.mkdir()
    size = {"full": "64k", "read-only": "8m"}[request.param]
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    if request.param == "full":
        with pytest.raises(OSError, match="No space left"):
            (folder / "ballast").write_bytes(bytes(2**17))
        (folder / ".local" / "state").mkdir(parents=True)
    else:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("FEDSIM_STATE", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_home_that_cannot_be_written_sends_no_job(
    home: Path, fedsim: Fedsim, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "squeue", "sacct"):
        (tmp_path / "bin" / name).write_text(
            SBATCH.format(sent=tmp_path / "sent") if name == "sbatch" else "#!/bin/sh\n"
        )
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    status, _, err = fedsim("submit", workload, "--cluster", "slurm")
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"fedsim: {home}/.local/state/fedsim: jobs cannot be recorded there (")
    assert last.endswith("; name a folder that can be written and that the cluster's nodes see, with FEDSIM_STATE")
    assert not (tmp_path / "sent").exists()
    assert fedsim("jobs", "list")[0] == 0
    assert fedsim("submit", workload, "--cluster", "slurm", "--dry-run")[0] == 0


def test_the_default_cache_in_such_a_home_is_named(home: Path, fedsim: Fedsim, tmp_path: Path) -> None:
    text = "\n".join(line for line in TINY.splitlines() if "cache:" not in line)
    (tmp_path / "tiny.yaml").write_text(text.format())
    status, _, err = fedsim("run", "tiny.yaml", "--set", "engine.backend=serial")
    last = err.splitlines()[-1]
    assert status == 2, err
    assert last.startswith("fedsim: federation.cache: ")
    assert f"{home}/.cache/fedsim/shards" in last
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_with_its_cache_elsewhere_a_run_needs_no_home(home: Path, workload: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "run", workload, "--set", "engine.backend=serial", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_home_that_fills_up_does_not_end_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path / "state"], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        monkeypatch.setattr("signal.signal", lambda *_: None)
        says = [sys.executable, "-c", "print('x' * 2**18); print('done')"]
        assert run_kept("fedsim-x", says) == 0
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "state"], check=True)


WITHOUT_LOCKS = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
LD, EQ, RET = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 37  # ENOLCK
filter = b"".join(struct.pack("HBBI", *line) for line in [
    (LD, 0, 0, 0), (EQ, 6, 0, 73),                    # flock
    (EQ, 0, 4, 72), (LD, 0, 0, 24),                   # fcntl, by its command
    (EQ, 3, 0, 6), (EQ, 2, 0, 7), (EQ, 1, 0, 37),     # F_SETLK, F_SETLKW, F_OFD_SETLK
    (RET, 0, 0, ALLOW), (RET, 0, 0, REFUSE),
])
held = ctypes.create_string_buffer(filter)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter) // 8, ctypes.addressof(held)))
assert not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, program, 0, 0), "seccomp"
import fcntl
for call in (lambda: fcntl.flock(0, fcntl.LOCK_EX), lambda: fcntl.lockf(1, fcntl.LOCK_EX)):
    try:
        call()
    except OSError as error:
        assert error.errno == 37
    else:
        raise AssertionError("locked")
from fedsim.cli import main
main()
"""


@pytest.mark.long
def test_a_file_system_that_refuses_locks_does_not_matter(workload: Path, tmp_path: Path) -> None:
    """As NFS does where its lock daemon is not running; here the kernel refuses them for all files."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        pytest.skip("the numbers of system calls are those of Linux on x86_64")
    command = [sys.executable, "-c", WITHOUT_LOCKS, "run", workload, "--set", "engine.backend=serial", "--out"]
    done = subprocess.run([*command, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_spaces_and_other_alphabets_in_paths(fedsim: Fedsim, tmp_path: Path) -> None:
    cache = tmp_path / "Zwischen speicher" / "キャッシュ"
    (tmp_path / "Köpfe 1.yaml").write_text(TINY.format(cache=f'"{cache}"'))
    out = tmp_path / "Läufe 50%" / "模拟 1"
    run = fedsim("run", "Köpfe 1.yaml", "--set", "engine.backend=serial", "--out", out)
    assert run[0] == 0, run[2]
    assert list(cache.glob("*.h5"))
    assert (out / "report.html").is_file()
    assert fedsim("evaluate", out)[0] == 0
    for cluster in ("slurm", "local"):
        status, said, err = fedsim("submit", "Köpfe 1.yaml", "--cluster", cluster, "--out", "Läufe 2/模拟", "--dry-run")
        assert status == 0, err
        assert str(tmp_path / "Läufe 2" / "模拟") in said
