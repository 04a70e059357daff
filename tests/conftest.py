"""What tests of all folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    root = Path(os.environ.get("FEDSIM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set FEDSIM_REAL_DATA to a folder laid out like it")
    return root
