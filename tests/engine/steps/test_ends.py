"""A run whose clients finish no turn any more from some round on, later than its first turns could tell."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, RunError
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
def test_all_rounds_before_it_are_trained_and_kept(
    workload: Callable[..., Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, rounds: int
) -> None:
    """Four clients with turns of 1 s are there for 3.5 s, also where turns of coming rounds are trained ahead.

    The last of them has a checkpoint, which is that of a run of so many rounds, and the run can be resumed as one.
    """
    monkeypatch.setattr("fedsim.engine.plan.virtual._MOST", 1)
    windows = "".join(f"{client},0,3.5\n" for client in ("A.1", "A.2", "B", "C"))
    (tmp_path / "over.csv").write_text(f"client,from_s,to_s\n{windows}")
    time = f"time={{mode: {mode}, latency_s: 1, available: {{trace: {tmp_path / 'over.csv'}}}}}"
    ended, shorter = tmp_path / "run", (*SMALL, time, f"training.rounds={rounds}")
    for resume in (False, True):
        with pytest.raises(RunError, match=f"^time: round {rounds + 1}: no client finishes its turn any more"):
            run(workload(*SMALL, time), ended, resume=resume)
        assert Run(ended).rounds["round"].tolist() == [*range(1, rounds + 1)]
        assert Run(ended).round("last") == rounds
    known = {file: file.read_bytes() for file in sorted((ended / "checkpoints").rglob("*.safetensors"))}
    whole = run(workload(*shorter), tmp_path / "shorter").path
    assert known == {file: (whole / file.relative_to(ended)).read_bytes() for file in known}
    refusal = rf"^training\.rounds: was .* is now {rounds - 1}; the run has {rounds} already"
    with pytest.raises(InputError, match=refusal):
        run(workload(*shorter, f"training.rounds={rounds - 1}"), ended, resume=True)
    assert Run(run(workload(*shorter), ended, resume=True).path).round("last") == rounds
    assert (ended / "evaluation.parquet").exists()
