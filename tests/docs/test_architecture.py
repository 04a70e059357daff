"""docs/architecture.md: its picture is drawn from the imports, and every file that it names is there."""

import re
from pathlib import Path

import make_architecture
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PATHS = re.findall(r"`([\w.-]+/[\w./*-]*)`", PAGE.read_text(encoding="utf-8"))


def test_the_picture_is_what_the_script_draws() -> None:
    """On failure: python docs/make_architecture.py."""
    assert make_architecture.PICTURE.read_text(encoding="utf-8") == make_architecture.draw()


@pytest.mark.parametrize("path", sorted(set(PATHS)))
def test_a_file_that_the_page_names_exists(path: str) -> None:
    pattern = re.sub(r"\bNAME\b", "*", path)
    assert [*ROOT.glob(pattern), *(ROOT / "fedsim").glob(pattern)], path


def test_the_page_names_files() -> None:
    assert len(set(PATHS)) > 50


def test_arrows_that_others_imply_are_left_out() -> None:
    needed = {name: set[str]() for name in make_architecture.ROOMS} | {"mri": {"core"}, "data": {"mri", "core"}}
    assert make_architecture.arrows(needed) == [("mri", "core"), ("data", "mri")]
    assert make_architecture.levels(needed)["data"] == 2
