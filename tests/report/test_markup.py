"""What a run holds is shown as text, whoever wrote it: a report has no markup but its own, and loads nothing."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from fedsim.analysis.comparison import compare, results_of
from fedsim.engine.record.run_directory import Run
from fedsim.report.report import write_report
from fedsim.report.tables import markdown
from fedsim.workload.reading import read_yaml, write_yaml

SCRIPT = "<script>alert(1)</script>"
EVIL = f"{SCRIPT}\"><img src=x onerror=alert(2)>'&lt;b&gt;{{{{7*7}}}}"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and what it shows as text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts = 0
        self.found: set[tuple[str, str]] = set()
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.found |= {(tag, ""), *((tag, key) for key, _ in attrs)}
        self.sources += [
            value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action", "style"}
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def elements(run: Path) -> Elements:
    return Elements(write_report(run).read_text(encoding="utf-8"))


def marked(run: Run, copy: Path) -> Path:
    """A copy of a run with markup wherever a file of it can hold some."""
    shutil.copytree(run.path, copy)
    content = read_yaml(copy / "workload.yaml")
    content["provenance"] = {**content["provenance"], EVIL: EVIL, "ray": EVIL}
    content["federation"]["root"] = str(copy / EVIL.replace("/", ""))
    content["federation"]["sites"][1]["source"] = {"format": "nifti", "path": f"b/{EVIL}", "contrast": [EVIL, "t1"]}
    (copy / "workload.yaml").write_text(write_yaml(content), encoding="utf-8")
    for table, columns in {
        "manifest": ["client", "subject", "volume", "mask_kind"],
        "clients": ["client", "site", "node"],
        "evaluation": ["client", "site", "subject", "volume", "protocol"],
    }.items():
        frame = pd.read_parquet(copy / f"{table}.parquet")
        frame[columns] = frame[columns].map(lambda text: text if text is None else f"{text}{EVIL}")
        frame.to_parquet(copy / f"{table}.parquet")
    return copy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # names that long leave no room for the axes
def test_the_report_of_a_run_with_markup_has_none_of_it(finished: Run, tmp_path: Path) -> None:
    clean, other = elements(finished.path), elements(marked(finished, tmp_path / "copy"))
    assert other.found <= clean.found
    assert all(source.startswith("data:image/png;base64,") for source in [*clean.sources, *other.sources])
    assert {tag for tag, _ in clean.found}.isdisjoint({"link", "iframe", "object", "embed", "form", "base"})
    assert ("script", "src") not in clean.found
    assert clean.scripts == other.scripts == 1, "the page's own"
    assert not any(key.startswith("on") for _, key in clean.found)
    assert sum(SCRIPT in text and "{{7*7}}" in text for text in other.text) > 10, "it is shown"
    style = "".join(text for text in clean.text if "{" in text)
    assert "@import" not in style
    assert "url(" not in style


@pytest.mark.parametrize("column", ["site", "method", "regime"])
def test_the_tables_of_a_comparison_have_no_markup(finished: Run, tmp_path: Path, column: str) -> None:
    other = Run(shutil.copytree(finished.path, tmp_path / "other"))
    content = read_yaml(other.path / "workload.yaml")
    content["algorithm"] = {"name": "fedavg"}
    (other.path / "workload.yaml").write_text(write_yaml(content), encoding="utf-8")
    results = results_of({"one": finished, "other": Run(other.path)})
    results[column] = results[column].where(results[column] == "fedmri", results[column] + EVIL)
    text = markdown(compare(results, "psnr", "fedmri"), "psnr", "fedmri")
    page = Elements(MarkdownIt("commonmark").enable("table").render(text))
    assert {tag for tag, _ in page.found} <= {"h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert any(SCRIPT in shown for shown in page.text)
