"""Opening a run again."""

from collections.abc import Callable

import pandas as pd
import pytest

from fedsim.core.errors import DamagedError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint


@pytest.mark.slow
def test_a_clients_network_needs_its_checkpoints_state_once(
    simulate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an entry for each client, so that all networks of a large run would take the square of its clients."""
    run: Run = simulate()
    read, rounds = checkpoint.read_state, list[int]()
    monkeypatch.setattr(checkpoint, "read_state", lambda path, round_: rounds.append(round_) or read(path, round_))
    run.model(run.clients["client"].iloc[0], "last")
    assert rounds == [run.round("last")]


@pytest.mark.slow
def test_a_few_clients_have_a_row_in_every_round_also_where_they_were_idle(simulate: Callable[..., Run]) -> None:
    run: Run = simulate("training.participation=0.5", "metrics.every=0")
    written, whole = pd.read_parquet(run.path / "clients.parquet"), run.clients
    names = list(run.workload.client_names())
    assert written.groupby("round").size().tolist() == [2, 2, 2]
    assert whole["client"].tolist() == 3 * names
    assert whole["round"].tolist() == [round_ for round_ in (1, 2, 3) for _ in names]
    trained = whole[whole["outcome"] == "trained"].reset_index(drop=True)
    pd.testing.assert_frame_equal(trained, written)
    idle = whole[whole["outcome"] == "idle"]
    assert (idle[["uplink_bytes", "steps", "weight"]] == 0).all(axis=None)
    owned = run.manifest.query("split == 'train'").groupby("client").size()
    assert (idle["samples"] == idle["client"].map(owned)).all()
    (run.path / "manifest.parquet").write_bytes(b"no table")
    with pytest.raises(DamagedError, match=r"manifest\.parquet: is damaged"):
        run.clients  # noqa: B018 - a property that reads
