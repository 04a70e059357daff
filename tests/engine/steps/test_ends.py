"""A run whose clients finish no turn any more from some round on, later than its first turns could tell."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import RunError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.schema import Workload

SMALL = (
    "algorithm={name: fedavg}", "model={domain: image, channels: 2, pools: 1}", "federation.matrix=[16, 16]",
    "training.rounds=20", "metrics.every=0", "engine.checkpoint_every=0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "rounds"), [("synchronous", 3), ("buffered, buffer: 2", 6), ("asynchronous", 12)]
)  # fmt: skip
def test_all_rounds_before_it_are_trained(
    workload: Callable[..., Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, rounds: int
) -> None:
    """Four clients with turns of 1 s are there for 3.5 s, also where turns of coming rounds are trained ahead."""
    monkeypatch.setattr("fedsim.engine.plan.virtual._MOST", 1)
    windows = "".join(f"{client},0,3.5\n" for client in ("A.1", "A.2", "B", "C"))
    (tmp_path / "over.csv").write_text(f"client,from_s,to_s\n{windows}")
    time = f"time={{mode: {mode}, latency_s: 1, available: {{trace: {tmp_path / 'over.csv'}}}}}"
    with pytest.raises(RunError, match=f"^time: round {rounds + 1}: no client finishes its turn any more"):
        run(workload(*SMALL, time), tmp_path / "run")
    assert Run(tmp_path / "run").rounds["round"].tolist() == [*range(1, rounds + 1)]
