"""The memory that a job's control group leaves, and what the kernel did at its limit."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedsim.engine.place.cgroups import CGROUPS, memory_kills, memory_limit

UNLIMITED = 9223372036854771712  # as version 1 says
GROUPS = [
    ({}, "", "inf", 0),
    ({"memory.max": "max\n"}, "0::/\n", "inf", 0),
    ({"a/b/memory.max": "max\n", "a/memory.max": "2000\n", "a/b/memory.events": "oom 3\noom_kill 2\n"}, "0::/a/b\n",
     "2000", 2),
    ({"memory/memory.limit_in_bytes": f"{UNLIMITED}\n", "memory/job/memory.limit_in_bytes": "4096\n",
      "memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
      "memory/memory.oom_control": "oom_kill 7\n"}, "4:memory:/job\n3:cpu:/\n0::/\n", "4096", 1),
    ({"memory/memory.limit_in_bytes": "4096\n"}, "4:memory:/gone\n", "4096", 0),
]  # fmt: skip


@pytest.mark.parametrize(("files", "own", "limit", "kills"), GROUPS)
def test_limits_of_both_versions(tmp_path: Path, files: dict[str, str], own: str, limit: str, kills: int) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == float(limit)
    assert memory_kills(tmp_path / "cgroup", tmp_path / "own") == kills


Within = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def within() -> Iterator[Within]:
    """Runs a Python program in a group with a limit [bytes], as SLURM runs a job."""
    one = (CGROUPS / "cgroup.controllers").is_file()
    above = CGROUPS if one else CGROUPS / "memory"
    group = above / f"fedsim-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        limit = next(group / name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).is_file())
    except (OSError, StopIteration):
        with suppress(OSError):
            group.rmdir()
        pytest.skip("making a control group for memory needs root, and the kernel's leave")

    def within(code: str, most: int) -> subprocess.CompletedProcess[str]:
        limit.write_text(f"{most}\n")
        enter = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        command = [sys.executable, "-c", enter + code]
        return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)

    yield within
    group.rmdir()


def test_a_jobs_limit_is_seen_and_what_was_killed_at_it(within: Within) -> None:
    look = "from fedsim.engine.place.cgroups import *; print(memory_limit(), memory_kills())"
    assert within(look, 2**28).stdout == f"{2.0**28} 0\n"
    assert within("x = bytearray(b'x') * 2**29", 2**28).returncode == -9
    assert within(look, 2**28).stdout == f"{2.0**28} 1\n"


@pytest.mark.ray
@pytest.mark.long
def test_ray_is_started_within_the_limit_of_a_job(within: Within) -> None:
    """Ray knows the limit of a container, not that of a job."""
    count = (
        "from fedsim.engine.ray.cluster import connect, disconnect\n"
        "ray, _ = connect(None)\n"
        "has = ray.cluster_resources(); print(has['memory'] + has['object_store_memory'])\n"
        "disconnect()"
    )
    done = within(count, 3_000_000_000)
    assert done.returncode == 0, done.stderr
    assert 0.95 * 3e9 <= float(done.stdout) <= 3e9
