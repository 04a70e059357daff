"""Regions between their averages: a client is scored with its region's parameters, and rows say whose region it is."""

from collections.abc import Callable

import pytest

from fedsim.data.evaluation import reconstruct_volumes
from fedsim.engine.federation import assemble
from fedsim.engine.record.run_directory import Run

REGIONS = {"A.1": 1, "A.2": 1, "B": 2, "C": 2}


@pytest.mark.slow
def test_a_client_is_scored_with_the_parameters_of_its_region(simulate: Callable[..., Run]) -> None:
    run = simulate("time={hierarchy: {regions: 2, rounds_per_sync: 99}, latency_s: 1}", "training.rounds=2")
    vectors = {name: run.learner(name, "last").shared for name in REGIONS}
    assert vectors["A.1"].equal(vectors["A.2"])
    assert vectors["B"].equal(vectors["C"])
    assert not vectors["A.1"].equal(vectors["B"]), "the regions have drifted apart"
    rows = run.evaluation.query("round == @run.round('best') and split == 'test'").set_index(["client", "volume"])
    federation = assemble(run.workload)
    for client in REGIONS:
        spec = federation.clients.named(client)
        volumes = reconstruct_volumes(run.model(client), spec.data, "test", spec.training.batch_size)
        found = {volume.piece.volume: volume.quality(run.workload.metrics.protocol) for volume in volumes}
        assert found
        for volume, quality in found.items():
            assert tuple(rows.loc[(client, volume), ["nmse", "psnr", "ssim"]]) == tuple(quality), (client, volume)


def test_rows_say_whose_region_a_client_is_of(simulate: Callable[..., Run]) -> None:
    small = ("model={domain: image, channels: 2, pools: 1}", "training.rounds=1", "federation.matrix=[16, 16]")
    run = simulate("time={hierarchy: {regions: 2}, latency_s: 1}", *small, "training.cohort=2")
    assert dict(run.clients[["client", "region"]].itertuples(index=False)) == REGIONS
    assert "region" not in simulate("time={hierarchy: {regions: 1}, latency_s: 1}", *small).clients
