"""`fedsim plan` and `fedsim data import` as a user meets them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from fedsim.cli import app as cli

Fedsim = Callable[..., tuple[int, str, str]]


def words(text: str) -> str:
    """Without the layout of tables."""
    return re.sub(r"[\s─]+", " ", text)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_is_printed_and_nothing_is_written(
    fedsim: Fedsim, workload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    before = set(tmp_path.iterdir())
    status, out, err = fedsim("plan", workload, "--set", "engine.backend=ray")
    assert status == 0
    assert err == "" or "other programs asked for" in err, "only a busy machine is worth a warning"
    assert max(map(len, out.splitlines())) <= columns
    for said in (
        "small: what runs", "2 of 2 sites, 2 in a round", "4 to 12 (median 8) per client",
        "2 with 1 client each on one node",
        "what it needs", "memory", "2 actors", "disk: private state beyond memory", "disk: checkpoints (2 at a time)",
        "what a round costs", "up ", "down ", "all 2 rounds",
    ):  # fmt: skip
        assert said in words(out)
    assert set(tmp_path.iterdir()) == before, "no run directory"


def test_a_plan_without_ray(fedsim: Fedsim, workload: Path) -> None:
    status, out, _ = fedsim("plan", workload, "--set", "algorithm.name=fl_mrcm", "--set", "metrics.every=0")
    assert status == 0
    assert "none: clients train in this process, one at a time" in words(out)
    assert "of individual clients' vectors during a round" in words(out)
    assert "validation" not in out


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_a_round_on_a_cluster_is_predicted(fedsim: Fedsim, workload: Path) -> None:
    status, out, _ = fedsim("plan", workload, "--nodes", 4, "--cores", 8, "--gbit", 25)
    assert status == 0
    for said in (
        "a round on 4 nodes of 8 cores, 25 Gbit/s, predicted", "training", "the driver's calls", "efficiency 0.",
        "bottleneck", "measured here", "rows a second",
    ):  # fmt: skip
        assert said in words(out)


def test_what_cannot_fit_is_shown_and_refused(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    keys = ("--set", "engine.backend=ray", "--set", "federation.sites.1.resources.memory=1e6")
    status, out, err = fedsim("plan", workload, *keys)
    assert status == 2
    assert "what it needs" in out
    assert "all 2 rounds" not in out, "no client was timed"
    assert err.startswith("fedsim: site B: resources.memory: 1e+06 GB, and Ray counts no more than ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("keys", [(), ("--set", "engine.backend=ray")])
def test_a_cluster_that_is_not_there(fedsim: Fedsim, workload: Path, keys: tuple[str, ...]) -> None:
    status, _, err = fedsim("plan", workload, "--address", "127.0.0.1:9", *keys)
    assert status == 2
    assert err.startswith("fedsim: --address 127.0.0.1:9: ")


@pytest.mark.slow
def test_importing_makes_phantom_shards_too(fedsim: Fedsim, workload: Path, tmp_path: Path) -> None:
    cache = ("--set", f"federation.cache={tmp_path / 'cache'}")
    status, out, _ = fedsim("data", "import", workload, *cache, "--set", "federation.clients=4")
    assert status == 0
    assert "radial" in out
    assert len(list((tmp_path / "cache").glob("phantom-*.h5"))) == 2, "clients of a site share one"
    assert "shards (0 to make)" in words(fedsim("plan", workload, *cache)[1])


def test_help_has_an_example(fedsim: Fedsim) -> None:
    status, out, _ = fedsim("plan", "--help")
    assert status == 0
    assert "fedsim plan workloads/quickstart.yaml" in words(out)


def test_the_contract_of_plan() -> None:
    plan = get_command(cli.app).commands["plan"]  # type: ignore[attr-defined]
    assert {"--set", "--address", "--out"} <= {option for parameter in plan.params for option in parameter.opts}
