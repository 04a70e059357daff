"""docs/reference.md is what the code makes, and its tables have the columns of a real run."""

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import make_python
import pandas as pd
import pytest
from typer.main import get_command

import fedsim
from fedsim.cli import app as cli
from fedsim.engine.record.failures import Failure
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "reference.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_script_makes(make_reference: ModuleType, page: str) -> None:
    """On failure: python docs/make_reference.py."""
    assert page == make_reference.render() + "\n"


def test_the_page_about_python_is_what_its_script_makes() -> None:
    """On failure: python docs/make_python.py."""
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    assert page == make_python.render() + "\n"
    assert all(f"### fedsim.{name}\n" in page for name in fedsim.__all__)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    source = {"format": "phantom", "subjects": 3, "slices": 2, "size": 32}
    content = {
        "name": "small", "federation": {
            "cache": str(folder / "cache"), "matrix": [32, 32], "split": {"train": 0.4, "val": 0.3, "test": 0.3},
            "sites": [{"name": name, "source": source} for name in "AB"],
        },
        "model": {"channels": 2, "pools": 1}, "training": {"rounds": 1}, "engine": {"backend": "serial"},
        "time": {"latency_s": 1, "hierarchy": {"regions": 2}},
    }  # fmt: skip
    (folder / "small.yaml").write_text(write_yaml(content))
    fedsim.run(load_workload(folder / "small.yaml"), folder / "run")
    return folder / "run"


def columns_in(page: str, table: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    section = page.partition(f"### {table}.parquet\n")[2].partition("\n#")[0]
    return {name for line in section.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}


@pytest.mark.slow
@pytest.mark.parametrize("table", ["manifest", "rounds", "clients", "evaluation"])
def test_the_columns_are_those_of_a_run(page: str, run: Path, table: str) -> None:
    known, real = columns_in(page, table), set(pd.read_parquet(run / f"{table}.parquet"))
    of_methods = {"contrastive_ratio", "tune_loss", "discriminator_loss", "discriminator_accuracy"}
    assert known - of_methods == real - of_methods


def test_the_columns_of_failures_are_those_of_a_failure(page: str) -> None:
    assert columns_in(page, "failures") == {field.name for field in fields(Failure)}


def test_every_command_and_every_key_has_its_place(page: str) -> None:
    commands = get_command(cli.app).commands
    names = [name for name, command in commands.items() if not (hasattr(command, "commands") or command.hidden)]
    names += [f"{name} {inner}" for name, group in commands.items() for inner in getattr(group, "commands", {})]
    assert len(names) > 12
    assert [name for name in names if f"\n### fedsim {name}\n" not in page] == []
    keys = {key for kind in sections_of_the_schema() for key in kind["properties"]}
    assert len(keys) > 60
    assert [key for key in sorted(keys) if f"| `{key}` |" not in page and f"`{key}` is one of" not in page] == []


def sections_of_the_schema() -> list[dict[str, object]]:
    """Every section of the JSON schema that editors get."""
    schema = Workload.model_json_schema()
    return [schema, *(kind for kind in schema["$defs"].values() if "properties" in kind)]


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for file in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "clusters" / "README.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
            if re.match(r"https?:", target):
                continue
            path, _, place = target.partition("#")
            page = file.parent / path if path else file
            assert page.exists(), f"{file.name}: {target}"
            assert not place or place in headings(page), f"{file.name}: {target}"


def test_every_file_that_the_documents_name_is_there() -> None:
    named = re.compile(r"(?<![\w./-])((?:fedsim|tests|benchmarks|docs|workloads|clusters)/[\w./*-]*\.\w+)")
    missing = {
        f"{file.name}: {path}"
        for file in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"), DOCS.parent / "clusters" / "README.md"]
        if file.name != "CHANGELOG.md"  # tells what files were called before
        for path in named.findall(file.read_text(encoding="utf-8"))
        if not [*DOCS.parent.glob(path)]
    }
    assert missing == set()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def headings(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)}


def anchor(heading: str) -> str:
    """What a heading is called in links."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
