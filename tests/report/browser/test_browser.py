"""Reports in a real browser: sorted, switched, zoomed and scrolled, by mouse and keyboard, and nothing loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPORTS = ("run_report", "study_report")
SAME_PART = """() =>
  new Set([...document.querySelectorAll(".viewer canvas")].map((one) => one.dataset.drawn)).size === 1
               && document.querySelector(".viewer canvas").dataset.drawn.startsWith(WANTED)"""
PIXELS = """() => [...document.querySelectorAll(".viewer canvas")].map((one) => one.toDataURL())"""
# Text elements whose contrast to what lies behind them is below 4.5 (WCAG 2, AA), with the ratio.
FAINT = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const one of document.body.querySelectorAll("*")) {
    const texts = [...one.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
    if (!texts.length || !one.checkVisibility() || one.closest("script, style, noscript")) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${one.tagName} ${ratio.toFixed(2)} ${texts[0].textContent.trim().slice(0, 40)}`);
  }
  return faint;
}"""


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a report by file://; whatever it asked for or complained about fails the test."""
    pages, asked, complaints = [], [], []

    def open_page(report: Path, width: int = 1400, **look: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, **look)
        page.set_default_timeout(5000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(report.as_uri())
        pages.append((page, report.as_uri()))
        return page

    yield open_page
    for page, _ in pages:
        page.close()
    opened = {uri for _, uri in pages}
    assert [url for url in asked if url not in opened and not url.startswith("data:")] == []
    assert complaints == []


def column(page: Any, head: str) -> list[str]:
    at = page.locator("table.sortable").first.locator("thead th").all_text_contents().index(head)
    return page.locator(f"table.sortable >> nth=0 >> tbody td:nth-child({at + 1})").all_text_contents()


def shows(page: Any, slice_: int, zoom: int) -> tuple[float, float]:
    """Waits until all four canvases show the same part of a slice; returns its centre (0 to 1)."""
    page.wait_for_function(SAME_PART.replace("WANTED", repr(f"{slice_} {zoom} ")))
    x, y = page.locator(".viewer canvas").first.get_attribute("data-drawn").split()[2:]
    return float(x), float(y)


@pytest.mark.slow
def test_a_click_on_a_head_sorts_and_a_second_one_turns_it_round(open_page: Any, study_report: Path) -> None:
    page = open_page(study_report)
    before = column(page, "PSNR [dB]")
    page.get_by_role("button", name="PSNR [dB]", exact=True).first.click()
    values = [float(text.split()[0]) for text in column(page, "PSNR [dB]")]
    assert values == sorted(values)
    assert column(page, "PSNR [dB]") != before
    page.get_by_role("button", name="PSNR [dB]", exact=True).first.click()
    assert [float(text.split()[0]) for text in column(page, "PSNR [dB]")] == sorted(values, reverse=True)


@pytest.mark.slow
def test_a_table_sorts_by_keyboard_numbers_by_value_and_what_is_missing_last(
    open_page: Any, study_report: Path
) -> None:
    page = open_page(study_report)
    head = page.get_by_role("button", name="clients N", exact=True)
    head.focus()
    page.keyboard.press("Enter")
    assert column(page, "clients N") == ["4", "4", "16", "16", "64", "64"]
    page.keyboard.press("Space")
    assert column(page, "clients N") == ["64", "64", "16", "16", "4", "4"]
    sorts = page.locator("table.sortable").first.locator("th[aria-sort]")
    assert sorts.count() == 1
    assert sorts.get_attribute("aria-sort") == "descending"
    apart = page.get_by_role("button", name="− fedmri").first
    for _ in range(2):
        apart.click()
        assert column(page, "− fedmri [95 % CI]")[-3:] == ["", "", ""], "the reference differs from nothing"


@pytest.mark.slow
def test_the_switch_changes_columns_charts_and_sentences(open_page: Any, study_report: Path) -> None:
    page = open_page(study_report)
    for quality, name in (("ssim", "SSIM"), ("nmse", "NMSE"), ("psnr", "PSNR [dB]")):
        page.get_by_role("radio", name=name).check()
        heads = [one.inner_text() for one in page.locator("table.sortable").first.locator("th:visible").all()]
        others = {"SSIM", "NMSE", "PSNR [dB]"} - {name}
        assert name in {head.strip(" ↕↑↓") for head in heads}
        assert not others & {head.strip(" ↕↑↓") for head in heads}
        charts = page.locator("section[class^=of-]:visible")
        assert charts.count() == 1
        assert charts.locator("h2").inner_text() == f"Test quality: {name}"
        assert page.locator(f"ul.of-{quality}").is_visible()
    page.get_by_role("radio", name="PSNR [dB]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("section.of-ssim").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS)
def test_four_images_zoom_and_move_together(open_page: Any, report: str, request: pytest.FixtureRequest) -> None:
    page = open_page(request.getfixturevalue(report))
    shows(page, 1, 1)  # the middle slice of three
    whole = page.evaluate(PIXELS)
    canvas = page.locator(".viewer canvas").nth(2)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.5})
    assert shows(page, 1, 2) == pytest.approx((0.75, 0.5), abs=0.01)
    assert all(one != other for one, other in zip(page.evaluate(PIXELS), whole, strict=True))
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 40 + box["width"] * 0.5, box["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('.viewer canvas').dataset.drawn.split(' ')[2] < 0.52")
    assert shows(page, 1, 2) == pytest.approx((0.5, 0.5), abs=0.02)
    page.get_by_role("button", name="zoom in").click()
    shows(page, 1, 4)
    page.locator(".viewer").focus()
    page.keyboard.press("+")
    shows(page, 1, 8)
    page.keyboard.press("-")
    shows(page, 1, 4)
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_function("() => document.querySelector('.viewer canvas').dataset.drawn.split(' ')[3] > 0.52")
    assert shows(page, 1, 4) == pytest.approx((0.5, 0.525), abs=0.02)
    page.keyboard.press("0")
    assert shows(page, 1, 1) == (0.5, 0.5)
    assert page.evaluate(PIXELS) == whole


@pytest.mark.slow
def test_slices_scroll_by_slider_wheel_and_keys(open_page: Any, study_report: Path) -> None:
    page = open_page(study_report)
    shows(page, 1, 1)
    middle = page.evaluate(PIXELS)
    page.locator(".viewer .slice").fill("0")
    shows(page, 0, 1)
    first = page.evaluate(PIXELS)
    assert all(one != other for one, other in zip(first, middle, strict=True))
    page.locator(".viewer canvas").first.hover()
    page.mouse.wheel(0, 100)
    shows(page, 1, 1)
    page.locator(".viewer").focus()
    page.keyboard.press("ArrowRight")
    shows(page, 2, 1)
    page.keyboard.press("ArrowDown")
    shows(page, 2, 1)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    shows(page, 0, 1)
    assert page.evaluate(PIXELS) == first
    assert page.locator(".viewer .at").inner_text().endswith("(1 of 3)")


@pytest.mark.slow
def test_volume_and_method_are_chosen(open_page: Any, study_report: Path) -> None:
    page = open_page(study_report)
    shows(page, 1, 1)
    before = page.evaluate(PIXELS)
    note = page.locator(".viewer .note").inner_text()
    page.locator(".viewer select.method").select_option("fedmri")
    page.locator(".viewer select.stack").select_option("W")
    assert page.locator(".viewer select.method").input_value() == "fedmri", "it stays"
    page.wait_for_function(f"before => ({PIXELS})()[0] !== before", arg=before[0])
    assert page.locator(".viewer .note").inner_text() != note
    assert "within subject" in page.locator(".viewer .note").inner_text()
    assert "PSNR" in page.locator(".viewer .score").nth(2).inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(
    open_page: Any, report: str, width: int, scheme: str, request: pytest.FixtureRequest
) -> None:
    page = open_page(request.getfixturevalue(report), width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(FAINT) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
    assert dark == (scheme == "dark")


@pytest.mark.slow
def test_without_scripts_tables_and_figures_are_all_there(browser: Any, study_report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(study_report.as_uri())
    assert page.locator("section[class^=of-]:visible").count() == 3
    assert page.locator("table.sortable").first.locator("th:visible").count() > 8
    assert page.locator(".switch").is_hidden()
    assert page.locator(".viewer").is_hidden()
    assert page.get_by_text("needs a browser that runs").is_visible()
    page.close()


@pytest.mark.slow
def test_the_page_may_load_nothing_even_if_told_to(browser: Any, study_report: Path, tmp_path: Path) -> None:
    """The policy in the page, not only what is not in it: markup that came in would be refused by the browser."""
    hostile = tmp_path / "report.html"
    text = study_report.read_text().replace(
        "<h1>", "<script>document.title = 'ran'</script><img src='other.png'><h1>", 1
    )
    hostile.write_text(text)
    asked: list[str] = []
    page = browser.new_page()
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(hostile.as_uri())
    assert page.title() != "ran"
    assert [url for url in asked if "other.png" in url] == []
    assert page.locator(".viewer").is_visible(), "its own script ran"
    page.close()
