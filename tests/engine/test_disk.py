"""A disk that fills up or may not be written to: the run stops with a clear line and goes on later without loss."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsim.data.phantom import PhantomSource
from fedsim.data.shard import write_shard
from fedsim.engine.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.rundir import Run
from fedsim.errors import InputError, WriteError

from .conftest import assert_same

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


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("keys", [(), RAY])
def test_a_full_disk_stops_the_run_and_space_brings_it_back(
    simulate: Simulate, disk: Path, keys: tuple[str, ...]
) -> None:
    ballast = disk / "ballast"
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\); make room there and repeat"):
        simulate(*keys, out=disk / "run", observer=AfterRoundTwo(lambda: fill(ballast)))
    with pytest.raises(InputError, match="of checkpoints do not fit into the 0 B that are free"):
        simulate(*keys, out=disk / "run", resume=True)
    assert Run(disk / "run").round("last") == 2
    ballast.unlink()
    assert_same(simulate(), simulate(*keys, out=disk / "run", resume=True))
    assert not list((disk / "run").rglob("*.part")), "nothing half-written is left"


def test_a_read_only_run_directory_stops_the_run(simulate: Simulate, disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)

    with pytest.raises(WriteError, match=r"cannot be written \(Read-only file system\)"):
        simulate(out=disk / "run", observer=AfterRoundTwo(lambda: remount("ro")))
    with pytest.raises(InputError, match=r"^--out .*run: cannot be written .*Read-only file system"):
        simulate(out=disk / "run", resume=True)
    with pytest.raises(InputError, match=r"^--out .*new: cannot be written .*Read-only file system"):
        simulate(out=disk / "new")
    remount("rw")
    assert_same(simulate(), simulate(out=disk / "run", resume=True))


def test_a_full_cache_is_named(simulate: Simulate, disk: Path, tmp_path: Path) -> None:
    """Before the run, where it can be foreseen; else when a shard is written."""
    fill(disk / "ballast")
    with pytest.raises(InputError, match=r"^federation\.cache: .* of shards do not fit into the 0 B that are free"):
        simulate(f"federation.cache={disk / 'cache'}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    source = PhantomSource(format="phantom", subjects=2, slices=2, size=48, contrast="t1").resolve(1, "A")
    with pytest.raises(WriteError, match=r"shard\.h5: cannot be written \("):
        write_shard(source, Path(), (32, 32), disk / "shard.h5")
    assert [path.name for path in disk.iterdir() if path.suffix in {".h5", ".part"}] == []


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("keys", [(), RAY])
def test_a_disk_that_is_full_by_the_workload(simulate: Simulate, tmp_path: Path, keys: tuple[str, ...]) -> None:
    struck = "faults=[{kind: disk_full, client: B, round: 2}]"
    with pytest.raises(WriteError, match=r"B\.safetensors: cannot be written \(No space left on device\)"):
        simulate(struck, *keys, out=tmp_path / "run")
    assert Run(tmp_path / "run").round("last") == 1
    assert_same(simulate(), simulate(struck, *keys, out=tmp_path / "run", resume=True))
