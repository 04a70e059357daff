"""Clients that took no part in a round have no row in clients.parquet, and one in `Run.clients` if clients are few."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedsim.engine.simulation import run
from fedsim.workload.metrics import Metrics
from fedsim.workload.schema import Workload


def test_readers_get_a_row_per_client_and_round(workload: Callable[..., Workload], tmp_path: Path) -> None:
    keys = ("training.cohort=1", "training.rounds=2", "metrics.every=0", "model={domain: image, channels: 2, pools: 1}")
    done = run(workload(*keys), tmp_path / "run")
    raw = pd.read_parquet(tmp_path / "run" / "clients.parquet")
    assert raw.groupby("round").size().tolist() == [1, 1]
    whole = done.clients
    assert list(whole["client"]) == 2 * list(done.workload.client_names())
    assert list(whole) == list(raw)
    trained = whole[whole["outcome"] == "trained"].reset_index(drop=True)
    pd.testing.assert_frame_equal(trained, raw)
    idle = whole[whole["outcome"] == "idle"]
    assert len(idle) == len(whole) - 2
    assert (idle["samples"] > 0).all()
    assert idle[["loss", "psnr"]].isna().all().all()
    assert not idle[["weight", "steps", "uplink_bytes", "train_seconds"]].any().any()


@pytest.mark.parametrize(
    ("clients", "number", "scored"),
    [
        (None, 5, [0, 1, 2, 3, 4]),
        (None, 257, [1, 3]),
        ("all", 257, list(range(257))),
        ("cohort", 5, [1, 3]),
        (9, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_whose_images_are_scored(clients: str | int | None, number: int, scored: list[int]) -> None:
    assert Metrics.model_validate({"clients": clients}).scored(number, [1, 3], seed=0) == scored


def test_a_number_of_clients_is_the_same_in_every_round() -> None:
    first, second, other = (
        Metrics(clients=4).scored(10**6, cohort, seed) for cohort, seed in (([1], 0), ([2], 0), ([1], 1))
    )
    assert first == second == sorted(set(first))
    assert len(first) == 4
    assert first != other
