"""What tests of all folders share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsim.config import Engine
from fedsim.engine.ray_backend import RayBackend


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
