"""Reading KubeRay's manifests, checking them against the operator's own schemas, and writing them."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from fedsim.core.errors import InputError, hint
from fedsim.core.yaml import load_yaml
from fedsim.jobs.common import planned_node

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

    from fedsim.engine.place.node import Node

Kind = Literal["RayJob", "RayCluster"]
_UNITS = {
    "": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_QUANTITY = re.compile(rf"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)({'|'.join(_UNITS)})")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # in YAML 1.1, which kubectl reads


def read_manifest(path: Path, kind: Kind) -> dict[str, Any]:
    """Read a manifest that the operator would accept.

    Raises:
        InputError: the file cannot be read, or a field is wrong.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); give one {kind}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a manifest; give one {kind} of ray.io/v1")
    check(content, kind, path)
    return content


def check(manifest: Mapping[str, Any], kind: Kind, path: Path) -> None:
    """Refuse what the operator would refuse or, worse, silently drop.

    Raises:
        InputError: names the field.
    """
    errors = sorted(
        _validator(kind).iter_errors(manifest), key=lambda error: [str(part) for part in error.absolute_path]
    )
    unknown = [error for error in errors if error.validator == "additionalProperties"]
    if errors:
        raise InputError(f"{path}: {_describe((unknown or errors)[0])}")


def groups_of(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The head's group and the workers' groups of a Ray cluster."""
    return [cluster["headGroupSpec"], *(cluster.get("workerGroupSpecs") or [])]


def pods_of(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pod of each group."""
    return [group["template"]["spec"] for group in groups_of(cluster)]


def nodes_of(cluster: Mapping[str, Any], path: Path) -> "tuple[Node, ...] | None":
    """The nodes with cores of a Ray cluster; None if the manifest leaves out limits or replicas.

    Raises:
        InputError: a value is not a quantity.
    """
    nodes: list[Node] = []
    for group in groups_of(cluster):
        name, replicas = (
            group.get("groupName", "head"),
            group.get("replicas", None if "groupName" in group else 1),
        )
        limits = (group["template"]["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
        started = group.get("rayStartParams") or {}
        cpus = started.get("num-cpus", limits.get("cpu"))
        if replicas is None or cpus is None or "memory" not in limits:
            return None
        cores, gpus, memory = (
            quantity(value, f"{path}: {name}") for value in (cpus, limits.get("nvidia.com/gpu", 0), limits["memory"])
        )
        labels = group.get("labels") or {}
        numbers = range(1, replicas + 1 if cores else 1)
        nodes += [planned_node(f"{name} {number}", cores, gpus, memory, labels) for number in numbers]
    return tuple(nodes)


def as_yaml(*manifests: Mapping[str, Any]) -> str:
    """Manifests as one YAML text, keys in their given order, readable as YAML 1.1 and 1.2."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.Representer = _Clear
    yaml.default_flow_style = False
    yaml.width = 10**6
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump_all([dict(manifest) for manifest in manifests], text)
    return text.getvalue()


class _Clear(SafeRepresenter):
    """Represent multi-line text as a block and other text in quotes unless it is clearly a word."""

    def represent_str(self, data: str) -> ScalarNode:
        plain = _PLAIN.fullmatch(data) and data.lower() not in _NOT_TEXT
        style = "|" if "\n" in data else None if plain else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Clear.add_representer(str, _Clear.represent_str)


@cache
def _validator(kind: Kind) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator

    schemas = json.loads(files("fedsim.jobs").joinpath("kuberay_schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator({**schemas, "$ref": f"#/$defs/{kind}"})


def _describe(error: "ValidationError") -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        name = min(str(key) for key in error.instance if key not in known)
        told = hint(name, sorted(known), "known here")[:300]
        return f"{'.'.join(filter(None, [where, name]))}: unknown field; {told}"
    return f"{where}: {error.message[:300]}" if where else error.message[:300]


def quantity(value: object, where: str) -> float:
    """A quantity as Kubernetes writes it, such as 500m, 16, 1e3 or 60Gi, in units or bytes.

    Args:
        value: Text or a number of a manifest.
        where: File and field, for the error.

    Raises:
        InputError: it is not a quantity.
    """
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise InputError(f"{where}: {value!r:.40} is not a quantity; write 16, 500m or 60Gi")
    return float(found[1]) * _UNITS[found[2]]
