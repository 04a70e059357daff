"""Reading untrusted YAML: plain values only, of reasonable size."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from fedsim.core.errors import InputError

LARGEST = 8_000_000
"""Maximum number of characters of a file, also with its aliases expanded."""
_DEEPEST = 50
_LONGEST_NUMBER = 80


def load_yaml(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """The value that `text` encodes; aliases become copies, so no two places share a mapping or a list.

    Raises:
        ValueError: it is not YAML, has a value that is not plain, or is too large or too deep; one line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Bounded
    try:
        return _unshared(yaml.load(text))
    except Exception as error:  # a scalar that does not match its tag raises nearly any exception
        raise ValueError(_problem(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file is missing, is too large, is not YAML, or holds something else.
    """
    try:
        content = load_yaml(_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a mapping of keys such as name, federation and training")
    return content


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Keys of nested mappings and lists joined by dots, with their values."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        yield prefix, node
        return
    for key, value in items:
        yield from flat(value, f"{prefix}.{key}" if prefix else str(key))


def _text(path: Path) -> str:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is a device or a pipe; give a file")
    if path.is_file() and path.stat().st_size > LARGEST:
        raise InputError(f"{path}: has {path.stat().st_size:,} bytes; a YAML file may have {LARGEST:,}")
    return path.read_text(encoding="utf-8")


class _Bounded(SafeConstructor):
    """Checks the expanded size of a document before constructing it, which would take time in proportion."""

    def construct_document(self, node: Node) -> Any:  # noqa: ANN401 - any YAML value
        size, depth = _extent(node, {})
        if depth > _DEEPEST:
            raise YAMLError(f"values are nested more than {_DEEPEST} deep, or an alias contains itself")
        if size > LARGEST:
            raise YAMLError(f"its aliases stand for more than {LARGEST:,} characters; write less")
        return super().construct_document(node)


def _extent(node: Node, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Characters and depth of a node with its aliases expanded."""
    if isinstance(node, ScalarNode):
        if str(node.tag).endswith((":int", ":float")) and len(node.value) > _LONGEST_NUMBER:
            raise YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} digits; no key takes one")
        return 1 + len(node.value), 0
    if id(node) not in known:
        known[id(node)] = math.inf, math.inf  # a node that contains itself is infinite
        inner = [one for pair in node.value for one in pair] if isinstance(node, MappingNode) else node.value
        extents = [_extent(one, known) for one in inner]
        known[id(node)] = 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)
    return known[id(node)]


def _unshared(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise YAMLError(f"the key {key!r:.60} is not text; put it between quotation marks")
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _problem(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f"line {mark.line + 1}: " if mark else ""
    if isinstance(error, RecursionError):
        problem = f"values are nested more than {_DEEPEST} deep"
    elif not isinstance(error, YAMLError):
        problem = f"a value is not what its tag says ({type(error).__name__}: {error})"
    return line + " ".join(str(problem or error).split())[:200]
