"""The table of what goes wrong on clusters: its rows name tests that exist, and leave out no failure."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

DOCS, TESTS = Path(__file__).parents[2] / "docs", Path(__file__).parents[1]
UNTESTED = re.compile(r"not tested: needs a (real cloud|slow disk)")
FAILURES = (
    "two jobs", "port", "HOME", "TMPDIR is tiny", "TMPDIR is slow", "/dev/shm", "file descriptors",
    "without the environment", "another version of fedsim", "another clock", "joins late", "never joins", "requeued",
    "in the middle of a checkpoint", "shorter than a round", "fewer nodes", "cgroup", "CUDA_VISIBLE_DEVICES", "proxy",
    "IPv6", "unicode", "shows a file late", "lock on NFS", "head node dies", "loses its network", "array task",
    "without rights", "cannot be pulled", "PVC", "Ray of another version", "others can read", "stale token",
    "path prefix",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    text = (DOCS / "howto-cluster.md").read_text(encoding="utf-8").partition("## When something goes wrong\n")[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_failure_has_a_row_of_four_cells(rows: list[list[str]]) -> None:
    assert {len(row) for row in rows} == {4}
    assert all(all(row) for row in rows)
    assert [failure for failure in FAILURES if not any(failure in row[0] for row in rows)] == []


def test_every_row_names_tests_that_exist_or_what_they_would_need(rows: list[list[str]]) -> None:
    known = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"(?m)^def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }
    named = {row[0]: re.findall(r"`(test_\w+)`", row[3]) for row in rows}
    assert {failure: tests for failure, tests in named.items() if not known.issuperset(tests)} == {}
    assert [row[0] for row in rows if not (named[row[0]] or _untested(row))] == []


def _untested(row: Sequence[str]) -> bool:
    return UNTESTED.fullmatch(row[3]) is not None
