"""Ray's metrics of a run: read from a node, and by a real Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.record.run_directory import Run

pytestmark = [pytest.mark.long, pytest.mark.ray]
DASHBOARD = Path(__file__).parents[3] / "clusters" / "grafana.json"


@pytest.fixture(scope="module")
def port(ray_session: None) -> int:
    """Where this node's metrics are."""
    import ray

    (node,) = ray.nodes()
    return int(node["MetricsExportPort"])


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """All of this Ray so far: its counters add them up."""
    return []


@pytest.fixture
def simulate_on_ray(ray_session: None, simulate: Callable[..., Run], runs: list[Run]) -> Callable[[], Run]:
    """One more run, of two rounds."""

    def one_more() -> Run:
        runs.append(simulate("engine.backend=ray", "engine.clients_per_actor=auto", "training.rounds=2"))
        return runs[-1]

    return one_more


def expected(runs: list[Run]) -> dict[str, float]:
    """By metric, as PromQL."""
    clients, rounds = (pd.concat([getattr(run, table) for run in runs]) for table in ("clients", "rounds"))
    return {
        "ray_fedsim_round": 2,
        "ray_fedsim_rounds_total": len(rounds),
        "ray_fedsim_clients_done_total": len(clients),
        'ray_fedsim_bytes_total{direction="uplink"}': clients["uplink_bytes"].sum(),
        'ray_fedsim_seconds_total{kind="train"}': clients["train_seconds"].sum(),
        'ray_fedsim_seconds_total{kind="round"}': rounds["seconds"].sum(),
    }


def eventually(read: Callable[[], float], least: float = 0) -> float:
    """A value, as soon as it is there and has grown so far: Ray collects its metrics every ten seconds."""
    until = time.monotonic() + 90
    while True:
        try:
            if (value := read()) >= least * (1 - 1e-9) or time.monotonic() > until:
                return value
        except (LookupError, OSError):
            if time.monotonic() > until:
                raise
        time.sleep(1)


def queries() -> dict[str, str]:
    """Of the dashboard's panels, by title, as Grafana sends them."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: target["expr"].replace("$__rate_interval", "1m")
        for panel in panels for target in panel["targets"]
    }  # fmt: skip


def on_page(port: int, metric: str) -> float:
    name, _, tag = metric.rstrip("}").partition("{")
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    lines = [line for line in page.splitlines() if line.startswith(name) and tag in line]
    return float(lines[0].rpartition(" ")[2])


def test_a_nodes_page_has_what_the_ledgers_have_and_the_dashboard_asks_for(
    port: int, simulate_on_ray: Callable[[], Run], runs: list[Run]
) -> None:
    simulate_on_ray()
    for metric, value in expected(runs).items():
        assert eventually(lambda metric=metric: on_page(port, metric), value) == pytest.approx(value)
    for name in re.findall(r"ray_\w+", " ".join(queries().values())):
        assert eventually(lambda name=name: on_page(port, name)) >= 0


@pytest.fixture
def prometheus(port: int, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes this node every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus on the PATH; Debian's package prometheus has it")
    targets = [{"targets": [f"127.0.0.1:{port}"]}]
    scraping = [{"job_name": "ray", "scrape_interval": "1s", "static_configs": targets}]
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": scraping}))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    process = subprocess.Popen([program, *paths, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    yield address
    process.terminate()
    process.wait()


def asked(address: str, query: str) -> float:
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    answer = json.loads(urllib.request.urlopen(url).read())
    return float(answer["data"]["result"][0]["value"][1])


def test_prometheus_answers_each_panel_of_the_dashboard(
    prometheus: str, simulate_on_ray: Callable[[], Run], runs: list[Run]
) -> None:
    simulate_on_ray()
    eventually(lambda: asked(prometheus, "ray_fedsim_rounds_total"), 2 * len(runs))
    simulate_on_ray()  # what has grown since Prometheus first looked has a rate
    for metric, value in expected(runs).items():
        assert eventually(lambda metric=metric: asked(prometheus, metric), value) == pytest.approx(value)
    answers = {title: eventually(lambda query=query: asked(prometheus, query)) for title, query in queries().items()}
    assert all(value >= 0 for value in answers.values()), answers
    seconds = pd.concat([run.rounds["seconds"] for run in runs])
    assert seconds.min() <= answers["Seconds per round, mean of the last ten minutes"] <= seconds.max()
