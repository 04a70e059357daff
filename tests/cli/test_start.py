"""What the command line says of itself, and that it loads no more than it needs."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import fedsim as library
from fedsim.cli.app import PANELS, app
from fedsim.engine.record.run_directory import Run
from fedsim.jobs.kept import keep
from fedsim.jobs.receipts import Receipt
from fedsim.jobs.target import Status

from .conftest import Fedsim

HEAVY = ("torch", "ray", "pandas", "matplotlib", "numpy", "scipy", "jsonschema")
CODE = f"""
import sys
from fedsim.cli.app import main
sys.argv[0] = "fedsim"
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


QUICK = ("--help", "jobs list", "run none.yaml", "submit none.yaml --cluster local", "evaluate none")
SLOW = (
    "--version", "submit --help", "jobs wait nothing", "stduy x", "run --sett x y", "study none.yaml",
    "submit x.yaml --cluster lokal", "watch --help", "watch none", "watch none --web", "report none",
    "checkpoints none", "debug none --client a --round 1", "reconstruct none x.yaml --client a", "unseen none",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [*QUICK, *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW)])
def test_a_command_loads_only_what_it_needs(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path / "state"))
    (tmp_path / "x.yaml").write_text("name: x")
    command = [sys.executable, "-c", CODE, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    assert done.returncode == (0 if "help" in arguments or arguments in {"--version", "jobs list"} else 2)


def test_a_job_that_has_ended_is_listed_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSIM_STATE", str(tmp_path))
    receipt = Receipt(id="fedsim-a", cluster="http://127.0.0.1:9", kind="run", name="a", out=tmp_path, submitted="2026")
    keep(receipt.id, Status("succeeded"), "")
    (tmp_path / "jobs" / "fedsim-a.json").write_text(receipt.model_dump_json())
    command = [sys.executable, "-c", CODE, "jobs", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert " succeeded " in done.stdout


def test_help_has_every_command_in_its_group(fedsim: Fedsim) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = {name for name, command in commands.items() if not command.hidden}
    assert shown == {name for names in PANELS.values() for name in names}
    status, out, _ = fedsim("--help")
    assert status == 0
    places = [out.index(f" {panel} ") for panel in PANELS]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["data import", "evaluate", "unseen", "debug"])
def test_the_example_of_an_override_has_an_effect_on_its_command(fedsim: Fedsim, command: str) -> None:
    status, text, _ = fedsim(*command.split(), "--help")
    assert status == 0
    assert "Override a key, e.g. federation." in " ".join(text.replace("│", " ").split())


def test_the_version(fedsim: Fedsim) -> None:
    assert fedsim("--version") == (0, "fedsim 0.1.0\n", "")


def test_python_m_fedsim_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fedsim", "--version"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("fedsim", run_name="__main__")
    assert (exit_.value.code, capsys.readouterr().out) == (0, "fedsim 0.1.0\n")


def test_the_library_shows_its_names(finished: Run) -> None:
    names = {"Run", "collect", "load_workload", "run", "submit", "wait"}
    assert names <= set(dir(library))
    assert all(callable(getattr(library, name)) for name in names)
    assert repr(finished).startswith(f"<Run small in {finished.path}: 2 of 2 rounds, 4 clients, ")
