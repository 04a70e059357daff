"""What the checkpoints of a run take on disk, and what they have in common."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedsim.core.errors import DamagedError, InputError
from fedsim.core.files import reading_back
from fedsim.engine.state import checkpoint


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A complete checkpoint."""

    round: int
    """Counted from 1."""
    clients: int | None
    """Number of clients whose private state it holds; the others have not trained. None: state.json is damaged."""
    files: int
    """Number of its files."""
    size: int
    """Of all its files [bytes]."""
    shared: int
    """Of those that an earlier checkpoint has too, as links [bytes]."""
    best: bool
    """Whether its round is the best so far, by validation."""

    @property
    def own(self) -> int:
        """What it adds to the earlier checkpoints on disk [bytes]."""
        return self.size - self.shared


def list_checkpoints(run: Path) -> list[Listed]:
    """The complete checkpoints of a run, ascending; of client files only names and sizes are read.

    Raises:
        InputError: there is none.
    """
    rounds = checkpoint.complete_rounds(run)
    if not rounds:
        raise InputError(f"{run}: has no complete checkpoint yet")
    states = {round_: (_state(run, round_), _files(checkpoint.folder(run, round_))) for round_ in rounds}
    best = next((state["best_round"] for state, _ in reversed(states.values()) if state), None)
    seen = set[tuple[int, int]]()
    found = []
    for round_, (state, files) in states.items():
        if not files:  # a run that goes on has deleted it meanwhile
            continue
        clients = sum(len(one.clients) for one in checkpoint.segments_of(state).values()) if state else None
        size, shared = sum(files.values()), sum(size for file, size in files.items() if file in seen)
        found.append(
            Listed(round=round_, clients=clients, files=len(files), size=size, shared=shared, best=round_ == best)
        )
        seen |= files.keys()
    return found


def _state(run: Path, round_: int) -> dict[str, object] | None:
    try:
        return checkpoint.read_state(run, round_)
    except DamagedError:
        return None


def _files(folder: Path) -> dict[tuple[int, int], int]:
    """The size of each file in a folder [bytes], by what makes it the same file under all its names."""
    found = dict[tuple[int, int], int]()
    with reading_back(folder):
        for path in filter(Path.is_file, folder.rglob("*")):
            with suppress(FileNotFoundError):  # deleted meanwhile
                file = path.stat()
                found[file.st_dev, file.st_ino] = file.st_size
    return found
