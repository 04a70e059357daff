"""A study's report, tables and figures: of every kind, from the tables alone, the same each time, and all as text."""

import csv
import functools
import math
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedsim.analysis.comparison import MEAN, interval, p_value
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.report.conclude import conclude
from fedsim.report.study_report import write_study_report
from fedsim.report.study_tables import study_tables
from fedsim.report.tables import as_latex
from fedsim.report.viewer import stacks_of
from fedsim.report.wording import chance, confidence, spread
from fedsim.study.ended import write_failures

Made = Callable[..., Path]
Told = Callable[[str], tuple[Path, str]]
FIGURES = {
    "compare": {"convergence", "differences-psnr", "differences-ssim", "differences-nmse", "patients", "virtual-time"},
    "client-count": {"quality-psnr", "quality-ssim", "quality-nmse", "costs", "patients"},
    "scaling-weak": {"scaling", "time-shares"},
    "ablation": {"quality-psnr", "quality-ssim", "quality-nmse", "patients"},
}
SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def concluded(folder: Path) -> str:
    text = StringIO()
    conclude(folder, Console(file=text, width=160))
    return text.getvalue()


@pytest.fixture(scope="module")
def told(made_study: Made) -> Callable[[str], tuple[Path, str]]:
    """A concluded study of a kind, once for all tests, and what it said; do not write to it."""

    @functools.cache
    def told(kind: str) -> tuple[Path, str]:
        folder = made_study(kind)
        return folder, concluded(folder)

    return told


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIGURES)
def test_a_study_is_told_from_its_tables_alone(told: Told, kind: str) -> None:
    folder, said = told(kind)
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert drawn == {f"{name}.{ending}" for name in FIGURES[kind] for ending in ("png", "pdf")}
    tables = {path.name for path in (folder / "tables").iterdir()}
    names = ["overview", "budgets", "psnr", "ssim", "nmse", *(["time-to-quality"] if kind == "compare" else [])]
    assert tables == {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}
    page = Page(folder / "report.html")
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(FIGURES[kind])
    assert all(source.startswith("data:image/png;base64,") for source in images)
    assert "Made from the study's tables alone" in page.text
    study = study_tables(folder)
    for line in [*study.says("psnr"), *study.times.sentences()]:
        assert line.removeprefix("all: ").removeprefix("few: ") in said, "on the terminal the regime is a title"
        assert line in page.text


@pytest.mark.slow
def test_it_is_all_the_same_when_made_again(told: Told, tmp_path: Path) -> None:
    """From the committed files alone: study.yaml, base.yaml and three tables."""
    folder, _ = told("scaling-weak")
    again = tmp_path / folder.name
    again.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name != "report.html":
            shutil.copy(path, again)
    concluded(again)
    first, second = ({str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()}
                     for where in (folder, again))  # fmt: skip
    assert len(second) == 5 + 2 * 2 + 5 * 3 + 1
    assert second == first


@pytest.mark.slow
def test_the_overview_has_means_differences_and_costs(told: Told) -> None:
    folder, _ = told("client-count")
    points = pd.read_parquet(folder / "results.parquet")
    with (folder / "tables" / "overview.csv").open() as file:
        rows = {(row["clients"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    row, own = rows["16", "fedavg"], points.query("clients == 16 and method == 'fedavg'")
    theirs = points.query("clients == 16 and method == 'fedmri'")
    found = interval((own["ssim"].to_numpy() - theirs["ssim"].to_numpy()).tolist())
    assert float(row["ssim"]) == pytest.approx(own["ssim"].mean())
    names = ("ssim_difference", "ssim_low", "ssim_high")
    assert [float(row[name]) for name in names] == pytest.approx([found.mean, found.low, found.high])
    assert float(row["megabytes"]) == pytest.approx(1)
    assert rows["16", "fedmri"]["psnr_difference"] == ""
    markdown = (folder / "tables" / "overview.md").read_text().splitlines()
    heads = "clients N | method | n | PSNR [dB] | − fedmri [95 % CI] | p (Holm) | p, subjects | SSIM"
    assert markdown[0].startswith(f"| {heads} |")
    assert len(markdown) == 2 + 6
    assert markdown[4].startswith(f"| 16 | fedavg | 3 | {own['psnr'].mean():.2f} ± ")


@pytest.mark.slow
def test_latex_has_booktabs_and_no_bare_special_character(told: Told) -> None:
    folder, _ = told("ablation")
    text = (folder / "tables" / "overview.tex").read_text()
    for rule in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\begin{tabular}{lrr",
        r" $\pm$ ",
        r"$-$ fedmri [95 \% CI]",
    ):
        assert rule in text
    hostile = as_latex(pd.DataFrame({"a_b": [r"50 % & $x$ #1 {y} \input{z} ~ ^ †"]}))
    line = next(line for line in hostile.splitlines() if "50" in line)
    assert r"50 \% \& \$x\$ \#1 \{y\} \textbackslash " in line
    assert r"\input" not in line
    assert r"a\_b" in hostile


@pytest.mark.slow
def test_latex_of_every_row_has_as_many_cells(told: Told) -> None:
    folder, _ = told("compare")
    text = (folder / "tables" / "psnr.tex").read_text()
    assert text.count(r"\begin{tabular}") == 2, "a regime each"
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {8}
    assert text.startswith("% all: PSNR [dB], test split.")


def test_what_it_says_of_client_counts(made_study: Made) -> None:
    study = study_tables(made_study("client-count"))
    said = study.says("psnr")
    change = [-0.36 - 0.0 + 0.02 * seed for seed in (1, 2, 3)]  # of the numbers that conftest makes up
    found = interval([value - 0.04 for value in change])
    judged = "3 seeds, p < 0.001 after Holm's correction for 1 comparison"
    assert f"clients-16: fedmri leads fedavg by 0.50 dB, 95 % CI [0.50, 0.50], {judged}" in said
    (line,) = (line for line in said if line.startswith("fedmri, from N = 4 to N = 64: "))
    corrected = min(1, 2 * p_value(found))
    assert line.endswith(
        f"{found.mean:+.2f} dB, 95 % CI [-0.41, -0.31], 3 seeds, "
        f"p {corrected:.3f} after Holm's correction for 2 comparisons"
    )
    assert any("a round takes 20.8 ms per client at N = 4" in line for line in said)
    assert any("fedmri has exact negatives at some N and moments at others" in line for line in said)
    assert not any("fedavg has exact" in line for line in said)


def test_what_it_says_of_scaling(made_study: Made) -> None:
    study = study_tables(made_study("scaling-strong"))
    said = study.says("psnr")
    assert "fedmri: 3.08 times as fast on 4 cores against 1, efficiency 77 %" in said
    assert "fedmri: serial share by Amdahl's law 10.0 % (10.0 to 10.0 % over 3 seeds)" in said
    assert "fedmri: the same test PSNR to the last digit on every number of cores" in said
    study.points.loc[study.points["point"] == "cores-4/fedmri/seed-2", "psnr"] += 1e-9
    again = list(study.kind.findings(study.found, "psnr"))
    assert "fedmri: the test PSNR is NOT the same on all numbers of cores for seed 2" in again
    assert any(line.startswith("the bare training loop: 10.0 %") for line in said)
    study.points["floor_seconds"] = math.nan
    assert list(study.kind.findings(study.found, "psnr"))[-1].startswith("no bare training loop beside the runs")


@pytest.mark.slow
def test_what_it_says_of_an_ablation(made_study: Made) -> None:
    said = study_tables(made_study("ablation")).says("psnr")
    assert any(line.startswith("fedmri: algorithm.beta has its best mean at 0.0 (") for line in said)
    assert any("model.norm has its best mean at instance" in line and "affine: +0.18 dB" in line for line in said)
    assert all("after Holm's correction for 8 comparisons" in line for line in said), "3 pairs of beta and 1, twice"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compare", "client-count", "ablation"])
def test_two_seeds_show_nothing_in_any_kind_of_study(made_study: Made, kind: str) -> None:
    """No lead, no star: neither in what it says, nor in its tables, nor on the terminal."""
    folder = made_study(kind, seeds=2)
    said = concluded(folder)
    assert "leads" not in said
    assert " *" not in said
    lines = study_tables(folder).says("psnr")
    assert any("2 seeds; at least 3 are needed" in line for line in lines)
    assert not any("after Holm" in line for line in lines)
    assert not [path.name for path in (folder / "tables").glob("*.md") if " * |" in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compare", "client-count", "scaling-strong", "scaling-weak"])
def test_no_cell_is_broken_or_cut_off_on_a_terminal_of_80_columns(made_study: Made, kind: str) -> None:
    """Where cells need more than 80 columns, lines are longer."""
    folder, text = made_study(kind), StringIO()
    conclude(folder, Console(file=text, width=80))
    study, said = study_tables(folder), text.getvalue()
    for row in study.overview.itertuples():
        assert spread(row.psnr, row.psnr_sd, "psnr") in said
        assert confidence(row.psnr_low, row.psnr_high, "psnr") in said
        assert f" {row.method} " in said
    if study.kind.told_by_regime:
        psnr = study.by_quality["psnr"]
        chances = psnr.loc[psnr["site"] == MEAN, "patient_p_holm"].dropna()
        assert len(chances)
        assert all(chance(p) in said for p in chances)


def test_unfinished_and_failed_points_are_named(made_study: Made) -> None:
    folder = made_study("client-count")
    points = pd.read_parquet(folder / "results.parquet")
    points[points["seed"] < 3].to_parquet(folder / "results.parquet")
    write_failures(folder, {"clients-64/fedmri/seed-3": f"no memory {SCRIPT}"})
    page = Page(write_study_report(study_tables(folder), [], [], []))
    assert "The study is not finished: 12 of 18 points are done." in page.text
    assert "clients-64/fedmri/seed-3" in page.text
    assert f"no memory {SCRIPT}" in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1


@pytest.mark.slow
def test_markup_in_the_tables_is_shown_as_text(made_study: Made) -> None:
    folder = made_study("compare", seeds=1)
    for name in ("results", "volumes", "curves"):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        for column in {"method", "protocol", "site", "point", "regime", "normalise"} & set(frame):
            frame[column] = frame[column].where(frame[column] == "fedmri", frame[column] + SCRIPT)
        frame.to_parquet(folder / f"{name}.parquet")
    concluded(folder)
    page = Page(folder / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    for text in ("fedavg", "all", "fastmri", "all/fedmri/seed-1", "std"):
        assert text + SCRIPT in page.text
    assert not any("<script" in path.read_text() for path in (folder / "tables").glob("*.md"))


def test_a_report_stays_small_and_names_what_it_leaves_out(made_study: Made, finished: Run) -> None:
    folder, drawn = made_study("scaling-strong", seeds=1), []
    for name, size in (("scaling", 1_000_000), ("panel-all-1", 2_700_000), ("time-shares", 1_000_000)):
        drawn.append(folder / f"{name}.png")
        drawn[-1].write_bytes(b"\0" * size)
    report = write_study_report(study_tables(folder), drawn, stacks_of({"fedmri": finished}), [])
    assert 2_000_000 * 4 / 3 < report.stat().st_size < 6e6
    assert "Too large for this page, in figures/: panel-all-1.png." in Page(report).text


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a study"):
        concluded(tmp_path)


@pytest.mark.slow
def test_a_page_lets_only_its_own_script_run(told: Told) -> None:
    folder, _ = told("scaling-weak")
    (policy,) = [a["content"] or "" for tag, a in Page(folder / "report.html").tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "script-src 'sha256-" in policy
