"""Regions between their averages: a client is scored with its region's parameters, and rows say whose region it is."""

from collections.abc import Callable

import pytest
import torch

from fedsim.analysis.adaptation import deployed
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.engine.federation import assemble
from fedsim.engine.record.run_directory import Run

REGIONS = {"A.1": 1, "A.2": 1, "B": 2, "C": 2}
FEDAVG = (
    "algorithm={name: fedavg}", "model={domain: image, channels: 2, pools: 1}", "federation.matrix=[16, 16]",
    "training.rounds=2",
)  # fmt: skip


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


@pytest.mark.slow
def test_a_site_that_took_no_part_is_served_by_the_mean_of_the_regions(simulate: Callable[..., Run]) -> None:
    """Their first average is still to come; the server of all has the parameters of the start."""
    run = simulate("time={hierarchy: {regions: 2, rounds_per_sync: 99}, latency_s: 1}", *FEDAVG)
    models = deployed(run, "last")
    shared = models.shared_model()
    assert shared is not None
    assert models.private
    for name, tensor in shared.items():
        torch.testing.assert_close(tensor, models.mean[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("negatives", ["exact", "moments"])
def test_turns_take_as_long_as_what_their_region_sends(simulate: Callable[..., Run], negatives: str) -> None:
    """At 1 Mbit/s each way, a byte takes 8 microseconds; of FedMRI's negatives a client receives its region's."""
    method = f"algorithm={{name: fedmri, beta: 1, negatives: {negatives}}}"
    time = "time={hierarchy: {regions: 2, rounds_per_sync: 99}, uplink_mbps: 1, downlink_mbps: 1}"
    turns = simulate(time, *FEDAVG[1:], method, "training.rounds=3", "metrics.every=0").clients.query("round > 1")
    assert len(turns) == 8
    took, sent = turns["virtual_end_s"] - turns["virtual_begin_s"], turns["uplink_bytes"] + turns["downlink_bytes"]
    assert took.tolist() == pytest.approx((8e-6 * sent).tolist())
