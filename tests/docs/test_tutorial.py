"""The tutorial: every chapter is run, as a notebook; a quick look at it and the how-tos finds what no longer exists."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_notebooks
import nbformat
import pytest
from make_notebooks import CHAPTERS
from nbclient import NotebookClient
from typer.main import get_command

from fedsim.cli import app as cli
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload

from .blocks import DOCS, Command, File, blocks, check, perform, surroundings, workplace

PAGES = {path.stem: (path,) for path in sorted(DOCS.glob("howto-*.md"))} | {"tutorial": CHAPTERS}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a clone is to its reader; no cluster is left running."""
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / f".{name}"))
    yield workplace(tmp_path)
    subprocess.run(["clusters/local.sh", "down"], cwd=tmp_path, env=surroundings(tmp_path), check=True)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_chapters_do_what_they_say_as_notebooks(folder: Path) -> None:
    """In order and in one folder; a cell that fails raises, and each command prints what its chapter says."""
    for chapter in CHAPTERS:
        book = executed(make_notebooks.notebook(chapter), folder)
        printed = [printed_by(cell) for cell in book.cells if cell.source.startswith("%%bash")]
        commands = [step for step in blocks(chapter) if isinstance(step, Command)]
        for command, streams in zip(commands, printed, strict=True):
            check(command, *streams)
        assert all(cell.outputs for cell in book.cells if cell.cell_type == "code"), chapter


def executed(text: str, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in the folder."""
    client = NotebookClient(nbformat.reads(text, 4), timeout=900, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=surroundings(folder))


def printed_by(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell's command printed to each stream, without colours; a notebook does not keep the order of both."""
    texts = {"stdout": "", "stderr": ""}
    for output in cell.outputs:
        texts[output.name] += re.sub(r"\x1b\[[\d;]*m", "", output.text)
    return list(texts.values())


def test_a_notebook_has_the_chapter_in_cells_and_is_the_same_every_time() -> None:
    texts = [make_notebooks.notebook(chapter) for chapter in CHAPTERS]
    assert texts == [make_notebooks.notebook(chapter) for chapter in CHAPTERS]
    for chapter, text in zip(CHAPTERS, texts, strict=True):
        book = nbformat.reads(text, 4)
        nbformat.validate(book)
        sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
        for step in blocks(chapter):
            wanted = (
                f"%%writefile {step.name}\n{step.text}".rstrip() if isinstance(step, File) else f"%%bash\n{step.line}"
            )
            assert wanted in sources
        assert "](../" not in text
        assert "](attachment:quickstart-panel.png)" in text or chapter != CHAPTERS[0]


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


@pytest.mark.parametrize("name", PAGES)
def test_every_command_can_be_read_and_every_file_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    checked = 0
    for step in (step for page in PAGES[name] for step in blocks(page)):
        if isinstance(step, File):
            perform(step, tmp_path)
            continue
        for words in fedsim_commands(step.line):
            command, given = parsed(words)
            checked += 1
            if "status 2" not in step.expected and "model.name=cascade" not in words:
                load(command, given)
    few = {"howto-watch": 0} | dict.fromkeys(("howto-network", "howto-cluster", "howto-gpu", "howto-trackers"), 1)
    assert checked >= few.get(name, 5)
    assert all(page.read_text(encoding="utf-8").count("```") % 2 == 0 for page in PAGES[name])


def load(name: str, given: dict[str, Any]) -> None:
    """Read the workload or study that a command is given, with its overrides."""
    file = given.get("workload") or given.get("study_file") or (given.get("file") if "submit" in name else None)
    if file is not None:
        text = (Path.cwd() / file).read_text(encoding="utf-8")
        loader = load_study if "\nworkload:" in text else load_workload
        loader(Path(file), given.get("overrides") or [])
