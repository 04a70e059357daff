"""The live page in a real browser: it follows what a run, a study and a folder write, without being loaded again."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsim.cli.live.server import LiveServer
from fedsim.engine.host.messages import Row
from fedsim.engine.record.ledger import write_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation
from fedsim.report.report import write_report
from fedsim.study.ended import write_failures
from fedsim.study.frozen import freeze
from fedsim.study.point import run_point
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload
from tests.cli.conftest import PAIR
from tests.report.browser.test_browser import FAINT

from .conftest import Make, Serve

pytestmark = pytest.mark.slow

LOADED_ONCE = "() => performance.getEntriesByType('navigation').length === 1 && window.mark === 'the same page'"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server; what it asks for elsewhere, or complains about, fails the test."""
    pages, elsewhere, complaints = [], [], []

    def open_page(server: LiveServer, query: str = "", width: int = 1280, **look: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, **look)
        page.set_default_timeout(60_000)
        own = (server.address, "data:")
        page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(own) else None)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.address + query)
        page.evaluate("window.mark = 'the same page'")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert elsewhere == []
    assert [text for text in complaints if "ERR_CONNECTION_REFUSED" not in text] == []


def shows(page: Any, selector: str, text: str) -> None:
    """Waits until an element has a text."""
    page.locator(selector, has_text=text).first.wait_for()


def test_rounds_advance_while_a_run_goes_on(
    workload: Path, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]
) -> None:
    """The run's next round waits until the page shows the last one."""
    path, pages, seen = tmp_path / "runs with spaces" / "år 1", [], []

    def between(row: Row) -> None:
        pages[:] = pages or [open_page(serve(path))]
        shows(pages[0], "#reached", f"round {row['round']} of 3")
        shows(pages[0], "#state", "running" if row["round"] < 3 else "testing")
        shows(pages[0], "#image", "Not yet")
        seen.append(pages[0].locator("#chart").get_attribute("data-rounds"))

    with Simulation(load_workload(workload, ["training.rounds=3"]), path) as simulation:
        assert simulation.run(between=between)
        simulation.evaluate(images=True)
        pages[0].locator("#image .viewer canvas[data-drawn]").first.wait_for()
    shows(pages[0], "#state", "finished")
    assert seen == ["1", "2", "3"]
    assert pages[0].evaluate(LOADED_ONCE)
    assert pages[0].locator("#image .viewer").get_by_text("PSNR").count() == 2, "zero-filled and reconstruction"


@pytest.mark.long
def test_a_finished_run_in_a_copied_folder(
    finished: Run, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]
) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "a copy")
    write_report(copy)
    page = open_page(serve(copy))
    shows(page, "#state", "finished")
    shows(page, "#image figcaption", "the report shows every site")
    assert page.locator("#legend li").count() == 4, "what is shown, and three sites"
    page.get_by_role("radio", name="SSIM").check()
    ssim = finished.clients.query("round == 2 and site == 'A'")["ssim"].mean()
    shows(page, "#legend", f"A {float(f'{ssim:.4g}')}")


@pytest.mark.long
def test_a_study_fills_and_its_points_can_be_opened(
    workload: Path, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]
) -> None:
    (tmp_path / "pair.yaml").write_text(PAIR)
    plan, folder = load_study(tmp_path / "pair.yaml"), tmp_path / "pair"
    freeze(plan, folder)
    first, second = plan.examples()
    page = open_page(serve(folder))
    shows(page, "#reached", "0 of 2 points finished")
    run_point(first.workload, folder / first.folder, first.part, lambda: False)
    shows(page, "#reached", "1 of 2 points finished")
    write_failures(folder, {second.label: "as told"})
    shows(page, "#items tr", "as told")
    assert page.locator("#cells").get_attribute("data-drawn") == "2"
    assert page.evaluate(LOADED_ONCE)
    page.get_by_role("link", name=first.label).click()
    shows(page, "#reached", "round 2 of 2")
    page.get_by_role("link", name="all of them").click()
    shows(page, "#reached", "1 of 2 points finished")


def test_a_folder_of_runs(make: Make, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]) -> None:
    make(tmp_path / "runs" / "one", 3, 3).rounds(5)
    two = make(tmp_path / "runs" / "<b>two</b>", 3, 3)
    two.rounds(1)
    page = open_page(serve(tmp_path / "runs"))
    shows(page, "#items tr", "<b>two</b>")
    two.rounds(3)
    shows(page, "#items tr:has-text('two')", "4 of 40")
    page.get_by_role("link", name="one").click()
    shows(page, "#reached", "round 5 of 40")


def test_ten_thousand_clients(make: Make, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]) -> None:
    run = make(tmp_path / "run", 10_000, 10_000)
    run.rounds(3, part=0.5, failing=0.01)
    page = open_page(serve(run.path))
    page.locator("#cells[data-drawn='10000']").wait_for()
    shows(page, "#legend", "median site")
    page.locator("#cells").hover(position={"x": 1, "y": 1})
    shows(page, "#cell", "P-00001: ")
    page.keyboard.press("Tab")
    page.locator("#cells").press("ArrowRight")
    shows(page, "#cell", "P-00002: ")
    run.rounds(1)
    shows(page, "#states", "trained in the newest round: 10,000")
    assert page.locator("main *").count() < 300, "no element a client"
    assert page.evaluate(LOADED_ONCE)


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.long
def test_as_many_tabs_as_one_likes(make: Make, tmp_path: Path, serve: Serve, browser: Any) -> None:
    """A browser has six connections to a server; a tab that is not shown needs none, and catches up when it is."""
    run = make(tmp_path / "run", 3, 3)
    run.rounds(1)
    server, window = serve(run.path), browser.new_context()
    tabs = []
    for _ in range(8):
        tabs.append(window.new_page())
        tabs[-1].goto(server.address)
        shows(tabs[-1], "#reached", "round 1 of 40")
        tabs[-1].evaluate(HIDE, True)
    run.rounds(1)
    tabs[0].evaluate(HIDE, False)
    shows(tabs[0], "#reached", "round 2 of 40")
    window.close()


def test_what_cannot_be_read_is_said_and_a_closed_server_too(
    make: Make, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]
) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(2)
    page = open_page(server := serve(run.path))
    shows(page, "#reached", "round 2 of 40")
    shutil.rmtree(run.path / "rounds.parquet")
    (run.path / "rounds.parquet").write_bytes(b"PAR1 half of it")
    shows(page, "#unreadable", "is damaged")
    shows(page, "#reached", "round 2 of 40")
    write_table(
        run.path / "rounds.parquet",
        Run(run.path).clients.query("client == 'S0'").assign(seconds=1.0, uplink_bytes=1, downlink_bytes=1),
    )
    page.locator("#unreadable").wait_for(state="hidden")
    server.closing.set()
    server.shutdown()
    server.server_close()
    shows(page, "#link", "Not connected")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_and_can_be_read(
    width: int, scheme: str, make: Make, tmp_path: Path, serve: Serve, open_page: Callable[..., Any]
) -> None:
    run = make(tmp_path / "run", 24, 8, "time={latency_s: 1.0}")
    run.rounds(30, part=0.8, failing=0.1)
    run.fail("S0.1", "a long message " * 20)
    (run.path / "log.txt").write_text("2026-01-01 00:00:01 warning: " + "as told " * 40 + "\n")
    page = open_page(serve(run.path), width=width, color_scheme=scheme)
    shows(page, "#log", "as told")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(FAINT) == []
