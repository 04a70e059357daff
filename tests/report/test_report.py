import base64
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydantic import Field

from fedsim import Run, run
from fedsim.algorithms.base import Algorithm
from fedsim.core.errors import InputError
from fedsim.engine.record.failures import Failure, Failures
from fedsim.engine.record.term import ratio_by_round
from fedsim.engine.simulation import Simulation
from fedsim.report.figures import contrastive_ratio
from fedsim.report.introduction import kernels, settings
from fedsim.report.report import write_report
from fedsim.workload.schema import Workload


class Page(HTMLParser):
    """What a browser would load, and what it would show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.viewed: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        sources = [value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action"}]
        if "data-kind" in dict(attrs):
            self.viewed += sources
        else:
            self.sources += sources

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(finished: Run) -> Page:
    return Page(write_report(finished.path))


@pytest.mark.slow
def test_report_needs_nothing_else(page: Page) -> None:
    assert page.tags.isdisjoint({"link", "iframe", "object", "embed", "form"})
    assert all(source.startswith("data:image/png;base64,") for source in [*page.sources, *page.viewed])
    assert len(page.sources) == 3 + 5  # sites and plots
    assert len(page.viewed) == 3 * 4  # sites, and what the viewer shows of each
    assert "url(" not in page.text
    assert "@import" not in page.text


@pytest.mark.slow
def test_pictures_are_those_of_the_figures_folder(page: Page, finished: Run) -> None:
    shown = {base64.b64decode(source.partition(",")[2]) for source in page.sources}
    files = {path.name: path.read_bytes() for path in (finished.path / "figures").iterdir()}
    names = ("curves", "quality", "rounds", "timeline", "contrastive", "panel-A", "panel-B", "panel-W")
    assert set(files) == {f"{name}.png" for name in names}
    assert shown == set(files.values())
    for content in files.values():
        width, height = Image.open(BytesIO(content)).size
        assert 900 < width < 2000
        assert 300 < height < 1200


@pytest.mark.slow
def test_report_says_what_was_run(page: Page, finished: Run) -> None:
    learner = finished.learner("W")
    for words in (
        "Method fedmri (weighting uniform, beta 1", f"{learner.shared.numel():,}", "4 clients of 3 sites",
        "2 of 2 rounds from seed 5", "best round by validation PSNR", "metric protocol: fastmri", "within subject",
        "float32", "Versions and machine", "torch",
    ):  # fmt: skip
        assert words in page.text
    mean = finished.evaluation.groupby("client")[["psnr", "zf_psnr"]].mean().mean()
    assert f"PSNR {mean['zf_psnr']:.2f} → {mean['psnr']:.2f} dB" in page.text
    assert "1 of 4 clients have no test data" in page.text


@pytest.mark.slow
def test_the_introduction_says_how_was_trained_when_and_how_long(page: Page, finished: Run) -> None:
    said = "Training: loss mse, rmsprop, learning rate 0.001, batches of 3, 1 local epoch per round; "
    assert said in page.text
    ended = datetime.fromtimestamp((finished.path / "rounds.parquet").stat().st_mtime, UTC)
    assert f" for all rounds, the last one finished {ended:%Y-%m-%d %H:%M} UTC." in page.text
    assert "own True" not in page.text
    assert "a client's own last upload is among its negatives, as in the paper" in page.text


class Damped(Algorithm):
    part: float = 0.5
    warm: bool = Field(True, description="Start warm.")


def test_settings_are_said_plainly() -> None:
    own = Damped(name="damped:Damped", warm=False)
    assert settings(own) == " (your own class, weighting uniform, part 0.5, warm: false)"
    assert settings(own.model_copy(update={"warm": True})).endswith("warm: true)")


def test_the_ratio_of_the_contrastive_term_is_drawn_below_its_bound(finished: Run, page: Page) -> None:
    assert "Contrastive term: ratio by round" in page.text
    (axis,) = contrastive_ratio(ratio_by_round(finished.clients)).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert lines["bound"] == pytest.approx([0.25, 0.25]), "a line needs two points"
    mean = finished.clients.query("round == 2")["contrastive_ratio"].mean()
    assert lines["ratio P / N"] == pytest.approx([mean])


@pytest.mark.slow
def test_a_term_that_switches_itself_off_is_said(finished: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "copy")
    clients = finished.clients
    clients["contrastive_ratio"] = clients["contrastive_ratio"].where(clients["contrastive_ratio"].isna(), 0.249)
    clients.to_parquet(copy / "clients.parquet", index=False)
    text = write_report(copy).read_text()
    assert "The contrastive term switches itself off: its ratio is above 0.9 of its bound (0.250)" in text


@pytest.mark.slow
def test_report_is_the_same_every_time(finished: Run) -> None:
    assert write_report(finished.path).read_bytes() == write_report(finished.path).read_bytes()


@pytest.mark.slow
def test_a_client_that_got_worse_is_pointed_out(finished: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "run")
    frame = finished.evaluation
    frame.loc[frame["client"] == "W", "ssim"] = 0.01
    frame.to_parquet(copy / "evaluation.parquet")
    text = Page(write_report(copy)).text
    assert "worse than the zero-filled image by at least one measure for 1 of 3 clients: W." in text


@pytest.mark.slow
def test_a_hostile_workload_is_shown_as_text(make_workload: Callable[..., Workload], tmp_path: Path) -> None:
    root = tmp_path / "<img src=x onerror=alert(1)>"
    root.mkdir()
    hostile = run(
        make_workload(f"federation.root='{root}'", "training.rounds=1", "federation.clients=3"), tmp_path / "run"
    )
    page = Page(write_report(hostile.path))
    assert root.name in page.text
    assert "x" not in page.sources


@pytest.mark.slow
def test_an_unfinished_run_says_what_is_missing(make_workload: Callable[..., Workload], tmp_path: Path) -> None:
    with Simulation(make_workload("metrics.every=0"), tmp_path / "run") as simulation:
        assert not simulation.run(stop=lambda: True)
        assert "has no complete checkpoint yet" in Page(write_report(tmp_path / "run")).text
        rounds: list[int] = []
        simulation.run(stop=lambda: bool(rounds) or bool(rounds.append(1)))
    page = Page(write_report(tmp_path / "run"))
    for words in ("1 of 2 rounds are done", "evaluation.parquet does not exist yet", "No round was validated"):
        assert words in page.text
    assert len(page.sources) == 3 + 3


@pytest.mark.slow
def test_it_says_whose_scores_it_shows_where_few_of_many_clients_were_drawn(
    make_workload: Callable[..., Workload], tmp_path: Path
) -> None:
    sites = "[{name: P, count: 300, source: {format: phantom, subjects: 3, slices: 1, size: 32}}]"
    keys = (f"federation.sites={sites}", "federation.clients=null", "training.cohort=2", "training.rounds=1")
    keys += ("metrics.clients=3", "metrics.every=0")  # so that some are tested that never trained
    page = Page(write_report(run(make_workload(*keys), tmp_path / "run").path))
    assert "with 300 clients of 300 sites" in page.text
    assert "Scores are those of 3 of 300 clients" in page.text


@pytest.mark.slow
def test_data_that_is_gone_is_said(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise InputError("tcga-lgg/CS: no such file or folder")

    copy = shutil.copytree(finished.path, tmp_path / "run")
    monkeypatch.setattr("fedsim.report.panels.assemble", gone)
    page = Page(write_report(copy))
    assert "Reconstructions cannot be shown: tcga-lgg/CS" in page.text
    assert len(page.sources) == 5


@pytest.mark.parametrize("share", [1, 2])
def test_damaged_states_are_said(finished: Run, tmp_path: Path, share: int) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    for path in sorted(tmp_path.glob("run/checkpoints/round-*/clients/*"))[-1::-share]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    text = write_report(tmp_path / "run").read_text()
    assert "Reconstructions cannot be shown: " in text
    assert "is damaged" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run"):
        write_report(tmp_path)


@pytest.mark.slow
def test_what_went_wrong_is_told_as_text(make_workload: Callable[..., Workload], tmp_path: Path) -> None:
    struck = "faults=[{kind: nan, client: B, round: 2}]"
    wrong = run(make_workload(struck, "engine.on_client_error=drop"), tmp_path / "run")
    Failures(wrong.path).note(
        [
            Failure(
                round=2,
                phase="train",
                client="A.1",
                kind="lost",
                action="replayed",
                message="<script>alert(1)</script>",
            )
        ]
    )
    page = write_report(wrong.path).read_text()
    assert "1 time a client was <strong>dropped</strong>" in page
    assert "client B, round 2: sent NaN" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


def test_a_run_without_failures_does_not_speak_of_them(page: Page) -> None:
    assert "What went wrong" not in page.text


@pytest.mark.slow
def test_a_run_on_a_gpu_says_whether_it_can_be_repeated(finished: Run, tmp_path: Path) -> None:
    """By its tables: nothing need have trained there."""
    copy = shutil.copytree(finished.path, tmp_path / "run")
    finished.clients.assign(device="cuda").to_parquet(copy / "clients.parquet")
    same = "Clients trained on a GPU with deterministic kernels: the same workload gives the same bits there."
    assert same in Page(write_report(copy)).text
    engine = finished.workload.engine.model_copy(update={"deterministic": False})
    said = kernels(finished.workload.model_copy(update={"engine": engine}), {"cpu", "cuda"})
    assert "with engine.deterministic: false: a run that is repeated" in said
    assert kernels(finished.workload, {"cpu"}) == ""
