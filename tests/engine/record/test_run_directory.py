"""Opening a run again."""

from collections.abc import Callable

import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.state import checkpoint


def test_a_clients_network_needs_its_checkpoints_state_once(
    simulate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an entry for each client, so that all networks of a large run would take the square of its clients."""
    run: Run = simulate()
    read, rounds = checkpoint.read_state, list[int]()
    monkeypatch.setattr(checkpoint, "read_state", lambda path, round_: rounds.append(round_) or read(path, round_))
    run.model(run.clients["client"].iloc[0], "last")
    assert rounds == [run.round("last")]
