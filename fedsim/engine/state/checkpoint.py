"""Checkpoints: everything a run needs to continue, as safetensors and JSON.

    checkpoints/round-0005/shared.safetensors        shared parameters by name
                           server.safetensors        the method's own server state, if any
                           others.safetensors        the server's earlier states that clients at work began with, or
                                                     those of regions, if the workload's time has them
                           clients/<client>.safetensors   private state; above 256 clients, several share a file
                           state.json                round, best round, workload, versions, digests of all the rest

The driver lays out the files of the clients that have trained since the checkpoint before, from what hosts say about
their states; then every host writes its own clients' bytes in their places, all hosts at the same time. The files of
other clients are links to those of the checkpoint before, so every checkpoint stands for itself when others are
deleted. A checkpoint is made under another name and takes its own when all of it is on disk.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from fedsim.algorithms.base import ServerState
from fedsim.algorithms.flat import FlatParameters
from fedsim.algorithms.training import State
from fedsim.core.errors import DamagedError
from fedsim.core.files import as_json, link, reading_back, remove, sync, write_json, writing
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state import segments as clientsegments
from fedsim.engine.state.segments import Segment, Segments

_CLIENTS_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors")


@dataclass(frozen=True, kw_only=True)
class ToWrite:
    """Clients whose private state a checkpoint writes."""

    layouts: Mapping[str, clientfiles.Layout]
    """Of each client's state, in the order in which they lie in the files."""
    files: Mapping[str, str]
    """The file of each client."""
    save: Callable[[Path], clientfiles.Digests]
    """Has every client written into the files in a folder; returns the digests of their states."""

    def written(self, at: Path) -> Segments:
        """Make the files in a folder."""
        members = clientfiles.files_of(self.layouts, self.files)
        headers = {
            file: clientfiles.allocate(at / file, {name: self.layouts[name] for name in names})
            for file, names in members.items()
        }
        digests = self.save(at)
        return {
            file: Segment(headers[file], {name: digests[name] for name in names}) for file, names in members.items()
        }


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Private state that is in an earlier checkpoint."""

    round: int
    """Of that checkpoint."""
    segments: Segments


def folder(run: Path, round_: int) -> Path:
    """The folder of a round's checkpoint."""
    return run / "checkpoints" / f"round-{round_:04d}"


def _round(path: Path) -> int | None:
    """The round of a checkpoint's folder; None for a folder of another name, which is not fedsim's."""
    named = re.fullmatch(r"round-(\d{4,9})", path.name, re.ASCII)
    return int(named[1]) if named and f"round-{int(named[1]):04d}" == path.name else None


def complete_rounds(run: Path) -> list[int]:
    """Rounds with a complete checkpoint, ascending."""
    return sorted(filter(None, (_round(path.parent) for path in run.glob("checkpoints/round-*/state.json"))))


def sweep(run: Path) -> None:
    """Delete what a killed process has left half-written or half-deleted.

    Raises:
        WriteError: it cannot be deleted.
    """
    with writing(run):
        for path in (*run.glob(".*.part"), *run.glob("checkpoints/.round-*.part")):
            remove(path)
        for path in run.glob("checkpoints/round-*"):
            if _round(path) is not None and not (path / "state.json").exists():
                remove(path)


def write(
    run: Path,
    state: Mapping[str, Any],
    server: ServerState,
    layout: FlatParameters,
    clients: ToWrite,
    kept: Kept,
    others: Mapping[str, ServerState] = MappingProxyType({}),
) -> Segments:
    """Write the checkpoint of a round.

    Args:
        run: Run directory.
        state: Content of state.json; `round` is its number.
        server: The server's state.
        layout: Of the shared parameters.
        clients: Those whose state is written.
        kept: Where the state of the others is.
        others: States of the server that are needed beside its present one, by name.

    Returns:
        Where each client's state is now.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    target = folder(run, state["round"])
    part = target.with_name(f".{target.name}.part")
    with writing(target):
        _remove(part)
        (part / "clients").mkdir(parents=True)
        for file in kept.segments:
            link(folder(run, kept.round) / "clients" / file, part / "clients" / file)
        segments = {**kept.segments, **clients.written(part / "clients")}
        files = {}
        shared = layout.by_name(torch.from_numpy(server["shared"])) if "shared" in server else {}
        parameters = {name: tensor.contiguous().numpy() for name, tensor in shared.items()}
        files["shared.safetensors"] = _store(part / "shared.safetensors", parameters)
        own = {name: vector for name, vector in server.items() if name != "shared"}
        if own:
            files["server.safetensors"] = _store(part / "server.safetensors", own)
        if others:
            arrays = {f"{at}/{name}": vector for at, other in others.items() for name, vector in other.items()}
            files["others.safetensors"] = _store(part / "others.safetensors", arrays)
        listed = {file: {"header": one.header, "clients": one.clients} for file, one in segments.items()}
        whole = {**state, "file_digests": files, "segments": listed}
        write_json(part / "state.json", {**whole, "digest": _digest_of_json(whole)})
        sync(part / "clients")
        _remove(target)
        part.rename(target)
        sync(target.parent)
    return segments


def read_state(run: Path, round_: int) -> dict[str, Any]:
    """Content of state.json of a complete checkpoint.

    Raises:
        DamagedError: it is not what was written, or that of another round.
        RunError: it cannot be read.
    """
    path = folder(run, round_) / "state.json"
    with reading_back(path):
        content = path.read_bytes()
    try:
        text = content.decode()
        state: dict[str, Any] = json.loads(text)
        same, kept = as_json(state) == text, state.pop("digest")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path}: is damaged ({error!r:.80})") from error
    if not same or kept != _digest_of_json(state):
        raise DamagedError(f"{path}: is damaged (its digest does not match); use another round")
    if state.get("round") != round_:
        which = f"its folder holds the checkpoint of round {state.get('round')}"
        raise DamagedError(f"{path}: {which}; give the folder its own name again, or use another round")
    return state


def read_server(run: Path, state: Mapping[str, Any], layout: FlatParameters) -> ServerState:
    """The server's state at a checkpoint, given the content of its state.json; `shared` are its parameters (P,).

    Raises:
        DamagedError: a file is not what was written.
    """
    at, digests = folder(run, state["round"]), state["file_digests"]
    arrays = _load(at / "shared.safetensors", digests)
    shared = layout.flatten({name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()
    own = _load(at / "server.safetensors", digests) if "server.safetensors" in digests else {}
    return {"shared": shared, **own}


def read_others(run: Path, state: Mapping[str, Any]) -> dict[str, ServerState]:
    """The server's states at a checkpoint beside its present one, by name; `shared` is flat (P,) in each.

    Raises:
        DamagedError: a file is not what was written.
    """
    if "others.safetensors" not in state["file_digests"]:
        return {}
    found = defaultdict[str, ServerState](dict)
    for name, array in _load(folder(run, state["round"]) / "others.safetensors", state["file_digests"]).items():
        at, _, own = name.partition("/")
        found[at][own] = array
    return dict(found)


def set_aside(run: Path, round_: int) -> None:
    """Stop counting a damaged checkpoint as one; its files stay until the round is written again."""
    path = folder(run, round_) / "state.json"
    with writing(path):
        path.replace(path.with_name("state-damaged.json"))


def segments_of(state: Mapping[str, Any]) -> Segments:
    """Where each client's private state is in a checkpoint, given the content of its state.json.

    Raises:
        DamagedError: it names a file that no checkpoint has, as one outside its folder.
    """
    if "segments" not in state:
        return clientsegments.of_all(state["clients"], state["file_digests"], state["client_digests"])
    for file in state["segments"]:
        if not _CLIENTS_FILE.fullmatch(file):
            named = f"names {file!r:.80} as a file of clients, which no checkpoint has"
            raise DamagedError(f"state.json of round {state['round']}: {named}; use another round")
    return {file: Segment(**one) for file, one in state["segments"].items()}


def digest_of_arrays(state: Mapping[str, Any]) -> str:
    """Digest of all parameters and states, given the content of a state.json: the same for the same bits anywhere."""
    clients = {name: digest for one in segments_of(state).values() for name, digest in one.clients.items()}
    return _digest_of_json({"files": state["file_digests"], "clients": clients})


def parts(run: Path, round_: int, segments: Segments) -> list[clientfiles.FilePart]:
    """The files of a round's checkpoint that hold clients' private state."""
    at = folder(run, round_).absolute() / "clients"
    return [clientfiles.FilePart(at / file, one.header, one.clients) for file, one in segments.items()]


def read_client(run: Path, state: Mapping[str, Any], name: str, layout: FlatParameters) -> State | None:
    """A client's private state at a checkpoint, given the content of its state.json; None if it has not trained.

    Raises:
        DamagedError: the file that holds it is not what was written.
    """
    for part in parts(run, state["round"], segments_of(state)):
        if name in part.clients:
            ((_, private),) = clientfiles.read_clients(replace(part, clients={name: part.clients[name]}), layout)
            return private
    return None


def prune(run: Path, keep_last: int, best: int | None, passing: list[int]) -> None:
    """Delete all checkpoints but the last ones and the best; those off the schedule do not count among the last."""
    kept = [round_ for round_ in complete_rounds(run) if round_ not in passing][-keep_last:]
    for round_ in complete_rounds(run):
        if round_ not in kept and round_ != best:
            with writing(folder(run, round_)):
                _remove(folder(run, round_))


def _remove(path: Path) -> None:
    """Delete a checkpoint, first the file that marks it as complete."""
    if path.is_symlink():  # what it points to is not the run's
        path.unlink()
        return
    (path / "state.json").unlink(missing_ok=True)
    remove(path)


def _store(path: Path, arrays: dict[str, NDArray[np.float32]]) -> str:
    """Write a file of tensors; returns its digest."""
    content = safetensors.save(arrays)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _load(path: Path, digests: clientfiles.Digests) -> dict[str, NDArray[np.float32]]:
    """The tensors of a file."""
    with reading_back(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digests[path.name]:
        raise DamagedError(f"{path}: is damaged (its digest does not match); use another round")
    return safetensors.load(content)


def _digest_of_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(as_json(content).encode()).hexdigest()
