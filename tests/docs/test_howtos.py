"""The how-tos: what they have their reader write and run, done as they say."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

from .blocks import DOCS, ROOT, Command, File, blocks, perform, workplace


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["howto-data.md", "howto-method.md"])
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    folder = workplace(tmp_path)
    for step in blocks(DOCS / page):
        perform(step, folder)


def patched(source: str, diff: str) -> str:
    """The file with each line that begins with - replaced by the + line after it; what is added first stands first."""
    lines = diff.splitlines()
    for line, following in itertools.pairwise(lines):
        if line.startswith("-"):
            assert source.count(line[1:] + "\n") == 1, line
            source = source.replace(line[1:], following[1:])
    first = '"""\n\n'
    return source.replace(first, f"{first}{lines[0][1:]}\n", 1)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_network_joins_by_the_lines_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workplace(tmp_path)
    shutil.copytree(ROOT / "fedsim", folder / "fedsim", ignore=shutil.ignore_patterns("__pycache__"))
    page = DOCS / "howto-network.md"
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    config = folder / "fedsim" / "config.py"
    config.write_text(patched(config.read_text(), diff))
    monkeypatch.setenv("PYTHONPATH", str(folder))  # before the installed one
    file, command = blocks(page)
    assert isinstance(file, File)
    assert isinstance(command, Command)
    (folder / "fedsim" / "models" / file.name).write_text(file.text)
    program = "python -c 'from fedsim.cli import main; main()'"
    perform(Command(command.line.replace("fedsim", program, 1), command.expected), folder)
