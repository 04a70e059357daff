"""The server of a live page: whom it answers, and what it sends of a folder that changes or is damaged."""

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsim.analysis.cohorts import RANGE
from fedsim.cli.live.log import WarningsSoFar
from fedsim.cli.live.overview import LiveFolder
from fedsim.cli.live.run import LiveRun
from fedsim.cli.live.server import LiveServer
from fedsim.cli.live.subject import Feed
from fedsim.core.errors import InputError
from fedsim.data.evaluation import save_images
from fedsim.engine.record.claim import Claim
from tests.cli.conftest import Fedsim
from tests.conftest import COMMAND

from .conftest import Make, Serve


@contextmanager
def asked(server: LiveServer, path: str, host: str | None = None) -> Iterator[HTTPResponse]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    yield connection.getresponse()
    connection.close()


def status(server: LiveServer, path: str, host: str | None = None) -> int:
    with asked(server, path, host) as answer:
        return answer.status


def seen(path: Path) -> dict[str, Any]:
    """Every section of a run's page."""
    return {name: json.loads(text) for name, text in Feed(LiveRun(path, "name")).now().items()}


def test_only_who_knows_the_token_and_asks_for_this_machine_is_answered(
    make: Make, serve: Serve, tmp_path: Path
) -> None:
    server = serve(make(tmp_path / "run", 3, 3).path)
    page, port = f"/{server.token}/", server.server_port
    assert status(server, page) == 200
    for path in (
        "/",
        "/events",
        "/favicon.ico",
        f"/{server.token[:-1]}/",
        f"/{server.token}x/",
        "/%C3%A9/",
        f"/x/{server.token}/",
    ):
        assert status(server, path) == 403
    for host in (f"localhost:{port}", "localhost", "127.0.0.1:8000"):
        assert status(server, page, host) == 200, "through a tunnel, at another port"
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        "localhost.",
        "",
        "127.0.0.1:x",
    ):
        assert status(server, page, host) == 403, host
        assert status(server, f"{page}events", host) == 403, host


def test_a_path_opens_no_file(make: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(make(tmp_path / "run", 3, 3).path)
    for path in ("workload.yaml", "../run/workload.yaml", "%2e%2e/x", "events/x", "/etc/passwd", "live.js"):
        assert status(server, f"/{server.token}/{path}") == 404
    for at in ("0", "9" * 30, "-1", "1.", "x", "..", "1/2", "%00", "1.2.3"):
        assert status(server, f"/{server.token}/?at={at}") == 404
    assert status(server, f"/{server.token}") == 404


def test_the_page_may_load_nothing_and_be_framed_by_none(make: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(make(tmp_path / "run", 3, 3).path)
    with asked(server, f"/{server.token}/") as answer:
        text = answer.read().decode()
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in " ".join(policy.values())
    assert "http" not in policy["script-src"] + policy["img-src"]
    assert server.token not in text


def test_it_listens_on_loopback_only(make: Make, serve: Serve, tmp_path: Path) -> None:
    server = serve(make(tmp_path / "run", 3, 3).path)
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", server.server_port), timeout=5):  # noqa: PT011
        pass


def test_what_has_changed_is_sent_and_no_more(make: Make, serve: Serve, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(2)
    server = serve(run.path)
    with asked(server, f"/{server.token}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        first = json.loads(answer.readline().removeprefix(b"data: "))
        assert first["state"]["reached"] == 2
        assert first["names"] == ["S0", "S1", "S2"]
        run.rounds(1)
        assert answer.readline() == b"\n"
        second = json.loads(answer.readline().removeprefix(b"data: "))
    assert second["state"]["reached"] == 3
    assert {"names", "lines", "head", "image", "log"}.isdisjoint(second)
    assert second["curve-0"]["round"] == [1, 2, 3]


def test_a_run_is_told_as_its_tables_have_it(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "a run", 6, 3, "time={latency_s: 1.0}")
    assert seen(run.path)["state"]["reached"] == 0
    run.rounds(70, part=0.7)
    run.fail("S0.1", "<b>as told</b>")
    told = seen(run.path)
    assert (told["lines"], told["cells"]["round"]) == (["S0", "S1", "S2"], 70)
    assert {*told["cells"]["states"]} <= {*"tb"}
    assert [len(told[f"curve-{block}"]["round"]) for block in (0, 1)] == [64, 6]
    assert told["curve-1"]["virtual_s"][-1] == 7000
    assert told["failures"] == {
        "counts": [["dropped", 1]],
        "rows": [["70", "train", "S0.1", "raised", "dropped", "<b>as told</b>"]],
    }
    assert told["unreadable"] == []
    assert told["image"] == ""


def test_the_clients_of_many_sites_are_summarised(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 10_000, 10_000)
    run.rounds(2, part=0.3, failing=0.1)
    feed = Feed(LiveRun(run.path, "run"))
    told = feed.now()
    assert json.loads(told["lines"]) == list(RANGE)
    assert len(json.loads(told["cells"])["states"]) == 10_000
    assert {*json.loads(told["cells"])["states"]} == {*"tdbfn"}
    assert sum(len(text) for name, text in told.items() if name != "names") < 20_000, "a letter a client"


def test_registered_clients_are_told_of_while_they_are_in_the_cohort(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 30_000, 30_000)
    run.rounds(2, part=0.001)
    told = seen(run.path)
    assert 0 < len(told["names"]) == len(told["cells"]["states"]) < 100
    assert told["cells"]["clients"] == 30_000


@pytest.mark.parametrize("name", ["clients.parquet", "rounds.parquet", "failures.parquet", "log.txt", "workload.yaml"])
def test_what_is_damaged_is_said_until_it_can_be_read(name: str, make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(3)
    run.fail("S0", "as told")
    shown = LiveRun(run.path, "run")
    shown.look()
    assert shown.sections()["state"]["reached"] == 3  # type: ignore[index]
    path = run.path / name
    kept = shutil.move(path, tmp_path / "kept") if path.exists() else None
    path.mkdir() if name == "log.txt" else path.write_bytes(b"PAR1 half of it")
    for _ in range(2):
        shown.look()
        told = shown.sections()
        assert told["state"]["reached"] == 3, "what is known stays"  # type: ignore[index]
    assert name == "log.txt" or name in str(told["unreadable"])
    path.rmdir() if name == "log.txt" else path.unlink()
    if kept:
        shutil.move(kept, path)
    shown.look()
    assert shown.sections()["unreadable"] == []


def test_a_folder_in_which_nothing_can_be_read_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "workload.yaml").write_bytes(b"\xff\x00")
    told = seen(tmp_path)
    assert told["head"]["name"] == "name"
    assert "workload.yaml" in told["unreadable"][0]


def test_the_state_of_a_run_is_that_of_its_claim(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", 3, 3)
    run.rounds(1)
    assert seen(run.path)["state"]["state"] == "stopped"
    with Claim(run.path):
        assert seen(run.path)["state"]["state"] == "running"
        shutil.copytree(run.path, tmp_path / "copy", copy_function=shutil.copy2)
        os.utime(tmp_path / "copy" / ".lock", (1, 1))
        assert seen(tmp_path / "copy")["state"]["state"] == "silent"


def test_saved_images_are_shown_and_no_name_is_markup(make: Make, tmp_path: Path) -> None:
    run, images = make(tmp_path / "run", 3, 3), np.random.default_rng(0).random((3, 3, 8, 8)).astype(np.float32)
    arrays = dict(zip(("target", "zero_filled", "reconstruction"), images, strict=True))
    file = run.path / "images" / "S0" / "v<1.h5"
    save_images(file, np.ones((8, 8), bool), arrays, site="<script>alert(1)</script>", client="S0", round=2)
    told = seen(run.path)
    assert told["image"].count("<img") == 4
    assert "<script" not in told["image"]
    assert "&lt;script&gt;alert(1)" in told["image"]
    file.write_bytes(b"half of it")
    assert "is damaged" in seen(run.path)["unreadable"][0]
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert (seen(run.path)["image"], seen(run.path)["unreadable"]) == ("", []), "a link is no image"


def test_a_folder_lists_its_runs_and_names_a_damaged_one(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "runs" / "one", 3, 3).rounds(2)
    broken = make(tmp_path / "runs" / "two", 3, 3)
    (broken.path / "workload.yaml").write_text("name: [")
    folder = LiveFolder(tmp_path / "runs")
    folder.look()
    rows = {row[1]: row for row in folder.sections()["items"]["rows"]}  # type: ignore[index]
    assert rows["one"][2:5] == ["stopped", 2, 40]
    assert rows["two"][2] == "damaged"
    assert "workload.yaml" in rows["two"][-1]
    child = folder.child(rows["one"][0])
    child.look()
    assert child.sections()["state"]["reached"] == 2  # type: ignore[index]


def test_the_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    log = WarningsSoFar(path)
    log.look()
    path.write_text("2026-01-01 00:00:00 begins\n2026-01-01 00:00:01 warning: one\n2026-01-01 00:00:02 warn")
    log.look()
    assert log.rows() == [("2026-01-01 00:00:01", "warning", "one")]
    with path.open("a") as file:
        file.write("ing: two\n2026-01-01 00:00:03 ended by RunError: three\nTraceback\n")
    log.look()
    assert [row[1:] for row in log.rows()] == [
        ("ended", "ended by RunError: three"),
        ("warning", "two"),
        ("warning", "one"),
    ]


def test_what_is_no_run_is_said_in_one_line(fedsim: Fedsim, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in {"none": "no such folder", "empty": "holds no run and no study"}.items():
        code, out, err = fedsim("watch", tmp_path / name, "--web")
        assert (code, out) == (2, "")
        assert err.startswith(f"fedsim: {tmp_path / name}: {reason}")
    assert fedsim("watch", tmp_path, "--web", "--once")[0] == 2
    with pytest.raises(InputError):
        LiveFolder(tmp_path / "empty")


@pytest.mark.slow
def test_ctrl_c_closes_the_page_and_ends_with_status_0(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "a run", 3, 3)
    run.rounds(1)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    heeded = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND[-1]}"  # else inherited
    process = subprocess.Popen(
        [*COMMAND[:-1], heeded, "watch", run.path, "--web"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("page: ").strip()
    port = int(address.split(":")[2].split("/")[0])
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in process.stdout.readline()
    with urllib.request.urlopen(f"{address}events", timeout=60) as events:
        assert b'"reached":1' in events.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "keeps running" in out
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
