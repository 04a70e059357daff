"""The gallery shows every committed study, with its figure and the command that made it."""

import re
import shlex

import make_gallery
import pytest

from fedsim.study.study import load_study

from .blocks import DOCS, ROOT

PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_page_is_what_the_script_makes() -> None:
    """On failure: python docs/make_gallery.py."""
    assert make_gallery.render() + "\n" == PAGE


def test_its_findings_are_those_of_the_results() -> None:
    """Which another test compares with the tables; what is about time stands in the gallery alone."""
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    parts = dict(zip((entry.study for entry in make_gallery.GALLERY), PAGE.split("\n## ")[1:], strict=True))
    told = [entry for entry in make_gallery.GALLERY if not entry.study.startswith("scaling")]
    assert len(told) > 5
    for entry in told:
        finding = re.search(rf"^Found.*?: ({entry.begins}.*)\.$", parts[entry.study], flags=re.MULTILINE)
        assert finding is not None, entry.study
        assert f"* {finding[1]}\n" in results, entry.study


def test_it_shows_every_study_whose_tables_are_committed() -> None:
    committed = {path.parent.name for path in (DOCS / "results").glob("*/volumes.parquet")}
    assert {entry.study for entry in make_gallery.GALLERY} == committed


@pytest.mark.slow
@pytest.mark.parametrize("entry", make_gallery.GALLERY, ids=lambda entry: entry.study)
def test_a_command_can_be_read_and_its_figure_is_there(entry: make_gallery.Shown) -> None:
    overrides = [one for one in shlex.split(entry.options) if "=" in one]
    assert load_study(ROOT / "workloads" / f"{entry.study}.yaml", overrides, code=False).study.name == entry.study
    assert (DOCS / "images" / f"{entry.figure}.png").is_file()
    options = f" {entry.options}".rstrip()
    assert re.search(
        rf"^    fedsim (study|submit) workloads/{entry.study}.yaml{re.escape(options)}$", PAGE, re.MULTILINE
    )
