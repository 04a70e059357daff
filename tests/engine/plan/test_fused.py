"""What a plan says of clients that train as one network: how many, their memory, and rows that stay empty."""

import numpy as np
import pytest

from fedsim.cli.plan_tables import plan_tables
from fedsim.cli.simulate import first_line
from fedsim.engine.federation import assemble
from fedsim.engine.plan.advice import warnings
from fedsim.engine.plan.calibration import calibrate
from fedsim.engine.plan.memory import LIBRARIES
from tests.engine.plans import TINY, MakeWorkload, P, Q, planned, times

RAY = (*TINY, "engine.backend=ray")
FUSE_4 = "training.fuse=4"
AUTO = "engine.clients_per_actor=auto"


@pytest.mark.parametrize(
    ("keys", "said", "warned"),
    [
        (
            (*RAY, AUTO, FUSE_4), "; up to 4 clients as one network",
            ["training.fuse: 4, and 1 of 8 cores train; set it to 1"],
        ),
        (
            (*RAY, FUSE_4), "; up to 4 clients as one network",
            ["training.fuse: 4, and an actor trains 1 client in a round, so that 3 rows stay empty; "
             "set engine.clients_per_actor to auto"],
        ),
        (
            (*RAY, AUTO, FUSE_4, "training.participation=0.5"), "; up to 4 clients as one network",
            ["training.fuse: 4, and an actor trains 2 clients in a round, so that 2 rows stay empty; set it to 2"],
        ),
        (
            (*RAY, "training.fuse=8"), "; up to 8 clients as one network",
            ["training.fuse: 8, and an actor trains 1 client in a round, so that 7 rows stay empty; "
             "set engine.clients_per_actor to auto, and training.fuse to 4"],
        ),
        (
            (*TINY, FUSE_4, "algorithm.name=transfer"), "; one by one: one client trains at a time",
            ["training.fuse: 4, and clients of transfer train one by one: one client trains at a time; set it to 1"],
        ),
        (TINY, "", []),
    ],
)  # fmt: skip
def test_a_plan_says_how_many_clients_train_as_one_network(
    workload: MakeWorkload, keys: tuple[str, ...], said: str, warned: list[str]
) -> None:
    plan = planned(workload(*keys))
    assert warnings(plan) == warned
    rows = dict(zip(*(plan_tables(plan)[0].columns[at].cells for at in (0, 1)), strict=True))
    assert rows["method"] == f"{plan.workload.algorithm.name}, 3 rounds{said}"


def test_the_first_line_of_a_run_says_so_too(workload: MakeWorkload) -> None:
    assert first_line(workload()) == "small: 3 sites"
    assert first_line(workload(FUSE_4)) == "small: 3 sites, up to 4 clients as one network"
    assert first_line(workload(FUSE_4, "algorithm.name=fl_mrcm")) == "small: 3 sites", "a warning says why"


def test_each_row_needs_vectors_and_activations(workload: MakeWorkload) -> None:
    """Beside the network that evaluates: four bytes, six times, of every parameter."""
    two, four = (planned(workload(*TINY, f"training.fuse={fuse}")).nodes[0].process_bytes for fuse in (2, 4))
    row, network = (four - two) / 2, 4 * 6 * (P + Q)
    assert two - 2 * row == pytest.approx(375e6 + LIBRARIES + network)
    assert row > network


@pytest.mark.parametrize(
    ("keys", "rows"), [((), 4), (("training.fuse=4",), 4), (("training.fuse=3",), 6), (("training.fuse=16",), 16)]
)
def test_rows_without_a_client_take_as_long_as_those_with(
    workload: MakeWorkload, keys: tuple[str, ...], rows: int
) -> None:
    """Four clients in one process, 9.1 s each in the mean."""
    assert times(workload(*TINY, *keys)).round == pytest.approx(9.1 * rows)
    assert times(workload(*TINY, *keys, "algorithm.name=transfer")).round == pytest.approx(9.1 * 4), "as it was timed"


@pytest.mark.slow
def test_a_group_is_timed_where_clients_train_as_one_network(workload: MakeWorkload) -> None:
    """And what each client sends and keeps is what it sends and keeps alone."""
    load = workload(*TINY, "training.batch_size=6").settled()
    clients = assemble(load).clients
    alone = calibrate(load, clients)
    fused = load.model_copy(update={"training": load.training.model_copy(update={"fuse": 3})})
    group = calibrate(fused, clients)
    assert (group.client.name, group.private_bytes, group.layout) == (
        alone.client.name,
        alone.private_bytes,
        alone.layout,
    )
    assert {name: vector.size for name, vector in group.sent.items()} == {n: v.size for n, v in alone.sent.items()}
    for name, vector in alone.sent.items():
        np.testing.assert_allclose(group.sent[name], vector, atol=1e-4)
    assert group.pace["train"] > 0
