"""Live pages, served in this process."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsim.cli.live.server import LiveServer
from fedsim.cli.live.serving import subject_of
from fedsim.workload.reading import load_workload, write_yaml

from .made import MadeRun

Make = Callable[..., MadeRun]
Serve = Callable[[Path], LiveServer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run of some clients and sites, which has no round yet."""

    def make(path: Path, clients: int, sites: int, *overrides: str) -> MadeRun:
        source = {"format": "phantom", "subjects": 9, "slices": 4}
        names = [{"name": "P", "count": sites}] if sites > 20 else [{"name": f"S{number}"} for number in range(sites)]
        content = {
            "name": "made", "federation": {"clients": clients, "sites": [{**one, "source": source} for one in names]},
            "training": {"rounds": 40},
        }  # fmt: skip
        (tmp_path / "made.yaml").write_text(write_yaml(content))
        return MadeRun(path, load_workload(tmp_path / "made.yaml", overrides))

    return make


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves the page of a folder."""
    servers: list[tuple[LiveServer, threading.Thread]] = []

    def serve(path: Path) -> LiveServer:
        server = LiveServer(subject_of(path))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.close()
        thread.join()
