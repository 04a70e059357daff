"""Bad inputs run through the command line; `python -m tests.cli.bad_inputs` prints a table by kind."""

import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from fedsim.cli import app as cli

from .conftest import SMALL

Prepare = Callable[[Path], object]


def nothing(_folder: Path) -> None:
    """Leave the folder as it is."""


@dataclass(frozen=True)
class Bad:
    """One bad input."""

    kind: str
    what: str
    """Distinct within the catalogue."""
    arguments: tuple[str, ...]
    names: str
    """What the message must name: a file, a key or an argument."""
    prepare: Prepare = nothing
    """Writes what is bad into a folder that holds small.yaml and an empty data."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    error: str
    """What it wrote to stderr."""
    left: tuple[str, ...]
    """What lies in the folder, or half-written in the cache, that did not before."""

    def faults(self, bad: Bad) -> list[str]:
        """What is wrong with how the input was refused; empty if nothing is."""
        one_line = self.error.count("\n") == 1 and self.error.startswith("fedsim: ")
        return [
            fault
            for fault, is_so in (
                (f"exit status {self.status}", self.status != 2),
                ("not one line", not one_line),
                ("a traceback", "Traceback" in self.error),
                (f"does not name {bad.names}", bad.names not in self.error),
                ("calls it a bug in fedsim", "bug in fedsim" in self.error),
                ("cannot be shown", not self.error[:-1].isprintable()),
                (f"left {', '.join(self.left)}", bool(self.left)),
            )
            if is_so
        ]


def settings(kind: str, cases: Iterable[str | tuple[str, str]]) -> Iterator[Bad]:
    """Inputs of `fedsim run small.yaml --set CASE`; the message names the key, or what stands beside the case."""
    for case in cases:
        override, names = case if isinstance(case, tuple) else (case, case.partition("=")[0])
        yield Bad(kind, override[:90], ("run", "small.yaml", "--set", override), names)


def make_folder(folder: Path, cache: Path, bad: Bad) -> None:
    (folder / "data").mkdir()
    (folder / "small.yaml").write_text(SMALL.format(cache=cache, root="data"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries remark on what they are told to write
        bad.prepare(folder)


def run(bad: Bad, folder: Path, cache: Path) -> Outcome:
    """Run the command in this process, with `folder` as the working directory."""
    before = _inside(folder)
    error, argv, log = StringIO(), sys.argv, logging.getLogger("fedsim")
    sys.argv = ["fedsim", *bad.arguments]
    handlers = list(log.handlers)
    try:
        with chdir(folder), redirect_stderr(error), redirect_stdout(StringIO()):
            cli.main()
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    finally:
        sys.argv, log.handlers = argv, handlers
    halves = {str(path) for path in cache.rglob("*.part")}
    return Outcome(status, error.getvalue(), tuple(sorted(_inside(folder) - before | halves)))


def _inside(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*")}


def table(results: Iterable[tuple[Bad, list[str]]]) -> str:
    """A row a kind: its name, how many inputs it has, how many of them were refused as they should be."""
    inputs: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for bad, faults in results:
        inputs[bad.kind] += 1
        refused[bad.kind] += not faults
    rows = [f"{kind:<44}{inputs[kind]:>8}{refused[kind]:>9}" for kind in inputs]
    total = f"{'all':<44}{inputs.total():>8}{refused.total():>9}"
    return "\n".join([f"{'kind':<44}{'inputs':>8}{'refused':>9}", *rows, total])


def main() -> int:
    from .catalogue import CATALOGUE  # noqa: PLC0415 - it needs this module

    results = []
    with tempfile.TemporaryDirectory() as top:
        for number, bad in enumerate(CATALOGUE):
            folder = Path(top) / str(number)
            folder.mkdir()
            make_folder(folder, Path(top) / "cache", bad)
            outcome = run(bad, folder, Path(top) / "cache")
            results.append((bad, outcome.faults(bad)))
            for fault in results[-1][1]:
                sys.stdout.write(f"{bad.kind}: {bad.what}: {fault}: {outcome.error[:300]!r}\n")
    sys.stdout.write(table(results) + "\n")
    return int(any(faults for _, faults in results))


if __name__ == "__main__":
    sys.exit(main())
