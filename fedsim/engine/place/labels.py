"""Labels of Ray's nodes, and which of them clients ask for: Ray's label selectors, for nodes that fedsim chooses.

A node has labels from `ray start --labels`, or from its group on KubeRay, and Ray's own, which begin with `ray.io/`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from fedsim.core.text import counted

OF_RAY = "ray.io/"
"""What Ray's own labels begin with; it adds them when it starts on a node."""
_ID = "ray.io/node-id"
_SELECTOR = re.compile(r"(!?)(?:in\((.*)\)|(.*))")
_MOST = 5  # kinds of nodes in a message


def selects(selector: str, label: str | None) -> bool:
    """Whether a selector, such as `H100`, `!H100`, `in(H100,H200)` or `!in(H100,H200)`, takes a node's label.

    Args:
        selector: Of a key.
        label: The node's label of this key; None if it has none, which only `!` takes.
    """
    found = _SELECTOR.fullmatch(selector)
    assert found is not None, "it takes any text"
    negated, several, one = found.groups()
    return (label in (several.split(",") if several is not None else [one])) != bool(negated)


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Labels as `ray start --labels` takes them, without the node's id."""
    return ",".join(f"{key}={label}" for key, label in sorted((labels or {}).items()) if key != _ID)


def kinds_text(nodes: Iterable[Mapping[str, str]]) -> str:
    """The labels of some nodes, alike ones together: `2 nodes with accelerator=H100; 1 node without labels`."""
    kinds = sorted(Counter(map(labels_text, nodes)).items(), key=lambda kind: (-kind[1], kind[0]))
    texts = [f"{counted(count, 'node')} {f'with {text}' if text else 'without labels'}" for text, count in kinds]
    more = [f"{len(texts) - _MOST} other kinds"] if len(texts) > _MOST else []
    return "; ".join([*texts[:_MOST], *more])
