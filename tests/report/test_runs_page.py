"""A page over many runs: every run a row, from its tables alone; a damaged one is named, and stops nothing."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fedsim.analysis.scores import mean_over_sites, scores
from fedsim.core.errors import InputError
from fedsim.engine.record.claim import Claim
from fedsim.engine.record.run_directory import Run
from fedsim.report.runs_page import PAGE, write_runs_page
from fedsim.workload.reading import write_yaml


@pytest.fixture
def folder(finished: Run, tmp_path: Path) -> Path:
    """Two runs of different names, one deeper; in a folder with a space."""
    for name in ("one", "deep/<i>two & more"):
        shutil.copytree(finished.path, tmp_path / "my runs" / name)
    return tmp_path / "my runs"


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "workload.yaml").read_text()
    assert old in text
    (run / "workload.yaml").write_text(text.replace(old, new))


def row(page: str, name: str) -> list[str]:
    """The texts of a run's cells."""
    (found,) = [r for r in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL) if f">{name}<" in r]
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", found, re.DOTALL)]


def test_a_run_is_a_row_with_its_scores(folder: Path, finished: Run) -> None:
    edit(folder / "one", "tags: []", "tags: [base, '<b>']")
    (folder / "one" / "report.html").write_text("")
    (folder / "deep" / "<i>two & more" / "report.html").unlink(missing_ok=True)
    path = write_runs_page(folder)
    assert path == folder / PAGE
    page = path.read_text()
    psnr = mean_over_sites(scores(finished, "test"), "psnr")
    cells = row(page, "one")
    clients = finished.clients["client"].nunique()
    assert cells[:6] == ["one", "fedmri", "base, &lt;b&gt;", "finished", "2 of 2", str(clients)]
    assert f"{psnr:.2f}" == cells[6]
    assert cells[9] == "fastmri"
    assert '<a href="./one/report.html">one</a>' in page
    assert "deep/&lt;i&gt;two &amp; more" in page, "shown as text, without a link, since it has no report"
    assert page.count("<a ") == 1
    assert "src=" not in page.replace("data:", ""), "it loads nothing"


def test_clients_that_no_round_drew_count(folder: Path) -> None:
    clients = pd.read_parquet(folder / "one" / "clients.parquet")
    for name in ("few", "pooled", "uncut"):
        shutil.copytree(folder / "one", folder / name)
    clients.query("client == 'A.1'").to_parquet(folder / "few" / "clients.parquet")
    clients.assign(client="all").to_parquet(folder / "pooled" / "clients.parquet")
    edit(folder / "uncut", "clients: 4", "clients: null")
    page = write_runs_page(folder).read_text()
    assert [row(page, name)[5] for name in ("few", "pooled", "uncut")] == ["4", "1", "3"]


def test_a_run_whose_manifest_is_in_parts_is_found_before_its_first_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "one" / "checkpoints")
    (folder / "one" / "manifest.parquet").unlink()
    (folder / "one" / "manifest.parquet").mkdir()
    assert row(write_runs_page(folder).read_text(), "one")[3] == "stopped"


def test_links_are_relative_and_quoted(folder: Path) -> None:
    (folder / "deep" / "<i>two & more" / "report.html").write_text("")
    assert 'href="./deep/%3Ci%3Etwo%20%26%20more/report.html"' in write_runs_page(folder).read_text()


def test_states(folder: Path) -> None:
    for name in ("stopped", "failed", "going", "early"):
        shutil.copytree(folder / "one", folder / name)
        edit(folder / name, "rounds: 2", "rounds: 9")
    pd.DataFrame({"action": ["replayed", "aborted"]}).to_parquet(folder / "failed" / "failures.parquet")
    edit(folder / "early", "rounds: 9", "rounds: 9\n  early_stopping: {patience: 1, min_delta: 99, metric: psnr}")
    with Claim(folder / "going"):
        page = write_runs_page(folder).read_text()
    assert {name: row(page, name)[3] for name in ("one", "stopped", "failed", "going", "early")} == {
        "one": "finished", "stopped": "stopped", "failed": "failed", "going": "running", "early": "finished early"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("workload.yaml", "a: ["),
        ("workload.yaml", "name: x\n"),
        ("workload.yaml", "algorithm: {name: a}\ntraining: {rounds: many}\n"),
        ("workload.yaml", "- 1\n"),
        ("rounds.parquet", "no table"),
        ("evaluation.parquet", ""),
        ("clients.parquet", "no table"),
        ("checkpoints/round-0002/state.json", "{}"),
    ],
)
def test_a_damaged_run_is_named_with_the_reason(folder: Path, file: str, content: str) -> None:
    shutil.copytree(folder / "one", folder / "bad")
    (folder / "bad" / file).write_text(content)
    page = write_runs_page(folder).read_text()
    assert "1 run cannot be read" in page
    assert re.search(r"<strong>bad</strong>: \w", page)
    assert row(page, "one")[3] == "finished"


def test_no_code_of_a_run_is_run(folder: Path) -> None:
    (folder / "one" / "theirs.py").write_text("raise SystemExit('ran')\n")
    edit(folder / "one", "name: fedmri", "name: theirs:Method")
    assert row(write_runs_page(folder).read_text(), "one")[1] == "theirs:Method"


def test_studies_are_listed_without_their_runs(folder: Path) -> None:
    study = folder / "a study"
    shutil.copytree(folder / "one", study / "runs" / "all" / "fedavg" / "seed-1")
    (study / "base.yaml").write_text("name: x\n")
    (study / "study.yaml").write_text(write_yaml({"name": "s", "kind": "compare", "workload": "base.yaml"}))
    page = write_runs_page(folder).read_text()
    assert row(page, "a study") == ["a study", "s", "compare", "0"]
    assert "seed-1" not in page


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workload.yaml").write_text("name: mine\n")  # a workload of somebody's, not a run
    with pytest.raises(InputError, match="holds no run and no study"):
        write_runs_page(tmp_path)
    assert not (tmp_path / PAGE).exists()
