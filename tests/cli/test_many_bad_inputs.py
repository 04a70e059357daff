"""Hundreds of bad inputs through the command line: each gets one line and exit status 2, and leaves nothing behind."""

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from .bad_inputs import Bad, Outcome, make_folder, nothing, run, table
from .catalogue import CATALOGUE

IN_A_PROCESS = (
    "run /dev/zero", "billion laughs", "claims 128 GB", "a page beyond its end",
    "a type that does not exist", "half a manifest",
)  # fmt: skip


IN_THE_QUICK_RUN = 20  # every 20th
NEED_A_RUN = ("damaged run directories", "arguments about runs")


def named(number: int, bad: Bad) -> ParameterSet:
    quick = number % IN_THE_QUICK_RUN == 0 and bad.kind not in NEED_A_RUN
    marks = [] if quick else [pytest.mark.slow]
    return pytest.param(bad, marks=marks, id=f"{bad.kind}: {ascii(bad.what)[1:-1]}")


def test_the_catalogue_has_no_input_twice() -> None:
    assert len(CATALOGUE) >= 320
    names = Counter((bad.kind, bad.what) for bad in CATALOGUE)
    assert [name for name, count in names.items() if count > 1] == []
    commands = Counter(bad.arguments for bad in CATALOGUE if bad.prepare is nothing)
    assert [command for command, count in commands.items() if count > 1] == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bad", list(itertools.starmap(named, enumerate(CATALOGUE))))
def test_a_bad_input(bad: Bad, tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path, cache, bad)
    outcome = run(bad, tmp_path, cache)
    assert not outcome.faults(bad), outcome.error


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", IN_A_PROCESS)
def test_a_bad_input_in_a_process(what: str, tmp_path: Path, cache: Path) -> None:
    bad = next(bad for bad in CATALOGUE if bad.what == what)
    make_folder(tmp_path, cache, bad)
    before = set(tmp_path.rglob("*"))
    command = [Path(sys.executable).with_name("fedsim"), *bad.arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    left = tuple(str(path) for path in set(tmp_path.rglob("*")) - before)
    assert not Outcome(done.returncode, done.stderr, left).faults(bad), done.stderr


def test_what_is_not_refused_shows() -> None:
    bad = Bad("kind", "what", (), "file.yaml")
    assert Outcome(2, "fedsim: file.yaml: is wrong\n", ()).faults(bad) == []
    good = Outcome(0, "", ("runs",)).faults(bad)
    assert good == ["exit status 0", "not one line", "does not name file.yaml", "left runs"]
    assert "a traceback" in Outcome(1, "fedsim: file.yaml\nTraceback\n", ()).faults(bad)
    assert table([(bad, []), (bad, good)]).splitlines()[-1].split() == ["all", "2", "1"]
