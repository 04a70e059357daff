"""Private names of Ray stand in one file, and the Ray that is installed has them."""

import ast
import inspect
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.actor import ActorMethod

from fedsim.engine.ray import private

ROOT = Path(__file__).parents[3]
ALONE = "engine/ray/private.py"


def names(tree: ast.AST) -> Iterator[str]:
    """Private attributes of whatever is called ray, private keywords of calls, and Ray's own dunder names."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="init" | "options" | "remote"), keywords=keywords):
                yield from (key.arg for key in keywords if key.arg and key.arg.startswith("_"))
            case ast.Attribute(value=value, attr=name) if name.startswith("_"):
                owners = ast.unparse(value).split(".")
                if name.startswith("__ray") or {"ray", "_ray"} & set(owners):
                    yield name
            case ast.ImportFrom(module=str(module)) if f"{module}.".startswith("ray."):
                yield from (part for part in (*module.split("."), *(a.name for a in node.names)) if part[0] == "_")
            case ast.Constant(value=str(text)) if text.startswith(("RAY_ENABLE_", "_generator_", "__ray")):
                yield text


@pytest.mark.slow
def test_private_names_stand_in_one_file() -> None:
    package = ROOT / "fedsim"
    found = {
        path.relative_to(package).as_posix(): set(names(ast.parse(path.read_text(encoding="utf-8"))))
        for path in package.rglob("*.py")
    }
    assert {"_raylet", "_private", "_global_node", "__ray_call__"} <= found.pop(ALONE)
    assert {file: private for file, private in found.items() if private} == {}


@pytest.mark.parametrize(
    "line",
    [
        "ray._raylet.Config",
        "self._ray._private.x",
        "ray.init(_temp_dir=1)",
        "a.__ray_call__.remote(f)",
        "from ray import _raylet",
    ],
)
def test_a_private_name_is_seen(line: str) -> None:
    assert list(names(ast.parse(line)))


def test_the_installed_ray_is_the_checked_one_and_pyproject_admits_no_other() -> None:
    assert version("ray").startswith(f"{private.CHECKED}.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(line.startswith(f"ray[default]>={private.CHECKED},<") for line in project["dependencies"])


def test_the_installed_ray_has_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,), (ahead,) = private.init_in("/tmp/x"), private.streaming_ahead(4)
    (variable,), (counted,) = private.NO_CLUSTER, private.counting(1)
    monkeypatch.setenv(variable, "1")  # is put back
    monkeypatch.setattr("ray._private.services.get_node_ip_address", ray._private.services.get_node_ip_address)
    assert folder in inspect.signature(inspect.unwrap(ray.init)).parameters or folder in inspect.getsource(ray.init)
    assert counted in inspect.getsource(ray.init)
    assert private.memory_seen(ray) > 0
    assert ahead in inspect.getsource(ActorMethod)
    assert variable == ray._private.ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    assert "__ray_call__" in inspect.getsource(ray.actor)
    before = private.set_clusters(ray, allowed=False)
    assert private.set_clusters(ray, allowed=before) is False
    private.read_environment_again(ray)
    assert callable(ray._private.node.Node.dead_processes)
    assert private.dead_processes(ray) == []
    parameters = SimpleNamespace(**vars(ray._private.parameter.RayParams()))
    assert {"node_ip_address", "ray_client_server_port"} <= set(vars(parameters))
    private.stay_on_loopback(ray, parameters)
    assert ray._private.services.get_node_ip_address() == parameters.node_ip_address == "127.0.0.1"
