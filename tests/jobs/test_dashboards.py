"""Dashboards that are not plainly at a host and a port: behind a path prefix, a proxy, or not there."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from .conftest import Cluster, Fedsim

PREFIX = b"/team/ray"


class Prefixed(socketserver.BaseRequestHandler):
    """One connection to a reverse proxy that shows the dashboard below a prefix; all else is not found."""

    def handle(self) -> None:
        came = self.request.recv(2**16)
        method, _, rest = came.partition(b" ")
        if not rest.startswith(PREFIX + b"/"):
            self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        head, _, body = rest.removeprefix(PREFIX).partition(b"\r\n")
        once = b"" if b"Upgrade: websocket" in came else b"Connection: close\r\n"  # a request a connection
        with socket.create_connection(cast(Proxy, self.server).dashboard) as there:
            there.sendall(method + b" " + head + b"\r\n" + once + body.replace(b"Connection: keep-alive\r\n", b""))
            on = threading.Thread(target=copied, args=(self.request, there), daemon=True)
            on.start()
            copied(there, self.request)


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy of a dashboard."""

    daemon_threads = True
    block_on_close = False
    dashboard = ("127.0.0.1", 0)


def copied(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(2**16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has closed
        return


@contextmanager
def proxy(handler: type[socketserver.BaseRequestHandler], url: str) -> Iterator[str]:
    """Its host and port."""
    with Proxy(("127.0.0.1", 0), handler) as server:
        parts = urlsplit(url)
        server.dashboard = (parts.hostname or "", parts.port or 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Answers(socketserver.BaseRequestHandler):
    """A server that knows no Ray."""

    def handle(self) -> None:
        self.request.recv(2**16)
        self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_something_else_than_a_dashboard_is_said(
    fedsim: Fedsim, workload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked itself, and no proxy, which would see the token."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    with proxy(Answers, "") as there:
        url = f"http://{there.replace('127.0.0.1', '0.0.0.0')}/wrong"
        status, _, err = fedsim("submit", workload, "--cluster", url)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"fedsim: --cluster {url}: no Ray dashboard answers there (Version check returned 404")
    assert err.endswith("; give the address at which a browser shows it, with its path if it has one\n")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # of Ray's own client
@pytest.mark.parametrize("end", ["", "/"])
def test_a_dashboard_behind_a_path_prefix_takes_a_job(
    fedsim: Fedsim, workload: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
    with proxy(Prefixed, cluster.url) as there:
        url = f"http://{there}{PREFIX.decode()}{end}"
        status, out, err = fedsim("submit", workload, "--cluster", url, "--out", f"prefixed{len(end)}", "--wait")
    assert status == 0, err
    assert "round 2/2" in out
    assert (tmp_path / f"prefixed{len(end)}" / "report.html").is_file()
