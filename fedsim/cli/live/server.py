"""The server of a live page: on loopback only, for who knows the token in its address, and for nothing but the page."""

import json
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import parse_qs

from fedsim.cli.live.subject import Feed, Subject
from fedsim.core.errors import InputError
from fedsim.report.figures import PALETTE
from fedsim.report.page import live_page

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost"}  # with any port: a tunnel may have another one at its other end
_LOOK_EVERY_S = 1.0
_SIGN_OF_LIFE_S = 15.0
_PATIENCE_S = 30.0
_HEADERS = {
    "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip


class LiveServer(ThreadingHTTPServer):
    """Serves the page of a subject and of what it holds, until it is closed."""

    daemon_threads = True
    block_on_close = False
    server_name: str
    server_port: int

    def __init__(self, subject: Subject) -> None:
        """Listen on a port that is free."""
        self.token = secrets.token_urlsafe(24)
        """The first part of every path that is answered."""
        self.closing = threading.Event()
        """Set when nothing more is to be sent."""
        self._feeds: dict[tuple[int, ...], Feed] = {(): Feed(subject)}
        self._lock = threading.Lock()
        super().__init__((HOST, 0), _Request)

    def server_bind(self) -> None:
        """Bind without asking for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def feed(self, at: tuple[int, ...]) -> Feed:
        """The sections of a run or study, by its number in the page that lists it, and by that page's.

        Raises:
            IndexError: there is none.
            InputError: what lists it cannot be read.
        """
        with self._lock:
            for depth in range(len(at)):
                if at[: depth + 1] not in self._feeds:
                    self._feeds[at[: depth + 1]] = Feed(self._feeds[at[:depth]].subject.child(at[depth]))
            return self._feeds[at]

    def close(self) -> None:
        """Stop listening, and end what is being sent."""
        self.closing.set()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has gone away is no error."""


class _Request(BaseHTTPRequestHandler):
    """A request for the page, or for what changes on it."""

    server: LiveServer
    timeout = _PATIENCE_S
    server_version, sys_version = "fedsim", ""

    def do_GET(self) -> None:
        """Answer, if the host and the token are right; a path is compared, and opens no file."""
        path, _, query = self.path.partition("?")
        _, token, *rest = [*path.split("/"), ""]
        if not self._is_local() or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that fedsim watch --web has printed, with its token")
            return
        try:
            feed = self.server.feed(_numbers(query))
        except (IndexError, ValueError, InputError):
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such run")
            return
        if rest[:-1] == [""]:
            text, policy = live_page(palette=PALETTE)
            self._answer(HTTPStatus.OK, "text/html", text, {"Content-Security-Policy": policy})
        elif rest[:-1] == ["events"]:
            self._send_events(feed)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Requests are nothing to print, and hold the token."""

    def _is_local(self) -> bool:
        """Whether the browser asked for this machine; another name may have been bent to its address."""
        hosts = self.headers.get_all("Host", [])
        name, _, port = (hosts[0] if len(hosts) == 1 else "").partition(":")
        return name in _NAMES and (port or "80").isdecimal()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, "text/plain", f"{why}\n", {})

    def _answer(self, status: HTTPStatus, kind: str, text: str, more: Mapping[str, str]) -> None:
        content = text.encode()
        self._begin(status, kind, {"Content-Length": str(len(content)), **more})
        with suppress(OSError):
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, more: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_events(self, feed: Feed) -> None:
        """Send what has changed, as long as the browser listens."""
        self._begin(HTTPStatus.OK, "text/event-stream", {})
        sent: Mapping[str, str] = {}
        silent = 0.0
        with suppress(OSError):
            while not self.server.closing.is_set():
                now = feed.now()
                text = _event(sent, now)
                silent = 0.0 if text else silent + _LOOK_EVERY_S
                if text or silent >= _SIGN_OF_LIFE_S:
                    self.wfile.write((text or ":\n\n").encode())
                    silent = 0.0
                sent = now
                self.server.closing.wait(_LOOK_EVERY_S)


def _event(sent: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The sections that have changed, as an event; those that are gone are null. Empty if none has."""
    changed = {name: text for name, text in now.items() if sent.get(name) != text}
    changed |= {name: "null" for name in sent if name not in now}
    if not changed:
        return ""
    return "data: {" + ",".join(f"{json.dumps(name)}:{text}" for name, text in changed.items()) + "}\n\n"


def _numbers(query: str) -> tuple[int, ...]:
    """The numbers in `at=3.12`; none without it.

    Raises:
        ValueError: they are no numbers.
    """
    at = parse_qs(query, keep_blank_values=True).get("at", [""])[0]
    if not at:
        return ()
    parts = at.split(".")
    if len(at) > 40 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(at)
    return tuple(map(int, parts))


def tunnel(port: int) -> str:
    """The command that brings the page to another machine."""
    return f"ssh -N -L {port}:{HOST}:{port} {socket.gethostname()}"
