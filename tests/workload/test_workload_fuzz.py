"""Workload files, study files and --set on whatever anybody may write: a Workload, or one line, never anything else."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsim.core.errors import InputError
from fedsim.study.study import StudyPlan, load_study
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload

FUZZ = settings(
    deadline=None, derandomize=True, max_examples=150, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
VALID: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "federation": {
        "root": "data",
        "cache": "cache",
        "clients": 3,
        "matrix": [32, 32],
        "split": {"by": "subject", "train": 0.5, "val": 0.25, "test": 0.25, "gap": 1},
        "normalise": "std",
        "sites": [
            {"name": "A", "count": 2, "source": {"format": "phantom", "subjects": 4, "contrast": ["t1"], "te": [5, 9]}},
            {"name": "B", "source": {"format": "tiff", "path": "b", "channel": [0, 1]}, "training": {"lr": 0.1}},
            {"name": "C", "source": {"format": "nifti", "path": "c", "contrast": "t1", "slices": [0, 4]}, "unseen": 1},
            {"name": "D", "source": {"format": "matlab", "path": "d", "variable": "img"}, "resources": {"cpus": 1}},
        ],
    },
    "model": {"name": "unet", "channels": 2, "pools": 2},
    "algorithm": {"name": "fedmri", "beta": 1.0},
    "training": {"rounds": 2, "batch_size": 2, "lr": 1e-3},
    "engine": {"backend": "serial", "state_memory": 1.0, "scratch": "scratch", "keep_last": 2},
    "metrics": {"protocol": "fastmri", "every": 1},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "tiny",
    "workload": "small.yaml",
    "set": {"training.rounds": 2},
    "seeds": [1, 2],
    "reference": "fedavg",
    "methods": {"single": None, "fedavg": {}},
    "regimes": {"all": {}},
    "tune": {"seed": 9, "grid": {"training.lr": [0.1, 0.2]}, "methods": {"fedavg": {"training.batch_size": [1]}}},
}

TRICKS = [
    "../../x", "/etc/passwd", "~root/x", "~nobody-here/x", "NUL", "CON", "a/b", "a\\b", "C:\\x", "a\0b", "a\nb", "a\tb",
    "\x1b[31mred", "<b>bold</b>", "[red]x[/red]", "{{ 7 * 7 }}", "${HOME}", "$(id)", "%s%n", "", " ", ".", "..",
    "...", "-", "--", "-x", "_x", "x" * 65, "x" * 300, "x/" * 700, "\u0410", "\uff21", "\u202etxt", "A\u0301",
    "\ud800", "\U0001f9e0", "nan", "null", "yes", "1e5", "0x10", "1_000", "1:30", "os:system", "json:../x",
    "x.y:Z", "a:b:c", ":", "x:", ":x",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 15, 17, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**79, -(10**79), 10**300, 10**4000, 0.5,
    -0.0, 1.0, 1.5, 1e-300, 1e300, -1e300, float("nan"), float("inf"), -float("inf"), True, False,
]  # fmt: skip
SCALARS: st.SearchStrategy[Any] = (
    st.sampled_from(TRICKS) | st.sampled_from(NUMBERS) | st.none() | st.text(max_size=20) | st.integers() | st.floats()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ELSEWHERE = ("/etc/passwd: ", "/nowhere/x: ")  # what a study may be told is its base
KEYS = st.sampled_from([
    "", "x", "name", "count", "format", "kind", "path", "a.b", "Name", "nam\u0435", "lr", "seed", "<<", "1",
    "true", "\n", "\x1b", "x" * 5000, "__class__", "__init__", "model_config",
])  # fmt: skip


def places(node: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the keys and items of nested mappings and lists are."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*at, key)
        yield from places(value, (*at, key))


@st.composite
def damaged(draw: st.DrawFn, content: dict[str, Any]) -> Any:
    """`content` with one to three values replaced, dropped, doubled or renamed."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(list(places(content))))
        node: Any = content
        for part in where[:-1]:
            node = node[part]
        match draw(st.sampled_from(("replace", "replace", "replace", "drop", "add", "rename", "wrap", "repeat"))):
            case "replace":
                node[where[-1]] = draw(VALUES)
            case "drop" if len(content) > 1:
                del node[where[-1]]
            case "add" if isinstance(node, dict):
                node[draw(KEYS)] = draw(VALUES)
            case "rename" if isinstance(node, dict):
                node[draw(KEYS)] = node.pop(where[-1])
            case "wrap":
                for _ in range(draw(st.sampled_from((1, 2, 40, 60)))):
                    node[where[-1]] = [node[where[-1]]]
            case "repeat" if isinstance(node, list):
                node.extend([copy.deepcopy(node[0])] * draw(st.integers(1, 3)))
    return content


def text_of(content: Any) -> str:
    """YAML of it: JSON is YAML, with numbers that Python's JSON may lack and any number of digits."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {text_of(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list):
        return "[" + ", ".join(map(text_of, content)) + "]"
    if isinstance(content, int) and not isinstance(content, bool) and abs(content) > 10**100:
        return hex(content) if content > 10**1000 else f"{content}"
    if isinstance(content, float) and (math.isnan(content) or content in (float("inf"), -float("inf"))):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(content)]
    return json.dumps(content)


def outcome(load: Callable[[], Workload | StudyPlan], where: Sequence[str]) -> None:
    """Loads; what is wrong must be one short line of text that names the file or the key."""
    begun = time.monotonic()
    try:
        loaded = load()
    except InputError as error:
        message = str(error)
        assert "\n" not in message
        assert message.isprintable(), message
        assert len(message) < 2000
        assert any(part in message for part in where), message
    else:
        assert isinstance(loaded, Workload | StudyPlan)
        if isinstance(loaded, Workload):
            json.loads(loaded.model_dump_json())
    assert time.monotonic() - begun < 30


def damage_workload(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(text_of(content), encoding="utf-8")
    outcome(lambda: load_workload(path), [str(path), "algorithm.name"])


def damage_study(tmp_path: Path, content: Any) -> None:
    (tmp_path / "small.yaml").write_text(text_of(VALID))
    path = tmp_path / "tiny.yaml"
    path.write_text(text_of(content), encoding="utf-8")
    outcome(lambda: load_study(path), [str(tmp_path), *ELSEWHERE])


def test_the_undamaged_ones_are_valid(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(text_of(VALID))
    (tmp_path / "tiny.yaml").write_text(text_of(STUDY))
    workload = load_workload(tmp_path / "small.yaml")
    assert [site.name for site in workload.federation.expanded_sites()] == ["A-001", "A-002", "B", "D"]
    assert load_study(tmp_path / "tiny.yaml").describe() == "1 regime x 2 methods x 2 seeds, after 4 tuning runs"


@pytest.mark.slow
@FUZZ
@given(content=damaged(VALID))
def test_damaged_workloads(tmp_path: Path, content: Any) -> None:
    damage_workload(tmp_path, content)


@pytest.mark.slow
@FUZZ
@given(content=damaged(STUDY))
def test_damaged_studies(tmp_path: Path, content: Any) -> None:
    damage_study(tmp_path, content)


@pytest.mark.long
@settings(FUZZ, max_examples=10_000)
@given(content=damaged(VALID))
def test_many_damaged_workloads(tmp_path: Path, content: Any) -> None:
    damage_workload(tmp_path, content)


@pytest.mark.long
@settings(FUZZ, max_examples=5000)
@given(content=damaged(STUDY))
def test_many_damaged_studies(tmp_path: Path, content: Any) -> None:
    damage_study(tmp_path, content)


YAML_TEXT = st.text(st.sampled_from(list("abx01 \n\t:-?#&*!|>'\"%@`,[]{}<=~.\\_\ufeff\0\x85\u2028")), max_size=60)


@pytest.mark.slow
@FUZZ
@given(begin=YAML_TEXT, middle=YAML_TEXT, end=YAML_TEXT, at=st.integers(0, 2000))
def test_text_that_is_hardly_yaml(tmp_path: Path, begin: str, middle: str, end: str, at: int) -> None:
    text = write_yaml(VALID)
    path = tmp_path / "small.yaml"
    path.write_text(begin + text[:at] + middle + text[at:] + end, encoding="utf-8")
    outcome(lambda: load_workload(path), [str(path)])


@FUZZ
@given(content=st.binary(max_size=400))
def test_binary_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    outcome(lambda: load_workload(path), [str(path)])


PATHS = [".".join(map(str, where)) for content in (VALID, STUDY) for where in places(content)]


@pytest.mark.slow
@FUZZ
@given(
    key=st.sampled_from(PATHS)
    | st.sampled_from(TRICKS)
    | st.text(max_size=30)
    | st.lists(KEYS, max_size=30).map(".".join),
    value=VALUES.map(text_of) | YAML_TEXT | st.sampled_from(TRICKS),
    equals=st.sampled_from(("=", "=", "=", "==", "", " = ")),
)
def test_overrides(tmp_path: Path, key: str, value: str, equals: str) -> None:
    (tmp_path / "small.yaml").write_text(text_of(VALID))
    (tmp_path / "tiny.yaml").write_text(text_of(STUDY))
    where = [str(tmp_path), "--set", "algorithm.name", *ELSEWHERE]
    outcome(lambda: load_workload(tmp_path / "small.yaml", [key + equals + value]), where)
    outcome(lambda: load_study(tmp_path / "tiny.yaml", [key + equals + value]), where)


def test_an_override_reaches_one_place_of_an_alias(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    sites = [f"{{name: {name}, source: {{format: phantom}}, mask: {mask}}}"
             for name, mask in (("A", "&m {kind: radial}"), ("B", "*m"))]  # fmt: skip
    path.write_text(f"name: x\nfederation: {{sites: [{', '.join(sites)}]}}\n")
    one, other = load_workload(path, ["federation.sites.0.mask.acceleration=8"]).federation.sites
    assert (one.mask.acceleration, other.mask.acceleration) == (8, 4)
