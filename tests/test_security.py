"""What fedsim promises to whoever runs it on files from others: it runs nothing of them, and no name is a path."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

import fedsim
from fedsim.analysis.reconstruct import reconstruct_file
from fedsim.core.errors import InputError
from fedsim.core.section import InsidePath, Name
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.names import safe_name
from fedsim.data.shard import Shard, write_shard
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation, run
from fedsim.workload.reading import load_workload, write_yaml


def workload_file(folder: Path, **more: Any) -> Path:
    source = {"format": "phantom", "subjects": 3, "slices": 2, "size": 32}
    content = {
        "name": "small",
        "federation": {
            "cache": str(folder / "cache"), "matrix": [32, 32], "split": {"train": 0.4, "val": 0.3, "test": 0.3},
            "sites": [{"name": name, "source": source} for name in "AB"],
        },
        "model": {"channels": 2, "pools": 1}, "training": {"rounds": 1}, "engine": {"backend": "serial"},
    }  # fmt: skip
    path = folder / "small.yaml"
    path.write_text(write_yaml(content | more))
    return path


# fedsim's own source

REFUSED = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle", "cPickle", "dill", "marshal", "shelve",
    "joblib", "torch.load", "torch.jit.load", "torch.hub", "pandas.read_pickle", "yaml",
}  # fmt: skip
BUILT_IN = {"eval", "exec", "compile", "__import__"}
SAFE_YAML = {"safe", "rt"}


def refused_in(code: str) -> list[str]:
    """What in some code could run what a file says: by full name, whatever it is imported as, or by arguments."""
    tree, found = ast.parse(code), []
    full_names = imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                found += [name for name in imported(node).values() if {name, name.partition(".")[0]} & REFUSED]
            case ast.Name() | ast.Attribute():
                first, *more = ast.unparse(node).split(".")
                name = ".".join([full_names.get(first, first), *more])
                found += [name] if name in REFUSED and (first in full_names or name in BUILT_IN) else []
            case ast.Call(function, _, keywords):
                name, given = ast.unparse(function), {word.arg: ast.unparse(word.value) for word in keywords}
                found += [f"{name}(allow_pickle)"] if given.get("allow_pickle", "False") != "False" else []
                found += [f"{name}(shell)"] if given.get("shell", "False") != "False" else []
                kind = ast.literal_eval(given.get("typ", "'rt'")) if name == "YAML" else "safe"
                found += [f"YAML({kind})"] if kind not in SAFE_YAML else []
    return found


def imported(tree: ast.AST) -> dict[str, str]:
    """Full names by the names that the imports below a node give them."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(aliases):
                names |= {
                    one.asname or one.name.partition(".")[0]: one.name if one.asname else one.name.partition(".")[0]
                    for one in aliases
                }
            case ast.ImportFrom(module, aliases):
                names |= {one.asname or one.name: f"{module}.{one.name}" for one in aliases}
    return names


@pytest.mark.parametrize("code", [
    "import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "from torch import load",
    "eval('1')", "np.load(path, allow_pickle=True)", "subprocess.run(x, shell=True)",
    "import pandas as pd\npd.read_pickle(x)", "YAML(typ='unsafe')",
    "import shelve", "import yaml", "import torch as t\nt.load('x')",
    "from numpy import load\nload(x, allow_pickle=True)",
    "run = eval", "from os import system as s", "getattr(builtins, x)(exec)",
])  # fmt: skip
def test_the_search_finds_what_is_refused(code: str) -> None:
    assert refused_in(code)


@pytest.mark.slow
def test_fedsims_source_calls_nothing_that_runs_what_a_file_says() -> None:
    files = list(Path(fedsim.__file__).parent.rglob("*.py"))
    assert len(files) > 80
    assert {path.name: found for path in files if (found := refused_in(path.read_text(encoding="utf-8")))} == {}


# Names

ESCAPES = [
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc",
    "~",
    ".hidden",
    "-rf",
    "a\n",
    "C:",
    "a\0",
    "",
    "A" * 65,
    "Å",
    "a b",
    "<b>",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_in_a_workload_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)
    for setting in ("name", "federation.sites.0.name"):
        with pytest.raises(InputError, match=setting.replace("sites.0", r"sites\.0")):
            load_workload(workload_file(tmp_path), [f"{setting}={json.dumps(name)}"])


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "a\\..\\..\\x", "/etc", "~/x", "C:\\x", "a\0b"])
def test_a_path_of_a_site_stays_in_root(path: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(InsidePath).validate_python(path)


@pytest.mark.parametrize("text", ["../../x", "a/b", "..", "a\0b", "<script>", "C:\\x", "x" * 300, "~root", "-rf"])
def test_a_name_from_a_file_is_made_safe(text: str) -> None:
    try:
        name = safe_name(text)
    except InputError:
        return
    assert name.replace("-", "").replace("_", "").isalnum()
    assert 0 < len(name) <= 100


@pytest.mark.parametrize("what", ["file", "folder", "inner"])
def test_a_link_that_leads_outside_is_refused(what: str, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "site", outside):
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 32), 9, np.uint8)).save(folder / "1.png")
    link, target = {
        "file": (root / "site" / "2.png", outside / "1.png"),
        "folder": (root / "linked", outside),
        "inner": (root / "site" / "3.png", root / "site" / "1.png"),
    }[what]
    link.symlink_to(target)
    source = ImageFolder(format="png", path="linked" if what == "folder" else "site")
    if what == "inner":
        assert source.files(root) == [root / "site" / "1.png"], "one image, read once"
        return
    with pytest.raises(InputError, match=r"leads outside federation\.root"):
        source.files(root)


def by_hand(shard: Path, name: str) -> None:
    with h5py.File(shard, "r+") as file:
        first = next(iter(file["kspace"]))
        file["kspace"].move(first, name)


def linked_elsewhere(shard: Path, name: str) -> None:
    with h5py.File(shard, "r+") as file:
        first = next(iter(file["kspace"]))
        file.copy(f"kspace/{first}", file, name)
        del file["kspace"][first]
        file["kspace"][first] = h5py.ExternalLink(str(shard), f"/{name}")


@pytest.mark.parametrize(
    ("change", "name"), [(by_hand, "../evil"), (by_hand, ".."), (by_hand, "a\\b"), (linked_elsewhere, "x")]
)
def test_a_shard_made_by_hand_names_no_other_file(
    change: Callable[[Path, str], None], name: str, tmp_path: Path
) -> None:
    workload = load_workload(workload_file(tmp_path))
    (site, _) = workload.federation.expanded_sites()
    shard = tmp_path / "shard.h5"
    write_shard(site.source.resolve(0, "A"), Path(), (32, 32), shard)
    with Shard(shard) as opened:
        assert len(opened.volumes()) == 3
    change(shard, name)
    with Shard(shard) as opened, pytest.raises(InputError, match="is damaged, or not a shard"):
        opened.volumes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    return run(load_workload(workload_file(folder)), folder / "run")


@pytest.mark.parametrize("client", ["../../x", "/etc/passwd", "A/../A", "..", "", "A.safetensors", "A\0"])
def test_a_client_is_one_of_the_runs(client: str, finished: Run, tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="--client "):
        list(reconstruct_file(finished, client, tmp_path / "1.png", "best", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_images_are_saved_by_names_from_files_inside_their_folder(tmp_path: Path) -> None:
    for subject in ("..", "-rf", "a b", "<script>", "~"):
        folder = tmp_path / "data" / f"x{subject}"
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "1.png")
    federation = {
        "root": str(tmp_path / "data"), "cache": str(tmp_path / "cache"), "matrix": [32, 32],
        "sites": [{"name": "A", "source": {"format": "png", "path": ".", "subject": "folder"}}],
    }  # fmt: skip
    workload = load_workload(workload_file(tmp_path, federation=federation))
    before = {*tmp_path.rglob("*")}
    with Simulation(workload, tmp_path / "run") as simulation:
        simulation.run()
        simulation.evaluate("train", "last", images=True)
    saved = [path for path in (tmp_path / "run" / "images").rglob("*") if path.is_file()]
    assert len(saved) == 2
    new = {*tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(tmp_path / "run") or path.is_relative_to(tmp_path / "cache") for path in new)
    assert all(path.stem.replace("-", "").replace("_", "").isalnum() for path in saved)
