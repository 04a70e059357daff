"""docs/tutorial.md: every command is run as it stands there; a quick look finds what no longer exists."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fedsim.cli import app as cli
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload

from .blocks import DOCS, ROOT, File, blocks, perform, surroundings, workplace

PAGES = [*sorted(path.name for path in DOCS.glob("howto-*.md")), "tutorial.md"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """What a clone is to its reader; no cluster is left running."""
    yield workplace(tmp_path)
    subprocess.run(["clusters/local.sh", "down"], cwd=tmp_path, env=surroundings(tmp_path), check=True)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_tutorial_does_what_it_says(folder: Path) -> None:
    for step in blocks(DOCS / "tutorial.md"):
        perform(step, folder)


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """A fedsim command's name and its parameters, as typer reads them; exits if it does not know them."""
    command, name = get_command(cli.app), "fedsim"
    while hasattr(command, "commands"):
        word, *words = words
        assert word in command.commands, f"{name} has no command {word}"
        command, name = command.commands[word], f"{name} {word}"
    return name, command.make_context(name, words).params


def fedsim_commands(line: str) -> list[list[str]]:
    """The words after each `fedsim` of a shell line."""
    parts = [[]]
    for word in shlex.split(line.replace(";", " ; ")):
        parts.append([]) if word in {";", "&&", "|"} else parts[-1].append(word)
    return [words[1:] for words in parts if words[:1] == ["fedsim"]]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_can_be_read_and_every_file_is_there(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    steps, checked = blocks(DOCS / page), 0
    for step in steps:
        if isinstance(step, File):
            perform(step, tmp_path)
            continue
        for words in fedsim_commands(step.line):
            name, given = parsed(words)
            checked += 1
            if "status 2" not in step.expected and "model.name=cascade" not in words:
                load(name, given)
    assert checked >= (1 if any(word in page for word in ("network", "cluster", "gpu")) else 5)
    assert (ROOT / "docs" / page).read_text().count("```") % 2 == 0


def load(name: str, given: dict[str, Any]) -> None:
    """Read the workload or study that a command is given, with its overrides."""
    file = given.get("workload") or given.get("study_file") or (given.get("file") if "submit" in name else None)
    if file is not None:
        text = (Path.cwd() / file).read_text(encoding="utf-8")
        loader = load_study if "\nworkload:" in text else load_workload
        loader(Path(file), given.get("overrides") or [])
