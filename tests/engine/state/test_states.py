"""Private state in memory and in the file beyond it: what is put is what is taken, whatever the budget."""

import os
from pathlib import Path

import pytest
import torch

from fedsim.algorithms.training import State
from fedsim.core.errors import RunError
from fedsim.engine.state.store import SpillFile, StateStore, layout_of, state_bytes


def fresh() -> State:
    return {"local": torch.zeros(5)}


def trained(seed: int) -> State:
    drawn = torch.Generator().manual_seed(seed)
    return {
        "local": torch.randn(5, generator=drawn),
        "optimizer.shared.step": torch.tensor(float(seed)),
        "optimizer.shared.square_avg": torch.randn(7, generator=drawn),
        "upload_round": torch.tensor([seed]),
        "nothing": torch.zeros(0),
    }


def same(one: State, other: State) -> bool:
    return layout_of(one) == layout_of(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("budget", [0, 150, 1e9])
def test_what_was_put_is_taken(tmp_path: Path, budget: float) -> None:
    """Twice over, in another order, with states that grow when they are first trained."""
    store = StateStore(fresh, budget, tmp_path)
    clients = [f"client-{number}" for number in range(4)]
    assert all(same(store.take(client), fresh()) for client in clients)
    for round_ in (1, 2, 3):
        for number, client in reversed(list(enumerate(clients))):
            store.expect(client)
            store.take(client)
            store.put(client, trained(10 * round_ + number))
    for number, client in enumerate(clients):
        assert store.layout(client) == layout_of(trained(30 + number))
        assert same(store.take(client), trained(30 + number))
    assert same(store.take("another"), fresh())


def spilled_bytes(folder: Path) -> int:
    """Size of the unnamed file in a folder, as the system tells it; 0 if none is open."""
    open_files = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(path.stat().st_size for path in open_files if str(path.readlink()).startswith(f"{folder}/"))


def in_memory(store: StateStore, client: str, put: State) -> bool:
    """What is held in memory is given out itself, what is in the file as a copy."""
    taken = store.take(client)
    assert same(taken, put)
    return all(taken[key] is put[key] for key in put)


def test_memory_stays_within_the_budget(tmp_path: Path) -> None:
    states = {f"client-{number}": trained(number) for number in range(7)}
    size = state_bytes(trained(0))
    store = StateStore(fresh, 2 * size, tmp_path)
    for number in range(6):
        store.put(f"client-{number}", states[f"client-{number}"])
    held = [in_memory(store, f"client-{number}", states[f"client-{number}"]) for number in range(6)]
    assert held == [True, True, False, False, False, False]
    assert spilled_bytes(tmp_path) == 4 * size
    store.forget("client-0")
    store.put("client-6", states["client-6"])
    assert in_memory(store, "client-6", states["client-6"]), "there is room again"
    assert spilled_bytes(tmp_path) == 4 * size


def test_a_forgotten_place_is_used_again(tmp_path: Path) -> None:
    file = SpillFile(tmp_path)
    for number in range(3):
        file.write(f"client-{number}", trained(number))
    before = spilled_bytes(tmp_path)
    file.forget("client-1")
    assert "client-1" not in file
    file.write("client-3", trained(3))
    assert spilled_bytes(tmp_path) == before
    assert [same(file.read(f"client-{number}"), trained(number)) for number in (0, 2, 3)] == [True] * 3


def test_the_file_has_no_name(tmp_path: Path) -> None:
    """So that nothing is left of it, however the process ends."""
    file = SpillFile(tmp_path)
    file.write("client", trained(0))
    assert list(tmp_path.iterdir()) == []
    assert same(file.read("client"), trained(0))


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot hold the private state of client A \(No space left"):
        SpillFile(tmp_path).write("A", trained(0))


def test_short_reads_and_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may do less than it is asked for at a time."""
    for name in ("pwritev", "preadv"):
        whole = getattr(os, name)
        monkeypatch.setattr(os, name, lambda file, buffers, at, whole=whole: whole(file, [buffers[0][:3]], at))
    file = SpillFile(tmp_path)
    file.write("client", trained(1))
    assert same(file.read("client"), trained(1))
