"""fedsim list and fedsim new: what there is, and files that run as they are written."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.algorithms.catalogue import METHODS
from fedsim.core import extension
from tests.conftest import COMMAND, Fedsim

LISTED = {
    "methods": "fedmri",
    "networks": "unet",
    "masks": "equispaced",
    "formats": "fastmri",
    "losses": "mse",
    "samplers": "uniform",
    "trackers": "tensorboard",
}


@pytest.mark.parametrize("what", LISTED)
def test_a_list_has_a_line_for_each(fedsim: Fedsim, what: str) -> None:
    status, out, err = fedsim("list", what)
    assert (status, err) == (0, "")
    lines = {name: line for name, _, line in (row.partition(" ") for row in out.splitlines())}
    assert LISTED[what] in lines
    assert all(line.strip() for line in lines.values())
    if what == "methods":
        assert list(lines) == METHODS.names()


def test_a_list_has_what_packages_offer(fedsim: Fedsim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "fedsim_plugged-1.2.dist-info"
    info.mkdir(parents=True)
    code = 'from fedsim.algorithms.base import Algorithm\n\n\nclass Mine(Algorithm):\n    """Does it my way."""\n'
    (tmp_path / "site" / "listed.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedsim-plugged\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[fedsim.methods]\nmine = listed:Mine\nbroken = nowhere:Mine\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    extension._offered.cache_clear()
    status, out, _ = fedsim("list", "methods")
    extension._offered.cache_clear()
    last = [" ".join(line.split()) for line in out.splitlines()[-2:]]
    assert status == 0
    assert last[0] == "mine Does it my way. (fedsim-plugged)"
    assert last[1].startswith("broken algorithm.name: nowhere:Mine of the package fedsim-plugged cannot be imported")


def test_a_list_of_nothing_known_is_refused(fedsim: Fedsim) -> None:
    status, _, err = fedsim("list", "method")
    assert status == 2
    assert "'methods'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.long) for kind in ("method", "network")), "importer"]
)
def test_what_new_writes_runs_as_it_is(fedsim: Fedsim, tmp_path: Path, kind: str) -> None:
    status, out, err = fedsim("new", kind, f"my_{kind}")
    assert (status, out.splitlines(), err) == (0, [f"my_{kind}.py", f"test_my_{kind}.py"], "")
    own = (tmp_path / f"my_{kind}.py").read_text()
    assert f"class My{kind.capitalize()}(" in own
    assert 20 <= len(own.splitlines()) <= 45
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_my_{kind}.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout or "1 passed" in done.stdout
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I", "."]
    assert subprocess.run(ruff, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    asked = {"_FEDSIM_COMPLETE": "complete_bash", "COMP_WORDS": "fedsim li", "COMP_CWORD": "1"}
    done = subprocess.run(
        COMMAND, check=False, cwd=tmp_path, env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["list"]


NAMES = "must be a letter, then letters, digits and '_', at most 64 in all, and no keyword of Python"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-method", f"NAME: 'my-method' {NAMES}"),
        ("class", f"NAME: 'class' {NAMES}"),
        ("\u00fcbung", f"NAME: '\u00fcbung' {NAMES}"),
        ("../mine", f"NAME: '../mine' {NAMES}"),
        ("", f"NAME: '' {NAMES}"),
        ("x" * 300, f"NAME: '{'x' * 79} {NAMES}"),
        ("learner", "NAME: learner would hide the class Learner that the file uses; choose another"),
        ("torch", "NAME: torch is the name of an installed module; choose another"),
        ("mine", "mine.py: exists; choose another name, or remove it"),
    ],
)
def test_new_overwrites_nothing_and_hides_no_module(fedsim: Fedsim, tmp_path: Path, name: str, message: str) -> None:
    importlib.invalidate_caches()
    (tmp_path / "mine.py").write_text("")
    assert fedsim("new", "method", name) == (2, "", f"fedsim: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_new_in_a_folder_that_is_gone_is_one_line(
    fedsim: Fedsim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    message = "mine.py: cannot be written (No such file or directory); go to a folder of your own"
    assert fedsim("new", "method", "mine") == (2, "", f"fedsim: {message}\n")
