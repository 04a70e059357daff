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


@pytest.fixture
def done(ray_session: None, simulate: Callable[..., Run]) -> Run:
    return simulate("engine.backend=ray", "engine.clients_per_actor=auto", "training.rounds=2")


def expected(run: Run) -> dict[str, float]:
    """By metric, as PromQL."""
    clients = run.clients
    return {
        "ray_fedsim_round": 2,
        "ray_fedsim_clients_done_total": len(clients),
        'ray_fedsim_bytes_total{direction="uplink"}': clients["uplink_bytes"].sum(),
        'ray_fedsim_seconds_total{kind="train"}': clients["train_seconds"].sum(),
        'ray_fedsim_seconds_total{kind="round"}': run.rounds["seconds"].sum(),
    }


def eventually(read: Callable[[], float]) -> float:
    """A value, as soon as there is one: Ray collects its metrics every ten seconds."""
    until = time.monotonic() + 90
    while True:
        try:
            return read()
        except (LookupError, OSError):
            if time.monotonic() > until:
                raise
        time.sleep(1)


def asked_by_dashboard() -> list[str]:
    """The metrics that its panels show."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return sorted(
        {name for panel in panels for one in panel["targets"] for name in re.findall(r"ray_\w+", one["expr"])}
    )


def on_page(port: int, metric: str) -> float:
    name, _, tag = metric.rstrip("}").partition("{")
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    lines = [line for line in page.splitlines() if line.startswith(name) and tag in line]
    return float(lines[0].rpartition(" ")[2])


def test_a_nodes_page_has_what_the_ledger_has_and_the_dashboard_asks_for(port: int, done: Run) -> None:
    begun = {metric: eventually(lambda metric=metric: on_page(port, metric)) for metric in expected(done)}
    assert begun == pytest.approx(expected(done))
    for name in asked_by_dashboard():
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


def test_prometheus_scrapes_it_and_knows_what_the_dashboard_asks(prometheus: str, port: int, done: Run) -> None:
    before = {metric: eventually(lambda metric=metric: asked(prometheus, metric)) for metric in expected(done)}
    assert set(before) == set(expected(done))
    for name in asked_by_dashboard():
        assert eventually(lambda name=name: asked(prometheus, name)) >= 0
