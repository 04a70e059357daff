"""Documents that are made from tables are what those tables make."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsim.core.yaml import read_yaml
from fedsim.report.study_tables import study_tables
from fedsim.workload.reading import write_yaml
from tests.report.conftest import made_study  # noqa: F401 - a fixture

DOCS = Path(__file__).parents[2] / "docs"


def loaded() -> Any:
    """The program that makes docs/results.md."""
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    make_results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_results)
    return make_results


@pytest.mark.slow
def test_results_are_made_from_the_tables() -> None:
    make_results = loaded()
    assert (DOCS / "results.md").read_text(encoding="utf-8") == make_results.render() + "\n"


@pytest.mark.slow
def test_sections_on_studies_are_written_once_their_tables_are_there(
    made_study: Callable[..., Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With the tables of some study as its own: every sentence is what the study's tables say."""
    make_results = loaded()
    monkeypatch.setattr(make_results, "TABLES", tmp_path)
    assert make_results.render("evidence.md.j2") == ""
    for name, kind in (("client-count-law", "client-count"), ("one-axis", "ablation"), ("settling", "compare")):
        folder = made_study(kind)
        if name == "settling":
            study = read_yaml(folder / "study.yaml")
            (folder / "study.yaml").write_text(write_yaml({**study, "endpoint": {"metric": "psnr", "margin": 0.1}}))
        (tmp_path / name).symlink_to(folder)
    text = make_results.render("evidence.md.j2")
    heads = ["## The contrastive term", "### Whether it oscillates", "## The law", "## Heterogeneity"]
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        next(line for line in text.splitlines() if line.startswith(head)) for head in heads
    ]
    assert "\n\n\n" not in text
    assert text.endswith("\n\n")
    for name in ("client-count-law", "one-axis"):
        assert all(f"\n* {line}" in text for line in study_tables(tmp_path / name).says("psnr"))
    settled = study_tables(tmp_path / "settling")
    assert settled.judgement is not None
    assert all(f"\n* {line}" in text for line in (*settled.judgement.sentences(), *settled.training))
    assert "fedmri, per tenfold N: " in text
    assert "curves are NOT flat at the end" in text
