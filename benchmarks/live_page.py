"""How fluid the live page is: frames while a pointer moves over its clients, for few clients and for many.

    python benchmarks/live_page.py [--clients 100 10000] [--moves 200]

Needs playwright and Chromium. One JSON line for each number of clients: the time from a move to the next frame [ms]
(median and 95th percentile), and `ratio`, its median over that of the first number. The runs train nothing.
"""

import argparse
import json
import shutil
import statistics
import threading
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from workload import Case, scratch_folder

from fedsim.cli.live.server import LiveServer
from fedsim.cli.live.serving import subject_of
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload

FRAMES = """async (moves) => {
  const cells = document.querySelector("#cells"), box = cells.getBoundingClientRect(), took = [];
  for (let move = 0; move < moves; move++) {
    const begun = performance.now();
    const [clientX, clientY] = [box.left + (7 * move) % box.width, box.top + (3 * move) % box.height];
    cells.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    took.push(performance.now() - begun);
  }
  return took;
}"""


def frames(browser: Browser, folder: Path, clients: int, moves: int) -> list[float]:
    """Times [ms] of frames on the page of a finished run."""
    server = LiveServer(subject_of(folder))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    try:
        page.goto(server.address)
        page.locator(f"#cells[data-drawn='{clients}']").wait_for()
        took: list[float] = page.evaluate(FRAMES, moves)
    finally:
        page.close()
        server.shutdown()
        server.close()
        serving.join()
    return took


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--moves", type=int, default=200)
    given = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    medians: list[float] = []
    with scratch_folder() as scratch, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for clients in given.clients:
            case = Case(clients, channels=2, size=32, slices=1, batch=1, mode="noop", optimizer="sgd")
            done = run(
                load_workload(case.write(scratch), ["engine.backend=serial", "model.pools=1"]), scratch / str(clients)
            )
            took = frames(browser, done.path, clients, given.moves)
            medians.append(statistics.median(took))
            numbers = {"median_ms": medians[-1], "p95_ms": statistics.quantiles(took, n=20)[-1]}
            rounded = {name: round(value, 1) for name, value in numbers.items()}
            print(json.dumps({"clients": clients, **rounded, "ratio": round(medians[-1] / medians[0], 2)}), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
