"""A plan says what a run will be in simulated time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, RunError
from fedsim.engine.clients.sequence import Clients
from fedsim.engine.host.messages import Setup
from fedsim.engine.plan import virtual
from fedsim.engine.plan.advice import warnings
from fedsim.engine.plan.memory import work_bytes
from fedsim.engine.plan.virtual import Apart, Virtual, foresee
from fedsim.engine.record.run_directory import Run
from fedsim.engine.serial import SerialBackend
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload
from fedsim.workload.schema import Workload
from tests.engine.plans import GB, TINY, checked, machine, parts, planned

Fedsim = Callable[..., tuple[int, str, str]]
SIX = """
name: six
federation:
  cache: {cache}
  matrix: [32, 32]
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  sites:
    - {{name: F, count: 5, source: {{format: phantom, subjects: 4, slices: 5, size: 32}}}}
    - {{name: S, source: {{format: phantom, subjects: 4, slices: 5, size: 32}},
        time: {{compute: {{samples_per_s: 1}}}}}}
model: {{channels: 2, pools: 1}}
algorithm: {{name: fedavg}}
training: {{rounds: 10, batch_size: 4}}
engine: {{backend: serial}}
time: {{compute: {{samples_per_s: 10}}}}
"""


@pytest.fixture
def file(cache: Path, tmp_path: Path) -> Path:
    (tmp_path / "six.yaml").write_text(SIX.format(cache=cache))
    return tmp_path / "six.yaml"


def foreseen(file: Path, *keys: str) -> Virtual:
    workload = load_workload(file, keys).settled()
    timetable = parts(workload)[-1]
    assert timetable is not None
    return foresee(timetable, workload.training.rounds)


def test_synchronous_rounds_by_hand(fedsim: Fedsim, file: Path) -> None:
    """Five clients work 1 s and one works 10 s: 15 s of work in each of ten rounds of 10 s."""
    status, out, _ = fedsim("plan", file)
    assert status == 0
    for said in ("in simulated time", "synchronous", "1 min 40 s", "1.5 on average", "100 % trained"):
        assert said in out
    assert "staleness" not in out


def test_late_clients_by_hand(file: Path) -> None:
    """One of six is late; rounds take 2 s, in which five work 1 s and one 2 s."""
    found = foreseen(file, "time.mode=deadline", "time.deadline_s=2")
    assert (found.seconds, found.at_work, found.stalest) == (20, 3.5, 0)
    assert found.shares == {"trained": 5 / 6, "late": 1 / 6}


def test_staleness_by_hand(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow one enters step 11, and began before the first; the 54 others of eleven steps are fresh."""
    keys = ("time.mode=buffered", "time.buffer=5", "training.rounds=11")
    found = foreseen(file, *keys)
    assert (found.rounds, found.seconds, found.stalest) == (11, 11, 10)
    assert found.staleness == pytest.approx(10 / 55)
    monkeypatch.setattr(virtual, "_MOST", 15)
    found = foreseen(file, *keys)
    assert (found.rounds, found.seconds, found.stalest) == (3, 11, 0)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (("time.mode=deadline", "time.deadline_s=2"), Apart(asked=6)),
        (("time.hierarchy={regions: 3}",), Apart(others=3, read=3, sums=3, asked=6)),
        (("time.mode=buffered", "time.buffer=5"), Apart(others=1, read=2, asked=5)),
        (("time.mode=asynchronous",), Apart(others=2, read=1, asked=1)),
        (
            ("time.mode=asynchronous", "metrics.every=4", "engine.checkpoint_every=0", "time.jitter=0.1"),
            Apart(others=5, read=4, sums=4, asked=4),
        ),
    ],
)
def test_states_of_the_server_by_hand(file: Path, keys: tuple[str, ...], found: Apart) -> None:
    assert planned(load_workload(file, keys)).apart == found


@pytest.mark.parametrize(
    "time",
    [
        "{mode: asynchronous, concurrency: 4, compute: {samples_per_s: 1}, jitter: 0.3}",
        "{latency_s: 1, hierarchy: {regions: 2, rounds_per_sync: 3}}",
    ],
    ids=["asynchronous", "regions"],
)
def test_a_checkpoint_has_as_many_states_as_planned(
    workload: Callable[..., Workload], simulate: Callable[..., Run], time: str
) -> None:
    keys = (*TINY, f"time={time}", "algorithm.name=fedadam", "training.rounds=8")
    plan, run = planned(workload(*keys)), simulate(*keys)
    files = [run.path / f"checkpoints/round-{round_:04d}/others.safetensors" for round_ in range(1, 9)]
    most = max(file.stat().st_size for file in files)
    assert plan.apart.others > 1
    assert plan.apart.others * plan.traffic.server == pytest.approx(most, rel=0.1)
    checkpoint = max(sum(one.stat().st_size for one in file.parent.rglob("*.*")) for file in files)
    assert plan.checkpoint_bytes == pytest.approx(checkpoint, rel=0.15)


def test_the_driver_has_room_for_them(file: Path) -> None:
    """Regions have a state each, copied while a checkpoint is written, and a sum each."""
    one, three = (planned(load_workload(file, keys)) for keys in ((), ("time.hierarchy={regions: 3}",)))
    state, summed = one.traffic.server, 2 * one.traffic.server
    assert three.nodes[0].other_bytes - one.nodes[0].other_bytes == 2 * 3 * state + 2 * summed
    assert three.nodes[0].process_bytes - one.nodes[0].process_bytes == 2 * summed
    assert three.checkpoint_bytes - one.checkpoint_bytes == pytest.approx(3 * state, abs=100)


def test_a_gpu_has_room_for_them(file: Path) -> None:
    there, regions = machine(gpus_one=1, gpus_two=1, gpu_memory=8 * GB), "time.hierarchy={regions: 3}"
    one, three = (planned(load_workload(file, ("engine.backend=ray", *keys)), there).gpu for keys in ((), (regions,)))
    assert one is not None
    assert three is not None
    assert three.received == 3 * one.received > 0
    assert three.vectors - one.vectors == 2 * 2 * one.received, "two more sums in float64"


ASYNCHRONOUS = ("time.mode=asynchronous", "metrics.every=0", "engine.checkpoint_every=0", "time.jitter=0.1")


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("time=null", "federation.sites.1.time=null"),
        ("time.hierarchy={regions: 3}",),
        (*ASYNCHRONOUS, "algorithm.name=fedadam"),
    ],
    ids=["synchronous", "no time", "regions", "asynchronous"],
)
def test_hosts_keep_as_much_of_a_gpu_free_as_planned(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    """Also where clients of a call read several states of the server, and enter several sums."""
    told, start = [], SerialBackend.start

    def noted(self: SerialBackend, setup: Setup, clients: Clients) -> None:
        told.append((setup, clients.typical))
        start(self, setup, clients)

    monkeypatch.setattr(SerialBackend, "start", noted)
    run(load_workload(file, (*keys, "training.rounds=2")), tmp_path / "run")
    setup, clients = told[0]
    there = machine(gpus_one=1, gpus_two=1, gpu_memory=8 * GB)
    plan = planned(load_workload(file, ("engine.backend=ray", *keys, "training.rounds=2")), there)
    assert plan.gpu is not None
    assert work_bytes(replace(setup, device="cuda"), clients) == plan.gpu.total
    assert (setup.states > 1) == plan.workload.time.apart if plan.workload.time else setup.states == 1


def test_a_gpu_that_cannot_hold_them_is_told_by_their_key(file: Path) -> None:
    keys = ("engine.backend=ray", "model.channels=32", "model.pools=4")
    alone = planned(load_workload(file, keys), machine(gpus_one=1, gpus_two=1, gpu_memory=8 * GB)).gpu
    assert alone is not None
    there = machine(gpus_one=1, gpus_two=1, gpu_memory=1.2 * alone.total)
    assert checked(load_workload(file, keys), there) == []
    for mode, key in ((("time.hierarchy={regions: 6}",), "hierarchy.regions"), (ASYNCHRONOUS, "concurrency")):
        with pytest.raises(InputError, match=rf"^time\.{key}: clients that read \d states of the server at once need"):
            checked(load_workload(file, (*keys, *mode)), there)


def test_a_trace_is_refused_before_a_client_is_timed(fedsim: Fedsim, file: Path) -> None:
    (file.parent / "t.csv").write_text("client,from_s,to_s\nZ,0,1\n")
    status, _, err = fedsim("plan", file, "--set", "time.available.trace=t.csv")
    assert status == 2
    assert err.startswith("fedsim: time.available.trace: ")
    assert err.count("\n") == 1


def test_a_run_that_no_client_can_finish_is_refused_by_all_commands(fedsim: Fedsim, file: Path, tmp_path: Path) -> None:
    keys = ("--set", "time.mode=buffered", "--set", "time.buffer=5", "--set", "time.dropout=0.999999")
    for command in (("plan", file), ("run", file, "--out", tmp_path / "run")):
        status, _, err = fedsim(*command, *keys)
        assert status == 2
        assert err.splitlines()[-1].startswith("fedsim: time: round 1: no client finishes its turn any more; ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_whose_rounds_end_is_refused_as_far_as_can_be_foreseen(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten rounds of 10 s, a trace of 25 s has two; what comes after the first turns is seen when it comes."""
    names = [f"F-00{number}" for number in range(1, 6)]
    (tmp_path / "t.csv").write_text("client,from_s,to_s\n" + "".join(f"{name},0,25\n" for name in (*names, "S")))
    workload = load_workload(file, ("time={latency_s: 10, available: {trace: t.csv}}", "federation.sites.1.time=null"))
    with pytest.raises(InputError, match=r"^time: round 3: no client .* or set training\.rounds to at most 2$"):
        run(workload, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(virtual, "_MOST", 6)
    with pytest.raises(RunError, match=r"^time: round 3: no client finishes its turn any more; "):
        run(workload, tmp_path / "run")
    assert Run(tmp_path / "run").round("last") == 2


def test_a_round_of_a_plan_is_a_buffer(file: Path) -> None:
    """Of six clients at work, five make a step; of a thousand registered, those at work stand for all."""
    assert planned(load_workload(file, ("time.mode=buffered", "time.buffer=5"))).cohort == 5
    many = ("federation.sites.0.count=1000", "time.mode=buffered", "time.buffer=5", "time.concurrency=8")
    plan = planned(load_workload(file, many))
    assert (plan.cohort, plan.registered) == (5, 1001)
    assert 8 <= len(plan.clients) <= 10


def test_what_comes_after_the_last_round_is_warned_of(file: Path) -> None:
    keys = ("federation.sites.1.joins_round=11", "time.hierarchy={regions: 3, rounds_per_sync: 11}")
    assert warnings(planned(load_workload(file, keys))) == [
        "site S: joins_round: 11, and the run has 10 rounds; it takes no part",
        "time.hierarchy.rounds_per_sync: 11, and the run has 10 rounds; regions are never averaged",
    ]
    assert warnings(planned(load_workload(file, (*keys, "training.rounds=11")))) == []


def test_a_plan_refuses_what_a_run_would(fedsim: Fedsim, file: Path) -> None:
    """FedAvg with fine-tuning has a second phase, in which all clients must be where the server is."""
    time = "time={mode: buffered, buffer: 2, concurrency: 4, latency_s: 1}"
    status, _, err = fedsim("plan", file, "--set", "algorithm.tune_epochs=1", "--set", time)
    assert status == 2
    assert "time: fedavg has several phases a round" in err
