"""The schemas that manifests are checked with are those of KubeRay's own definitions; run as a script, writes them.

python tests/jobs/test_kuberay_schema.py FOLDER, where FOLDER has ray.io_rayjobs.yaml and ray.io_rayclusters.yaml of
https://github.com/ray-project/kuberay/tree/master/ray-operator/config/crd/bases (Apache-2.0).
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsim.core.errors import InputError
from fedsim.jobs.manifest import quantity

WRITTEN = Path(__file__).parents[2] / "fedsim" / "jobs" / "kuberay_schema.json"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
LEFT_OUT = ("description", "format", "x-kubernetes-")
WORTH_A_NAME = 100  # characters


def definition(path: Path, kind: str) -> dict[str, Any]:
    """What a manifest of this kind may say: without status, with nothing that the schema does not name."""
    (version,) = (
        one for one in yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"] if one["name"] == "v1"
    )
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fixed = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    properties = {**fixed, "metadata": {"type": "object"}, "spec": closed(spec)}
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": sorted(properties)}


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    open_to_more = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: closed(one) for name, one in value.items()}  # a field may be called description
        elif not key.startswith(LEFT_OUT):
            kept[key] = closed(value)
    return kept if "properties" not in kept or open_to_more else {**kept, "additionalProperties": False}


def shared(schemas: dict[str, Any]) -> dict[str, Any]:
    """Every part that is there more than once, under a name, once."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    named: dict[str, Any] = {}

    def text(part: Any) -> str:
        return json.dumps(part, sort_keys=True)

    def count(part: Any) -> None:
        if isinstance(part, dict):
            counts[text(part)] += 1
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            count(inner)

    def refer(part: Any) -> Any:
        if isinstance(part, list):
            return [refer(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "type" not in part or counts[text(part)] == 1 or len(text(part)) < WORTH_A_NAME:
            return {key: refer(inner) for key, inner in part.items()}
        if text(part) not in names:
            names[text(part)] = name = f"part{len(names) + 1}"
            named[name] = {key: refer(inner) for key, inner in part.items()}
        return {"$ref": f"#/$defs/{names[text(part)]}"}

    count(schemas)
    whole = {kind: refer(schema) for kind, schema in schemas.items()}
    return {"$defs": {**whole, **named}}


def made_from(folder: Path) -> str:
    schemas = {kind: definition(folder / name, kind) for kind, name in KINDS.items()}
    return json.dumps(shared(schemas), separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n"


@pytest.mark.slow
def test_the_schemas_are_those_of_the_operator() -> None:
    default = Path(__file__).parents[3] / "shared" / "schemas" / "kuberay"
    folder = Path(os.environ.get("FEDSIM_KUBERAY_CRDS", default))
    if not folder.is_dir():
        pytest.skip(f"no CRDs of KubeRay at {folder}; set FEDSIM_KUBERAY_CRDS to a folder with them")
    assert WRITTEN.read_text() == made_from(folder)


if __name__ == "__main__":
    WRITTEN.write_text(made_from(Path(sys.argv[1])))


@pytest.mark.parametrize(("text", "amount"), [
    (16, 16), ("0.5", 0.5), (".5", 0.5), ("500m", 0.5), ("5u", 5e-6), ("2n", 2e-9), ("1k", 1e3), ("60Gi", 60 * 2**30),
    ("3G", 3e9), ("1Ki", 1024), ("2Pi", 2**51), ("1e3", 1e3), ("1E", 1e18), ("1E3", 1e3), ("1Ei", 2**60),
])  # fmt: skip
def test_a_quantity_is_read_as_kubernetes_does(text: object, amount: float) -> None:
    assert quantity(text, "pod") == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize("text", ["", "60ki", "60mi", "16 cores", "-1", "Gi", "1.2.3", None])
def test_what_is_no_quantity_is_refused_with_its_place(text: object) -> None:
    with pytest.raises(InputError, match=r"^pod: .* is not a quantity; write 16, 500m or 60Gi$"):
        quantity(text, "pod")
