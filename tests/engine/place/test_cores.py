"""Cores that a container's quota leaves, as Ray counts them."""

from pathlib import Path

import pytest

from fedsim.cli import doctor
from fedsim.engine.place import cores
from fedsim.engine.place.cores import cores_here, quotas

GROUPS = [
    ({}, "", []),
    ({"cpu.max": "max 100000\n"}, "0::/\n", []),
    ({"cpu.max": "150000 100000\n"}, "0::/\n", [1.5]),
    ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, "0::/a/b\n", [0.5]),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", []),
    ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/gone\n", [1]),
    ({"cpu,cpuacct/x/cpu.cfs_quota_us": "300000", "cpu,cpuacct/x/cpu.cfs_period_us": "1e5"}, "4:cpu,cpuacct:/x\n", [3]),
    ({"cpuset/cpu.max": "100000 100000\n"}, "3:cpuset:/\n", []),
]


@pytest.mark.parametrize(("files", "own", "found"), GROUPS)
def test_quotas_of_both_versions(tmp_path: Path, files: dict[str, str], own: str, found: list[float]) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert sorted(set(quotas(tmp_path / "cgroup", tmp_path / "own"))) == found


@pytest.mark.parametrize(("quota", "count"), [(0.5, 1), (1.0, 1), (1.9, 1)])
def test_a_quota_leaves_whole_cores(monkeypatch: pytest.MonkeyPatch, quota: float, count: int) -> None:
    monkeypatch.setattr(cores, "quotas", lambda: iter([quota, 64.0]))
    monkeypatch.setattr(doctor, "quotas", lambda: iter([quota, 64.0]))
    assert cores_here() == count
    assert doctor._cores()[0].startswith(f"{count} of ")
    assert f"(its CPU quota is {quota:g})" in doctor._cores()[0]
