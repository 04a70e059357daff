"""The blocks of a document: files that it has its reader write, and commands with what they print.

```yaml my.yaml            a file of that name
```console                 `$ command`, then lines that its output must have, in this order; `...` is anything
```sh                      shown only: it needs a network, a cluster, or much time
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class File:
    """A file that the document shows whole."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command and lines of what it prints."""

    line: str
    expected: tuple[str, ...]


def blocks(page: Path) -> list[File | Command]:
    """All there is to do, in the document's order."""
    found: list[File | Command] = []
    text = page.read_text(encoding="utf-8")
    for language, name, body in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        if name:
            found.append(File(name, body))
        elif language == "console":
            for entry in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, *expected = entry.replace("\\\n", " ").splitlines()
                found.append(Command(line, tuple(filter(str.strip, expected))))
    return found


def workplace(folder: Path) -> Path:
    """A folder that is to a document's commands what a clone is to its reader."""
    shutil.copytree(ROOT / "workloads", folder / "workloads")
    shutil.copytree(ROOT / "clusters", folder / "clusters")
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a document's commands: this fedsim, and nothing kept outside the folder."""
    state = {"XDG_CACHE_HOME": str(folder / ".cache"), "FEDSIM_STATE": str(folder / ".state")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **state, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def perform(step: File | Command, folder: Path) -> None:
    """Write the file; or run the command, which must end well and print what the document says."""
    if isinstance(step, File):
        (folder / step.name).write_text(step.text, encoding="utf-8")
        return
    done = subprocess.run(
        ["bash", "-c", step.line], cwd=folder, env=surroundings(folder), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"$ {step.line}\n{done.stdout}"
    check(step, done.stdout)


def check(command: Command, *streams: str) -> None:
    """Assert that a command printed the lines that the document shows, those of a stream in their order."""
    rests = [[" ".join(line.split()) for line in printed.splitlines()] for printed in streams]
    for wanted in command.expected:
        pattern = re.escape(" ".join(wanted.split())).replace(r"\.\.\.", ".*")
        found = [(rest, at) for rest in rests for at, line in enumerate(rest) if re.fullmatch(pattern, line)]
        assert found, f"$ {command.line}\nhas no line {wanted!r} (any more) in\n{''.join(streams)}"
        rest, at = found[0]
        del rest[: at + 1]
