"""Which file of a checkpoint holds which client's private state, and which files the next checkpoint writes.

A checkpoint writes the clients that have trained since the one before it. The others are where they were: their files
are linked from the folder of that earlier checkpoint. Up to 256 clients have a file each. More of them share files, 64
to each, in the order in which they trained. As clients train again their old states in such a file are dead weight, so
the files of which least is left are given up: their remaining clients are written once more.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsim.engine.state.client_files import Digests, files_of, own_file

_OWN_FILE_UP_TO = 256  # clients
_BLOCK = 64  # clients that share a file above that
_AGAIN = 1 / 8  # clients that may be written once more, of those that have trained
_THIN = 1 / 4  # of a block, up to which it may be given up
_CROWDED = 4  # times the files that full blocks would make, and as many as a block has clients


@dataclass(frozen=True)
class Segment:
    """A file of clients' private states."""

    header: str
    """The digest of the file's header."""
    clients: Digests
    """The digest of each client's state, of the clients whose present state it is."""


Segments = Mapping[str, Segment]
"""By file name in `clients/`; a client is in one of them, or in none if it has not trained."""


def share_files(clients: int) -> bool:
    """Whether clients share files in a federation of this size; those that never trained are then not stored."""
    return clients > _OWN_FILE_UP_TO


def next_files(round_: int, changed: Collection[str], segments: Segments, clients: int) -> dict[str, str]:
    """The file in which a round's checkpoint writes each client: all that have changed, and perhaps a few others.

    Args:
        round_: Of the checkpoint.
        changed: Clients that have trained since the checkpoint before it, in the order in which they are written.
        segments: Of the checkpoint before it.
        clients: Number of clients in the federation.
    """
    if not share_files(clients):
        return {name: own_file(name) for name in changed}
    again = _given_up(without(segments, changed), len(changed))
    blocks = [names[at : at + _BLOCK] for names in (list(changed), again) for at in range(0, len(names), _BLOCK)]
    return {
        name: f"block-{round_:04d}-{number:04d}.safetensors" for number, block in enumerate(blocks) for name in block
    }


def without(segments: Segments, names: Iterable[str]) -> Segments:
    """The segments without clients whose state lies elsewhere now; a segment with none left is left out."""
    elsewhere = set(names)
    left = {
        file: Segment(one.header, {name: digest for name, digest in one.clients.items() if name not in elsewhere})
        for file, one in segments.items()
    }
    return {file: one for file, one in left.items() if one.clients}


def of_all(names: Sequence[str], file_digests: Digests, client_digests: Digests) -> Segments:
    """The segments of a checkpoint that lists none: earlier versions wrote every client into every checkpoint.

    Args:
        names: All clients, in the federation's order.
        file_digests: The digest of each file's header, by its path in the checkpoint.
        client_digests: The digest of each client's state.
    """
    files = {name: f"block-{index // 64:04d}.safetensors" for index, name in enumerate(names)}
    if f"clients/{own_file(names[0])}" in file_digests:
        files = {name: own_file(name) for name in names}
    return {
        file: Segment(file_digests[f"clients/{file}"], {name: client_digests[name] for name in members})
        for file, members in files_of(names, files).items()
    }


def _given_up(segments: Segments, changed: int) -> list[str]:
    """The clients of the segments that are given up, thinnest first.

    They are few beside the clients that are written anyway; or a block of them, where files have become many.
    """
    full = sum(len(one.clients) for one in segments.values()) / _BLOCK
    crowded = len(segments) > _CROWDED * full + _BLOCK
    most = max(changed * _AGAIN, _BLOCK if crowded else 0)
    found: list[str] = []
    for _, one in sorted(segments.items(), key=lambda item: (len(item[1].clients), item[0])):
        if len(found) + len(one.clients) > most or (len(one.clients) > _THIN * _BLOCK and not crowded):
            break
        found += sorted(one.clients)  # whatever their order in memory or in state.json
    return found
