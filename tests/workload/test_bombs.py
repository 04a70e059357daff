"""Files made to exhaust whoever reads them: each gets one line, quickly."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.core.yaml import LARGEST
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.reading import load_workload
from fedsim.workload.schema import Workload

LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 40))
BOMBS = {
    "billion laughs": "x0: &x0 [ha]\n" + LAUGHS, "billion laughs in strings": f"x0: &x0 {'ha' * 1000}\n" + LAUGHS,
    "merge bomb": "x0: &x0 {a: 1}\n" + "".join(f"x{i}: &x{i} {{<<: [*x{i - 1}, *x{i - 1}]}}\n" for i in range(1, 45)),
    "a list in itself": "name: &x [*x]\n", "a mapping in itself": "&x {name: *x}\n",
    "each in the other": "a: &a [&b [*a]]\nb: *b\n",
    "a long chain of aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000)),
    "deep lists": "name: " + "[" * 100_000, "deep lists, closed": "name: " + "[" * 200 + "]" * 200,
    "deep mappings": "name: " + "{a: " * 2000, "deep by dashes": "- " * 5000,
    "deep by indents": "\n".join(" " * i + "a:" for i in range(1200)), "deep keys": "? " * 3000,
    "a number of 10,000 digits": "seed: 1" + "0" * 10_000,
    "a hexadecimal number of 10,000 digits": "seed: 0x" + "f" * 10_000,
    "a fraction of 10,000 digits": "seed: 0." + "1" * 10_000,
    "python objects": "name: !!python/object/apply:os.system ['true']", "a tag of its own": "name: !secret x",
    "an endless tag": f"name: !{'x' * 5000} x", "two documents": "name: x\n---\nname: y\n",
    "duplicate keys": "name: x\nname: y\n", "an undefined alias": "name: *nothing\n",
    "a wrong date": "name: 2024-13-45\n", "a wrong binary": "name: !!binary '='\n",
    "a date for a key": "2024-01-01: x\n", "a list for a key": "[a, b]: x\n", "nothing": "",
    "one long line": "name: " + "x" * 3_000_000, "a long key": "x" * 100_000 + ": 1\n", "a file of NUL": "\0" * 1000,
    "too large": "name: x\n" + "#" * LARGEST,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("load", [load_workload, load_study])
def test_bombs_are_refused(tmp_path: Path, kind: str, load: Callable[[Path], Workload | StudyPlan]) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[kind])
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deep lists, closed", "a list in itself", "a long chain of aliases"])
def test_deep_values_are_called_deep(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMBS[kind])
    with pytest.raises(InputError, match="nested more than 50 deep"):
        load_workload(tmp_path / "bomb.yaml")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: reading it would take a terabyte of memory
    with pytest.raises(InputError, match=r"huge\.yaml: has 1,099,511,627,776 bytes"):
        load_workload(path)


def test_a_device_is_refused_unread() -> None:
    with pytest.raises(InputError, match="/dev/zero: is a device or a pipe"):
        load_workload("/dev/zero")
