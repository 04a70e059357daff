"""What is said of a client's loss that is not finite."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedsim.core.errors import DivergedError
from fedsim.data.samples import ClientData
from fedsim.engine.federation import assemble
from fedsim.engine.host.diverged import means
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import setup_of
from fedsim.workload.schema import Workload
from tests.data.test_samples import store


def test_a_slice_is_named_where_one_is_to_blame(workload: Callable[..., Workload], tmp_path: Path) -> None:
    load = workload(f"federation.cache={tmp_path / 'shards'}")
    client, learner = assemble(load).clients[0], make_learner(setup_of(load))
    learner.enter(learner.fresh_state(), client.data, client.training, 1, client.name)
    data, noted = client.data, {"loss": np.array([np.nan])}
    assert isinstance(data, ClientData)
    with pytest.raises(DivergedError, match=r"the loss is not finite; it was so before the first step, and its"):
        means(noted, data, 1, f"client {client.name}", "", "")
    volume = data.pieces[0].volume
    with h5py.File(data.shard, "a") as file:
        kspace = file[f"kspace/{volume}"][()]
        kspace[data.pieces[0].start] = np.nan
        store(file, volume, kspace)
    named = rf"; slice \d+ of {volume} \(site A\) has values unlike those of other images: leave it out$"
    with pytest.raises(DivergedError, match=named):
        means(noted, data, 1, f"client {client.name}", "", "")
