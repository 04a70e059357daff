"""What tests of all folders share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsim import cli
from fedsim.config import Engine
from fedsim.engine.ray_backend import RayBackend

Fedsim = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def real_data() -> Path:
    root = Path(os.environ.get("FEDSIM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set FEDSIM_REAL_DATA to a folder laid out like it")
    return root


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that simulate on it; each brings up its own actors."""
    backend = RayBackend(Engine())
    yield
    backend.close()


@pytest.fixture
def fedsim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fedsim:
    """Runs the command in this process and in an empty folder; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def fedsim(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsim", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return fedsim
