"""The model of a round on a cluster: its formulas by hand, and rates from hosts that train nothing."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedsim.engine.plan.rates import measure
from fedsim.engine.plan.scaling import Cluster, Rates, Round, predict

RATES = Rates(launch=1e-4, piece=1e-4, end=2e-4, driver=1e9, adder=2e9, row=1e-6)
ROUND = Round(clients=100_000, client=0.04, broadcast=1e6, sums=2e6)
SIXTEEN = Cluster(nodes=16, cores=64, gbit=8)


def test_sixteen_nodes_by_hand() -> None:
    made = predict(ROUND, SIXTEEN, RATES)
    by_hand = {
        "training": 98 * 0.04,
        "broadcast": 16 * 1e6 / 1e9,
        "calls": 1024 * 2e-4,
        "nodes": 1e-3,
        "groups": 0.0,
        "link": 16 * 2e6 / 1e9,
        "driver": 16 * 2e6 / 1e9,
        "ledger": 0.1,
        "reports": 0.0,
    }
    assert asdict(made.parts) == pytest.approx(by_hand)
    assert made.seconds == pytest.approx(sum(by_hand.values()))
    assert made.efficiency == pytest.approx(100_000 * 0.04 / 1024 / made.seconds)
    assert made.bottleneck == "calls"


def test_adders_that_are_slower_than_the_calls_are_waited_for() -> None:
    parts = predict(ROUND, SIXTEEN, replace(RATES, adder=1e8)).parts
    assert parts.nodes == pytest.approx(2e6 / 1e8 + 64 * 2e6 / 1e8 - 1024 * 2e-4)


@pytest.mark.parametrize(("nodes", "cores", "vectors"), [(1, 64, 64), (16, 3, 48), (16, 4, 16), (64, 4, 64)])
def test_what_comes_into_the_driver(nodes: int, cores: int, vectors: int) -> None:
    parts = predict(ROUND, Cluster(nodes=nodes, cores=cores, gbit=8), RATES).parts
    assert parts.driver == pytest.approx(vectors * 2e6 / 1e9)
    assert parts.link == pytest.approx(0.0 if nodes == 1 else parts.driver)
    assert (parts.nodes > 0) == (nodes > 1 and cores > 3)


def test_above_64_nodes_groups_add_before_the_driver() -> None:
    parts = predict(ROUND, Cluster(nodes=100, cores=4, gbit=8), RATES).parts
    assert parts.groups == pytest.approx(9 * 2e-3 + 10 * 1e-3)
    assert parts.driver == pytest.approx(10 * 2e-3)


def test_fewer_clients_than_cores_leave_cores_idle() -> None:
    few = predict(replace(ROUND, clients=10), SIXTEEN, RATES)
    assert few.parts.training == 0.04
    assert few.parts.broadcast == pytest.approx(10 * 1e6 / 1e9), "nodes without hosts receive nothing"
    assert few.efficiency == pytest.approx(10 * 0.04 / 1024 / few.seconds)


def test_a_driver_that_does_nothing_but_call_sets_the_pace() -> None:
    made = predict(Round(clients=1000, client=1e-6, broadcast=0, sums=0), SIXTEEN, replace(RATES, row=0))
    assert made.seconds == pytest.approx(1000 * 4e-4, rel=1e-5)
    assert made.parts.reports == pytest.approx(1000 * 2e-4, rel=1e-2)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_rates_are_measured_with_the_engines_own_code() -> None:
    rates = measure(100_000)
    assert 1e-6 < rates.launch < 0.1
    assert 1e-6 < rates.end < 0.1
    assert 0 <= rates.piece < 0.1
    assert min(rates.driver, rates.adder) > 1e7
    assert 1e-8 < rates.row < 1e-2


def test_a_cluster_needs_its_nodes(fedsim: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "w.yaml").touch()
    status, _, err = fedsim("plan", tmp_path / "w.yaml", "--cores", 32)
    assert status == 2
    assert err == "fedsim: --cores: describes the cluster of --nodes N, which is missing\n"
