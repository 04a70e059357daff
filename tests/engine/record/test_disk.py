"""A disk that fills up or may not be written to: the run stops with a clear line and goes on later without loss."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, WriteError
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.shard import write_shard
from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.record.run_directory import Run
from fedsim.workload.schema import Workload
from tests.conftest import COMMAND
from tests.engine.conftest import assert_same

Simulate = Callable[..., Run]
RAY = ("engine.backend=ray", "engine.clients_per_actor=2")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class AfterRoundTwo(Observer):
    """Does something to the disk between round 2 and round 3."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def round_ends(self, row: Row) -> None:
        if row["round"] == 2:
            self._act()


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), pytest.param(RAY, marks=[pytest.mark.ray, pytest.mark.long])])
def test_a_full_disk_stops_the_run_and_space_brings_it_back(
    simulate: Simulate, whole: Run, disk: Path, keys: tuple[str, ...]
) -> None:
    ballast = disk / "ballast"
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); make room there and repeat"):
        simulate(*keys, out=disk / "run", observer=AfterRoundTwo(lambda: fill(ballast)))
    with pytest.raises(InputError, match="of checkpoints do not fit into the 0 bytes that are free"):
        simulate(*keys, out=disk / "run", resume=True)
    assert Run(disk / "run").round("last") == 2
    ballast.unlink()
    assert_same(whole, simulate(*keys, out=disk / "run", resume=True))
    assert not list((disk / "run").rglob("*.part")), "nothing half-written is left"


@pytest.mark.slow
def test_a_read_only_run_directory_stops_the_run(simulate: Simulate, whole: Run, disk: Path) -> None:
    def read_only() -> None:  # the disk's own mount is busy: the run's lock is open
        subprocess.run(["mount", "--bind", disk, disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)

    with pytest.raises(WriteError, match=r"cannot be written \(Read-only file system\)"):
        simulate(out=disk / "run", observer=AfterRoundTwo(read_only))
    with pytest.raises(InputError, match=r"^--out .*run: cannot be written .*Read-only file system"):
        simulate(out=disk / "run", resume=True)
    with pytest.raises(InputError, match=r"^--out .*new: cannot be written .*Read-only file system"):
        simulate(out=disk / "new")
    subprocess.run(["umount", "--lazy", disk], check=True)
    assert_same(whole, simulate(out=disk / "run", resume=True))


def test_a_full_cache_is_named(simulate: Simulate, disk: Path, tmp_path: Path) -> None:
    """Before the run, where it can be foreseen; else when a shard is written."""
    fill(disk / "ballast")
    with pytest.raises(InputError, match=r"^federation\.cache: .* of shards do not fit into the 0 bytes that are free"):
        simulate(f"federation.cache={disk / 'cache'}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    source = PhantomSource(format="phantom", subjects=2, slices=2, size=48, contrast="t1").resolve(1, "A")
    with pytest.raises(WriteError, match=r"shard\.h5: cannot be written \("):
        write_shard(source, Path(), (32, 32), disk / "shard.h5")
    assert [path.name for path in disk.iterdir() if path.suffix in {".h5", ".part"}] == []


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), pytest.param(RAY, marks=[pytest.mark.ray, pytest.mark.long])])
def test_a_disk_that_is_full_by_the_workload(
    simulate: Simulate, whole: Run, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    struck = "faults=[{kind: disk_full, client: B, round: 2}]"
    with pytest.raises(WriteError, match=r"B\.safetensors: cannot be written \(No space left on device\)"):
        simulate(struck, *keys, out=tmp_path / "run")
    assert Run(tmp_path / "run").round("last") == 1
    assert_same(whole, simulate(struck, *keys, out=tmp_path / "run", resume=True))


@pytest.mark.long
@pytest.mark.ray
def test_an_object_store_that_is_too_small_changes_nothing(simulate: Simulate, tmp_path: Path) -> None:
    """What the server sends (eight encoders of 19 MB) is twice the store; Ray puts the rest on the disk."""
    keys = (
        "federation.clients=8", "model.domain=image", "model.channels=32", "model.pools=4", "training.rounds=2",
        "metrics.every=0", "federation.sites.1.matrix=[32, 32]",
    )  # fmt: skip
    serial = simulate(*keys)
    settings = [word for key in (*keys, "engine.backend=ray", "engine.clients_per_actor=4") for word in ("--set", key)]
    program = (
        "import sys, ray; from fedsim.cli.app import main;"
        "ray.init('local', num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False);"
        "main()"
    )
    command = [sys.executable, "-c", program, "run", tmp_path / "small.yaml", *settings, "--out", tmp_path / "run"]
    subprocess.run(command, check=True, timeout=280)
    assert_same(serial, Run(tmp_path / "run"))


@pytest.mark.long
@pytest.mark.ray
def test_a_node_without_memory_ends_the_run_with_the_reason(workload: Callable[..., Workload], tmp_path: Path) -> None:
    """Ray ends workers above a share of the node's memory, here one that is always exceeded."""
    workload()
    settings = ["--set", "engine.backend=ray", "--set", "engine.retries=1", "--out", tmp_path / "run"]
    ended = subprocess.run(
        [*COMMAND, "run", tmp_path / "small.yaml", *settings],
        env={**os.environ, "RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("fedsim: a process was lost: killed because its node ran low on memory (")
    assert last.endswith("continue with --resume")
