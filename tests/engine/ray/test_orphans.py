"""What a run leaves behind, however it ends: no process, no shared memory, no temporary file."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fedsim.workload.schema import Workload
from tests.conftest import COMMAND

from .raylets import cluster

pytestmark = pytest.mark.ray

ENDS_WITHIN_S = 15.0
LONG_ROUND = "training.local_epochs=100000"


class Command:
    """`fedsim run` in a process group and with a temporary folder of its own."""

    def __init__(self, workload: Path, out: Path, environment: dict[str, str], *settings: str) -> None:
        keys = ["--set", "engine.backend=ray", "--out", str(out)]
        keys += [word for setting in ("engine.clients_per_actor=2", *settings) for word in ("--set", setting)]
        keys += ["--address", environment["ADDRESS"]] if "ADDRESS" in environment else []
        self.log, self.temporary = out.with_suffix(".log"), environment["TMPDIR"]
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                [*COMMAND, "run", workload, *keys],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.seen: set[psutil.Process] = {self.process}
        self.shared_memory: set[Path] = set()

    def look(self) -> set[psutil.Process]:
        """The processes of the run so far, and in `shared_memory` what they share."""
        with suppress(psutil.NoSuchProcess):
            self.seen |= set(self.process.children(recursive=True))
        for process in self.seen:
            with suppress(OSError):
                mapped = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
                self.shared_memory |= {
                    Path(line[line.index("/dev/shm") :].split()[0]) for line in mapped if "/dev/shm" in line
                }
        return self.seen

    def until(self, what: Callable[[], bool], within: float = 90) -> None:
        deadline = time.monotonic() + within
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            self.look()
            time.sleep(0.2)

    def ends(self) -> int:
        deadline = time.monotonic() + 90
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.log.read_text()
            self.look()
            time.sleep(0.2)
        return int(self.process.returncode)


def actors_train(command: Command) -> bool:
    return sum(title(process).startswith("ray::Host.train") for process in command.look()) >= 2


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def mentions(process: psutil.Process, folder: str) -> bool:
    """Whether a process was started for something in a folder."""
    with suppress(psutil.Error):
        return folder in title(process) or folder in process.environ().get("TMPDIR", "")
    return False


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_the_end(command: Command) -> None:
    """Until nothing of the run is alive: ENDS_WITHIN_S at most."""
    begun = time.monotonic()
    command.process.wait()
    while True:
        left = [
            p for p in {*command.seen, *psutil.process_iter()} if p in command.seen or mentions(p, command.temporary)
        ]
        left = [process for process in left if alive(process)]
        if not left:
            return
        assert time.monotonic() - begun < ENDS_WITHIN_S, [title(process) for process in left]
        time.sleep(0.2)


def assert_nothing_left(command: Command) -> None:
    wait_for_the_end(command)
    assert len(command.seen) > 5
    assert command.shared_memory
    assert [path for path in command.shared_memory if path.exists()] == []


def left_in(temporary: Path) -> list[Path]:
    """But for the cache folder that torch makes for each user, once."""
    return [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, as sockets' paths may not be long."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(workload: Callable[..., Workload], tmp_path: Path, temporary: Path) -> Iterator[Callable[..., Command]]:
    workload()
    started: list[Command] = []

    def start(*settings: str, **environment: str) -> Command:
        where = {**os.environ, "TMPDIR": str(temporary), **environment}
        started.append(Command(tmp_path / "small.yaml", tmp_path / f"run-{len(started)}", where, *settings))
        return started[-1]

    yield start
    for command in started:
        for process in command.look():
            if alive(process):
                process.kill()
        command.process.wait()


@pytest.mark.long
def test_a_killed_run_ends_and_the_next_one_tidies_up(start: Callable[..., Command], temporary: Path) -> None:
    killed = start(LONG_ROUND)
    killed.until(lambda: actors_train(killed))
    assert {"raylet", "gcs_server"} <= {Path(title(process).partition(" ")[0]).name for process in killed.look()}
    killed.process.send_signal(signal.SIGKILL)
    assert_nothing_left(killed)
    good = start("training.rounds=1")
    assert good.ends() == 0, good.log.read_text()
    assert_nothing_left(good)
    assert left_in(temporary) == []


@pytest.mark.long
def test_a_failed_run_leaves_nothing(start: Callable[..., Command], temporary: Path) -> None:
    command = start("training.lr=1e30")
    assert command.ends() == 1, command.log.read_text()
    assert_nothing_left(command)
    assert left_in(temporary) == []


@pytest.mark.long
@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_run_ends_with_one_line_when_ray_itself_is_killed(start: Callable[..., Command], victim: str) -> None:
    command = start(LONG_ROUND)
    command.until(lambda: actors_train(command))
    (process,) = [p for p in command.look() if Path(title(p).partition(" ")[0]).name == victim]
    process.kill()
    assert command.ends() == 1, command.log.read_text()
    last = command.log.read_text().splitlines()[-1]
    assert last == f"fedsim: Ray has lost an essential process ({victim}); continue with --resume"
    assert_nothing_left(command)


@pytest.mark.long
def test_an_interrupted_run_leaves_nothing(start: Callable[..., Command], temporary: Path) -> None:
    command = start(LONG_ROUND)
    command.until(lambda: actors_train(command))
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
    command.until(lambda: "interrupt again to stop at once" in command.log.read_text())
    assert actors_train(command), "the first one lets the round go on"
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.ends() == 130, command.log.read_text()
    assert_nothing_left(command)
    assert left_in(temporary) == []


@pytest.mark.long
def test_a_killed_driver_takes_its_actors_from_a_cluster_that_goes_on(
    start: Callable[..., Command], temporary: Path
) -> None:
    with cluster() as (head, keys):

        def actors() -> list[psutil.Process]:
            return [process for process in head.children(recursive=True) if title(process).startswith("ray::Host")]

        command = start(LONG_ROUND, **keys)
        command.until(lambda: any(title(actor).startswith("ray::Host.train") for actor in actors()))
        theirs = actors()
        assert len(theirs) == 2
        command.process.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs(theirs, timeout=ENDS_WITHIN_S)[1]
        assert actors() == []
        raylets = [process for process in head.children(recursive=True) if "/raylet/raylet " in title(process)]
        assert len(raylets) == 3
        assert all(map(alive, raylets))
    assert left_in(temporary) == []
