"""`--set KEY=VALUE` for study files, in which a dotted key of a workload may be one key of a section."""

from typing import Any

from fedsim.core.errors import InputError
from fedsim.workload.reading import parse_setting

# Below these keys of a study file, a dotted key is one key of the workload; `*` is a label.
_WORKLOAD_KEYS_BELOW = (
    ("set",),
    ("methods", "*"),
    ("regimes", "*"),
    ("axes",),
    ("tune", "grid"),
    ("tune", "space"),
    ("tune", "methods", "*"),
)


def override(content: dict[str, Any], setting: str) -> None:
    """Set a key of a study file's content.

    Raises:
        InputError: a key above it is not a section.
    """
    key, value = parse_setting(setting)
    *parents, last = _study_path(key)
    node: Any = content
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise InputError(f"--set {key}: {parent} is not a section")
    node[last] = value


def _study_path(key: str) -> list[str]:
    parts = key.split(".")
    for pattern in _WORKLOAD_KEYS_BELOW:
        depth = len(pattern)
        if len(parts) > depth and all(want in {"*", part} for want, part in zip(pattern, parts, strict=False)):
            return [*parts[:depth], ".".join(parts[depth:])]
    return parts
