"""FedMRI's negatives where rounds overlap: what the clients of the last buffer have sent, whatever they began with."""

from collections.abc import Callable

import numpy as np

from fedsim.engine.record.run_directory import Run
from tests.engine.conftest import load

SMALL = (
    "model={domain: image, channels: 2, pools: 1}", "federation.matrix=[16, 16]", "training.rounds=4",
    "metrics.every=0", "engine.checkpoint_every=4",
)  # fmt: skip


def test_are_the_uploads_of_the_buffer_as_they_were_sent(simulate: Callable[..., Run]) -> None:
    """With `own: false` each client keeps its last upload, beside which they can be put."""
    speeds = (f"federation.sites.{at}.time={{latency_s: {own}}}" for at, own in enumerate((1.0, 1.7, 2.9)))
    method = "algorithm={name: fedmri, beta: 1, negatives: exact, own: false}"
    run = simulate("time={mode: buffered, buffer: 2, concurrency: 4}", *speeds, method, *SMALL)
    last = run.clients.query("round == 4 and outcome == 'trained'")
    assert len(last) == 2
    assert last["staleness"].max() > 0
    kept = [run.learner(client, "last").private["upload"].numpy() for client in last["client"]]
    np.testing.assert_array_equal(load(run, 4, "server")["previous"], np.stack(kept))
