"""Receipts: what was submitted from here, found by a beginning of its id."""

import re
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.receipts import Receipt, receipt_of, receipts, write_receipt
from fedsim.jobs.submission import prepare

from .conftest import Fedsim

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def written(workload: Path, tmp_path: Path) -> list[Receipt]:
    for name in ("north", "south"):
        write_receipt(RayJobs(NOWHERE, NOWHERE), prepare(workload, [f"name={name}"], tmp_path / f"at-{name}", None))
    return receipts()


def test_a_receipt_says_what_was_sent_where(written: list[Receipt], tmp_path: Path, state: Path) -> None:
    north = next(receipt for receipt in written if receipt.name == "north")
    assert (north.cluster, north.shown, north.kind, north.out) == (NOWHERE, NOWHERE, "run", tmp_path / "at-north")
    assert {path.name for path in (state / "jobs").iterdir()} == {f"{receipt.id}.json" for receipt in written}


def test_a_beginning_will_do(written: list[Receipt]) -> None:
    for receipt in written:
        for beginning in (receipt.id, receipt.id[:12], receipt.name[:1]):
            assert receipt_of(beginning) == receipt


@pytest.mark.parametrize(
    ("beginning", "said"),
    [("fedsim-", "matches several jobs: fedsim-"), ("", "no such job"),
     ("../jobs", "no such job"), ("zzz\n", "zzz.*: no such job; see fedsim jobs list")],
)  # fmt: skip
def test_another_id_is_refused(written: list[Receipt], beginning: str, said: str) -> None:
    assert len(written) == 2
    with pytest.raises(InputError, match=said):
        receipt_of(beginning)


def test_a_mistyped_id_is_recognised(written: list[Receipt]) -> None:
    for receipt in written:
        mistyped = receipt.id.replace("th-", "ht-")
        with pytest.raises(InputError, match=re.escape(f"'{mistyped}': no such job; did you mean {receipt.id}?")):
            receipt_of(mistyped)


def test_a_cluster_that_is_gone_is_no_error(fedsim: Fedsim, written: list[Receipt]) -> None:
    status, out, err = fedsim("jobs", "list")
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["job", "cluster", "state", "submitted", "folder"]
    assert [row.split()[:4] for row in rows] == [[receipt.id, NOWHERE, "cluster", "gone"] for receipt in written]
    for command in (("logs",), ("stop",), ("wait",), ("fetch", "--to", "fetched")):
        status, out, err = fedsim("jobs", *command, "north")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"fedsim: --cluster {NOWHERE}: no Ray dashboard answers there (")


def test_nothing_was_submitted(fedsim: Fedsim) -> None:
    assert fedsim("jobs", "list")[:2] == (0, "job  cluster  state  submitted  folder\n")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"id": "../x"}', "\0"])
def test_a_damaged_receipt_is_named(fedsim: Fedsim, state: Path, content: str) -> None:
    (state / "jobs").mkdir(parents=True)
    (state / "jobs" / "fedsim-a.json").write_text(content)
    path = state / "jobs" / "fedsim-a.json"
    assert fedsim("jobs", "list") == (2, "", f"fedsim: {path}: is not a job receipt; delete it\n")


def test_a_receipt_of_another_name_is_none(fedsim: Fedsim, written: list[Receipt], state: Path) -> None:
    path = state / "jobs" / f"{written[0].id}.json"
    path.rename(path.with_name("fedsim-b.json"))
    assert fedsim("jobs", "logs", "b")[0] == 2
