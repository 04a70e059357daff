"""Federations of more phantom sites than are listed: clients are made when they first take part."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsim.core.errors import InputError, WriteError
from fedsim.engine.clients.sequence import Listed, Registered
from fedsim.engine.federation import assemble
from fedsim.engine.host.messages import Row
from fedsim.engine.place.placement import placed
from fedsim.engine.record.appended import AppendedTable
from fedsim.engine.record.manifest import Manifest
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation, run
from fedsim.workload import schema
from fedsim.workload.engine import Engine
from fedsim.workload.schema import Workload
from tests.engine.plans import node, planned, times

Make = Callable[..., Workload]
SITES = (
    "[{name: A, source: {format: phantom, subjects: 5, slices: 2, size: 32}},"
    " {name: P, count: 300, source: {format: phantom, subjects: 4, slices: 1, size: 32, field_t: [1.5, 3.0]}}]"
)
KEYS = (
    f"federation.sites={SITES}", "federation.clients=null", "federation.split={train: 0.5, val: 0.25, test: 0.25}",
    "training.cohort=3", "training.rounds=3", "model={domain: image, channels: 2, pools: 1}", "algorithm.name=fedper",
)  # fmt: skip


@pytest.fixture
def many(workload: Make) -> Callable[..., Workload]:
    return lambda *keys: workload(*KEYS, *keys)


@pytest.mark.slow
def test_clients_made_by_the_rule_are_those_of_a_list(many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sites are cut into clients, and where they stand in a list with sites that exist."""
    for keys in ((), ("federation.clients=310",)):
        ruled = assemble(many(*keys))
        monkeypatch.setattr(schema, "FEW", 1000)
        listed = assemble(many(*keys))
        monkeypatch.undo()
        assert isinstance(ruled.clients, Registered)
        assert isinstance(listed.clients, Listed)
        assert list(ruled.names) == list(listed.names)
        assert [ruled.clients.named(name) for name in listed.names[::37]] == list(listed.clients[::37])
        assert ruled.clients.samples.tolist() == listed.clients.samples.tolist()
        sites = [client.site for client in listed.clients[::37]]
        expected = listed.manifest_of(sites).sort_values(["site", "volume", "slice"], ignore_index=True)
        pd.testing.assert_frame_equal(
            ruled.manifest_of(sites).sort_values(["site", "volume", "slice"], ignore_index=True), expected
        )


def test_only_those_that_take_part_are_made(many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = assemble(many("federation.sites.1.count=9999999"))
    assert len(federation.clients) == len(federation.names) == 10_000_000
    assert set(federation.manifest["site"]) == {"A"}
    assert {client.site for client in federation.clients.typical} >= {"A", "P-0000001"}
    assert len(federation.clients.typical) <= 5
    assert federation.clients.named("P-0999999").data.samples() == 2
    with pytest.raises(KeyError):
        federation.clients.named("P-10000000")


def test_a_method_that_pools_all_data_needs_them_listed(many: Make) -> None:
    with pytest.raises(InputError, match=r"algorithm\.name: centralised holds the data of all 200,001 sites"):
        assemble(many("algorithm.name=centralised", "federation.sites.1.count=200000"))


@pytest.mark.slow
def test_a_run_records_its_cohorts_alone(many: Make, tmp_path: Path) -> None:
    done = run(many(), tmp_path / "run")
    raw = pd.read_parquet(tmp_path / "run" / "clients.parquet")
    assert raw.groupby("round").size().tolist() == [3, 3, 3]
    assert (raw["outcome"] == "trained").all()
    assert raw["psnr"].notna().all()
    assert done.clients.equals(raw)
    assert set(done.manifest["site"]) == {"A", *raw["site"]}
    assert set(done.stored("last")) == set(raw["client"])
    best = done.round("best")
    assert set(done.evaluation["client"]) == set(raw.loc[raw["round"] == best, "client"])
    assert np.isfinite(done.evaluation["acceleration"]).all()
    idle = next(name for name in done.workload.client_names() if name not in set(raw["client"]))
    fresh = done.learner(idle, "last")
    assert not fresh.private.keys() - {"local"}, "it has never trained"


@pytest.mark.slow
def test_the_manifest_has_every_site_of_the_ledger_at_any_moment(many: Make, tmp_path: Path) -> None:
    path, read = tmp_path / "run", []

    def look(row: Row) -> None:
        ledger, manifest = (pd.read_parquet(path / f"{name}.parquet") for name in ("clients", "manifest"))
        assert set(ledger["site"]) <= set(manifest["site"])
        read.append(row["round"])

    with Simulation(many("engine.checkpoint_every=3"), path) as simulation:
        simulation.run(between=look)
    assert read == [1, 2, 3]


def test_a_manifest_whose_writing_failed_once_has_no_row_twice(
    many: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, write = assemble(many()), AppendedTable._write
    one, two, three = (client.site for client in federation.clients[1:4])
    manifest = Manifest(tmp_path, federation)
    manifest.begin()
    manifest.add([one, two])

    def full(*_: object) -> None:
        raise WriteError("no space left")

    monkeypatch.setattr(AppendedTable, "_write", full)
    with pytest.raises(WriteError, match="no space"):
        manifest.flush()
    monkeypatch.setattr(AppendedTable, "_write", write)
    manifest.add([two, three])
    manifest.flush()
    manifest.flush()
    frame = pd.read_parquet(tmp_path / "manifest.parquet")
    assert set(frame["site"]) == {"A", one, two, three}
    assert not frame.duplicated(["site", "volume", "slice"]).any()


@pytest.mark.slow
def test_a_run_by_the_rule_is_that_of_a_list(many: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("algorithm.weighting=samples", "training.sampler=by_samples", "metrics.clients=cohort")
    ruled = run(many(*keys), tmp_path / "ruled")
    monkeypatch.setattr(schema, "FEW", 1000)
    listed = run(many(*keys), tmp_path / "listed")
    columns = ["round", "client", "site", "samples", "loss", "psnr", "weight", "uplink_bytes"]
    assert ruled.clients[columns].equals(listed.clients[columns])
    assert _shared(ruled) == _shared(listed)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(many: Make, tmp_path: Path) -> None:
    """Even if it was killed while its manifest became a single file."""
    whole = run(many(), tmp_path / "whole")
    manifest = run(many("training.rounds=1"), tmp_path / "parts").path / "manifest.parquet"
    manifest.rename(manifest.with_name(f".{manifest.name}.next"))
    resumed = run(many(), tmp_path / "parts", resume=True)
    assert _shared(whole) == _shared(resumed)
    assert whole.manifest.equals(resumed.manifest)
    columns = ["round", "client", "loss", "psnr"]
    assert whole.clients[columns].equals(resumed.clients[columns])


@pytest.mark.slow
def test_what_a_lost_round_drew_is_forgotten(many: Make, tmp_path: Path) -> None:
    """Hosts that go on after a loss have clients of the round that is repeated, which the checkpoint has not."""
    whole = run(many(), tmp_path / "whole")
    with Simulation(many(), tmp_path / "again") as simulation:
        simulation.run(stop=(tmp_path / "again" / "checkpoints" / "round-0001" / "state.json").exists)
        simulation._rounds.play(2)
        simulation.run()
    assert _shared(whole) == _shared(Run(tmp_path / "again"))


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_on_ray_as_in_this_process(many: Make, tmp_path: Path) -> None:
    keys = ("engine.backend=ray", "engine.clients_per_actor=auto")
    serial, ray = run(many(), tmp_path / "serial"), run(many(*keys), tmp_path / "ray")
    assert _shared(serial) == _shared(ray)
    columns = ["round", "client", "loss", "psnr"]
    assert serial.clients[columns].equals(ray.clients[columns])
    assert ray.clients.query("round == 1")["pid"].nunique() == 2, "the first cohort is dealt to both actors"


def _shared(done: Run) -> list[bytes]:
    """Shared and private parameters after the last round."""
    last = done.path / f"checkpoints/round-{done.round('last'):04d}"
    names = sorted(set(pd.read_parquet(done.path / "clients.parquet").query("outcome == 'trained'")["client"]))
    private = [done.learner(name, "last").local.numpy().tobytes() for name in names]
    return [(last / "shared.safetensors").read_bytes(), *private]


@pytest.mark.slow
def test_clients_without_private_state_are_resumed_and_evaluated(many: Make, tmp_path: Path) -> None:
    """Plain SGD under FedAvg leaves nothing that is a client's own."""
    keys = ("algorithm.name=fedavg", "training.optimizer=sgd")
    whole = run(many(*keys, "training.rounds=2"), tmp_path / "whole")
    run(many(*keys, "training.rounds=1"), tmp_path / "run")
    resumed = run(many(*keys, "training.rounds=2"), tmp_path / "run", resume=True)
    first, second = (one.evaluation.query("round == 2")["psnr"].tolist() for one in (whole, resumed))
    assert first == second
    assert len(first) == 3
    assert not whole.learner(whole.stored("last")[0], "last").private["local"].numel()


@pytest.mark.slow
def test_a_deleted_manifest_is_made_again(many: Make, tmp_path: Path) -> None:
    whole = run(many(), tmp_path / "whole")
    manifest = run(many("training.rounds=1"), tmp_path / "parts").path / "manifest.parquet"
    shutil.rmtree(manifest) if manifest.is_dir() else manifest.unlink()
    resumed = run(many(), tmp_path / "parts", resume=True)
    assert whole.manifest.equals(resumed.manifest)


def test_a_round_of_all_of_many_is_refused_before_they_are_made(many: Make) -> None:
    count, everybody = "federation.sites.1.count=200000", "training.cohort=null"
    said = r"training\.participation: 200,001 of 200,001 clients would be at work at once; at most 100,000 can"
    with pytest.raises(InputError, match=said):
        assemble(many(count, everybody))
    with pytest.raises(InputError, match=r"training\.cohort: 150,000 of 200,001 clients"):
        assemble(many(count, "training.cohort=150000"))
    with pytest.raises(InputError, match=r"metrics\.clients: 200,001 clients would be scored after a round"):
        assemble(many(count, "metrics.clients=all"))


def test_clients_that_stand_for_a_share_of_many_fill_all_actors(many: Make) -> None:
    """All of them train in a round, so networks of two of the six need three actors."""
    keys = ("training.cohort=null", "training.participation=0.02", "training.fuse=2")
    typical = assemble(many(*keys)).clients.typical
    assert len(placed(Engine(clients_per_actor="auto"), typical, [node("one", cpus=3)])) == 3


def test_a_plan_of_clients_made_by_the_rule_is_that_of_a_list(many: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old states in shared files, several rounds between checkpoints, and scores of more clients than train."""
    keys = ("training.cohort=30", "training.rounds=12", "engine.checkpoint_every=2", "metrics.clients=90")
    ruled, times_ruled = planned(many(*keys)), times(many(*keys))
    monkeypatch.setattr(schema, "FEW", 1000)
    listed, times_listed = planned(many(*keys)), times(many(*keys))
    assert (len(ruled.clients) < 40, len(listed.clients)) == (True, 301)
    assert (ruled.cohort, listed.cohort) == (30, 30)
    for size in ("checkpoint_bytes", "written_bytes", "checkpoints_bytes"):
        assert getattr(ruled, size) == pytest.approx(getattr(listed, size), rel=0.05)
    assert times_ruled.validation == pytest.approx(times_listed.validation, rel=0.15)
