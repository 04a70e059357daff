"""A checkpoint writes the clients that have trained since the one before, and is whole all the same."""

import errno
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedsim.core.errors import DamagedError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run as simulate
from fedsim.engine.state import checkpoint, segments
from fedsim.engine.state.listing import list_checkpoints
from fedsim.engine.state.segments import Segment, Segments, next_files, without
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from tests.engine.conftest import tensors

CLIENTS, COHORT, ROUNDS = 40, 4, 6
Make = Callable[..., Workload]


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Federations of more than three clients count as large."""
    monkeypatch.setattr(segments, "_OWN_FILE_UP_TO", 3)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A tenth of forty clients trains in each round."""
    folder = tmp_path_factory.mktemp("many")
    source = {"format": "phantom", "subjects": CLIENTS, "slices": 1, "size": 32}
    content = {
        "name": "many",
        "seed": 4,
        "federation": {
            "cache": str(folder / "cache"), "clients": CLIENTS, "matrix": [16, 16],
            "split": {"train": 1.0, "val": 0, "test": 0}, "sites": [{"name": "P", "source": source}],
        },
        "model": {"channels": 4, "pools": 2},
        "algorithm": {"name": "fedmri", "beta": 0},
        "training": {"rounds": ROUNDS, "batch_size": 1, "participation": COHORT / CLIENTS},
        "engine": {"backend": "serial", "keep_last": ROUNDS},
        "metrics": {"every": 0},
    }  # fmt: skip
    (folder / "many.yaml").write_text(write_yaml(content))
    return lambda *overrides: load_workload(folder / "many.yaml", overrides)


@pytest.fixture(scope="module")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run in one go, in blocks, with all its checkpoints. Read it, do not write to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_OWN_FILE_UP_TO", 3)
        return simulate(make(), tmp_path_factory.mktemp("whole") / "run")


def trained(run: Run, rounds: range) -> set[str]:
    """The clients that took part in some rounds."""
    rows = run.clients
    return set(rows.loc[(rows["outcome"] == "trained") & rows["round"].isin(rounds), "client"])


def states(run: Run, round_: int) -> dict[str, bytes]:
    """Every client's private state at a round, however it is stored."""
    state = checkpoint.read_state(run.path, round_)
    layout = run.learner("P.1", round_).flat("local")
    found = {name: checkpoint.read_client(run.path, state, name, layout) for name in state["clients"]}
    return {
        name: b"".join(tensor.numpy().tobytes() for _, tensor in sorted(private.items()))
        for name, private in found.items()
        if private is not None
    }


@pytest.mark.slow
def test_it_writes_what_has_trained_and_nobody_else(whole: Run) -> None:
    listed = list_checkpoints(whole.path)
    assert [one.round for one in listed] == list(range(1, ROUNDS + 1))
    size = len(next(iter(states(whole, 1).values())))
    for one in listed:
        assert one.clients == len(trained(whole, range(one.round + 1))), "those that never trained are in no file"
        folder = checkpoint.folder(whole.path, one.round)
        driver = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        assert one.own - driver <= 1.2 * COHORT * size
        assert one.shared == sum(path.stat().st_size for path in folder.glob("clients/*")) - (one.own - driver)


@pytest.mark.slow
def test_blocks_and_single_files_hold_the_same_states(make: Make, whole: Run, tmp_path: Path) -> None:
    """At every round, whether a client has a file, a place in a shared one, or is only known by the seed."""
    single = simulate(make(), tmp_path / "single")
    for round_ in (1, ROUNDS // 2, ROUNDS):
        own, shared = states(single, round_), states(whole, round_)
        assert len(own) == CLIENTS > len(shared)
        assert shared == {name: own[name] for name in shared}
        for name in sorted(own.keys() - shared.keys())[:2]:
            ours, theirs = (run.model(name, round_).state_dict() for run in (single, whole))
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.usefixtures("in_blocks")
def test_an_interrupted_run_and_one_without_links_end_alike(
    make: Make, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if every checkpoint gives some files up."""
    monkeypatch.setattr(segments, "_AGAIN", 2)
    simulate(make(f"training.rounds={ROUNDS - 3}"), tmp_path / "run")
    resumed = simulate(make(), tmp_path / "run", resume=True)
    assert any(one.shared for one in list_checkpoints(resumed.path))
    assert len(list(checkpoint.folder(resumed.path, ROUNDS).glob("clients/*"))) < ROUNDS

    def refused(link: Path, source: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    copied = simulate(make(), tmp_path / "copied")
    assert not any(one.shared for one in list_checkpoints(copied.path))
    assert tensors(resumed) == tensors(copied), "the same files"
    for other in (resumed, copied):
        assert states(whole, ROUNDS) == states(other, ROUNDS)
        assert whole.clients["loss"].equals(other.clients["loss"])


@pytest.mark.slow
@pytest.mark.usefixtures("in_blocks")
def test_rounds_outlive_those_that_they_share_files_with(make: Make, whole: Run, tmp_path: Path) -> None:
    pruned = simulate(make("engine.keep_last=1"), tmp_path / "pruned")
    assert checkpoint.complete_rounds(pruned.path) == [ROUNDS]
    assert states(pruned, ROUNDS) == states(whole, ROUNDS)
    old = Run(shutil.copytree(whole.path, tmp_path / "old", copy_function=os.link))
    for round_ in {*range(1, ROUNDS + 1)} - {ROUNDS - 2}:
        shutil.rmtree(checkpoint.folder(old.path, round_))
    assert states(old, ROUNDS - 2) == states(whole, ROUNDS - 2)


def test_a_flipped_byte_is_found_at_every_round_that_needs_it(whole: Run, tmp_path: Path) -> None:
    first = next(checkpoint.folder(whole.path, 1).glob("clients/block-0001-*"))
    good = first.read_bytes()
    try:
        first.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        for round_ in (1, 2):
            with pytest.raises(DamagedError, match=rf"{first.name}: is damaged"):
                states(whole, round_)
    finally:
        first.write_bytes(good)


@pytest.mark.parametrize(("clients", "cohort", "most"), [(2000, 200, 110), (1000, 10, 130), (600, 599, 12)])
def test_files_stay_few_and_little_is_written_twice(clients: int, cohort: int, most: int) -> None:
    """Three hundred rounds after one with everybody; 64 clients fill a file."""
    drawn = random.Random(1)
    everybody = [str(index) for index in range(clients)]
    held: Segments = {}
    written = 0
    for round_ in range(1, 301):
        changed = drawn.sample(everybody, cohort) if round_ > 1 else everybody
        files = next_files(round_, changed, held, clients)
        assert set(changed) <= files.keys()
        new: dict[str, dict[str, str]] = {}
        for name, file in files.items():
            new.setdefault(file, {})[name] = ""
        assert not new.keys() & held.keys(), "no file changes"
        held = {**without(held, files), **{file: Segment("", names) for file, names in new.items()}}
        assert sorted(name for one in held.values() for name in one.clients) == sorted(everybody)
        assert len(held) <= most
        written += len(files) * (round_ > 1)
        assert len(files) <= 9 / 8 * len(changed) or cohort < segments._BLOCK
    assert written <= 1.4 * 299 * cohort


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own", "blocks"])
def test_runs_of_the_format_before_are_read_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Two rounds by the last version that wrote all clients into every checkpoint, in single and in shared files."""
    with zipfile.ZipFile(Path(__file__).with_name("before.zip")) as archive:
        archive.extractall(tmp_path)
    run = Run(tmp_path / kind)
    for round_ in (1, 2):
        for client in "ABCD":
            folder = checkpoint.folder(run.path, round_) / "clients"
            file = folder / ("block-0000.safetensors" if kind == "blocks" else f"{client}.safetensors")
            prefix = f"{client}/" if kind == "blocks" else ""
            learner = run.learner(client, round_)
            for key, tensor in learner.flat("local").by_name(learner.private["local"]).items():
                np.testing.assert_array_equal(tensor.numpy(), load_file(file)[prefix + key])
    if kind == "blocks":
        monkeypatch.setattr(segments, "_OWN_FILE_UP_TO", 3)
    keys = ["training.rounds=3", f"federation.cache={tmp_path / 'cache'}"]
    resumed = simulate(load_workload(run.path / "workload.yaml", keys), run.path, resume=True)
    idle = set("ABCD") - trained(resumed, range(3, 4))
    assert len(idle) == 2
    old, new = (resumed.learner(min(idle), round_).private["local"] for round_ in (2, 3))
    assert torch.equal(old, new)
    assert list_checkpoints(resumed.path)[-1].shared
