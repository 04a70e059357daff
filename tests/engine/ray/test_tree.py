"""Sums that are added on their way to the driver: the same bits, and an adder is lost like any other process."""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from fedsim.core.errors import DivergedError, MethodError
from fedsim.engine.host.merging import Merger, PartialSum, Sums
from fedsim.engine.host.messages import Row
from fedsim.engine.observer import Observer
from fedsim.engine.ray.adder import Adder
from fedsim.engine.ray.tree import Tree
from fedsim.engine.record.failures import Failures
from fedsim.engine.record.run_directory import Run
from tests.engine.conftest import assert_same

from . import chaos

SIZE = 1000


def sums(seed: int, size: int = SIZE, bound: float = 5.0) -> Sums:
    """What a host hands in: two uploads on different grids, over ten orders of magnitude."""
    random = np.random.default_rng(seed)
    terms = random.uniform(-bound, bound, size) * 10.0 ** random.uniform(-10, 0, size)
    return {
        name: PartialSum(total=np.round(terms * 2.0**grid) / 2.0**grid, grid=grid, bound=bound)
        for name, grid in (("shared", 40), ("distance", 30))
    }


def flat(seeds: range) -> dict[str, bytes]:
    whole = Merger()
    for seed in seeds:
        whole.add(sums(seed))
    return {name: partial.total.tobytes() for name, partial in whole.sums().items()}


def test_any_tree_gives_the_bits_of_the_flat_sum() -> None:
    nodes = [Adder() for _ in range(5)]
    for seed in reversed(range(60)):
        nodes[seed % 5].add(sums(seed))
    nodes[0].join(nodes[1].subtotal())
    nodes[2].join(nodes[3].subtotal())
    whole, levels = Merger(), []
    for node in (nodes[4], nodes[2], nodes[0]):
        subtotal = node.subtotal()
        whole.add(subtotal.sums)
        levels.append(subtotal.levels)
    assert {name: partial.total.tobytes() for name, partial in whole.sums().items()} == flat(range(60))
    one = 2 * 8 * SIZE
    assert sum(level["node"].bytes for level in levels) == 60 * one
    assert [level["group"].bytes for level in levels if "group" in level] == [one, one]
    assert not nodes[0].subtotal().sums, "the next phase begins anew"


def test_whether_a_sum_is_exact_does_not_depend_on_the_tree() -> None:
    """Four terms of at most 600 may exceed the limit of grid 40, wherever the last of them comes in."""
    for last in ("host", "node"):
        one, other = Adder(), Adder()
        for seed in range(2 if last == "node" else 3):
            one.add({"shared": sums(seed, bound=600.0)["shared"]})
        for seed in range(2 if last == "node" else 1):
            other.add({"shared": sums(seed, bound=600.0)["shared"]})
        with pytest.raises(DivergedError, match="may exceed 2048, where it is exact; lower the lr"):
            one.join(other.subtotal())


def test_an_adder_refuses_vectors_of_different_lengths() -> None:
    adder = Adder()
    adder.add(sums(0))
    with pytest.raises(
        MethodError, match="vectors of 1000 and of 999 values as 'shared'; what is summed must be alike"
    ):
        adder.add(sums(1, size=999))


def test_an_adder_imports_nothing_heavy() -> None:
    code = "import fedsim.engine.ray.adder, sys; print({'torch', 'pandas', 'pydantic', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_only_nodes_with_more_than_a_few_hosts_have_an_adder_and_never_a_single_node() -> None:
    assert [Tree.worthwhile(hosts, nodes=2) for hosts in (1, 3, 4, 64)] == [False, False, True, True]
    assert not Tree.worthwhile(64, nodes=1)


class KillsAdders(Observer):
    """Kills every adder at the end of round 1."""

    killed = 0

    def round_ends(self, row: Row) -> None:
        """Kill them, once."""
        if row["round"] == 1 and not self.killed:
            for process in chaos.named("ray::Adder", psutil.Process(os.getpid())):
                process.kill()
                process.wait()
                self.killed += 1


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_a_lost_adder_is_replayed_and_the_bits_are_those_of_one_process(
    simulate: Callable[..., Run], whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tree, "worthwhile", lambda *_: True)
    observer = KillsAdders()
    run = simulate("engine.backend=ray", observer=observer)
    assert observer.killed == 1
    assert_same(whole, run)
    assert [(noted.round, noted.kind, noted.action) for noted in Failures(run.path).noted] == [(2, "lost", "replayed")]
    shared = 8 * sum(array.numel() for array in run.model("B").parameters())
    rounds = run.rounds
    assert (rounds["driver_sum_bytes"] < shared).all(), "one vector of the encoder, not four"
    assert (rounds["node_sum_bytes"] == 4 * rounds["driver_sum_bytes"]).all()
    assert (rounds[["node_sum_seconds", "driver_sum_seconds"]] > 0).all().all()
    assert (rounds[["group_sum_bytes", "group_sum_seconds"]] == 0).all().all()
