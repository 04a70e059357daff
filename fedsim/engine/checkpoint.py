"""Checkpoints: everything a run needs to go on, as safetensors and JSON.

    checkpoints/round-0005/shared.safetensors        shared parameters by name
                           server.safetensors        the method's own server state, if any
                           clients/<client>.safetensors   private state; above 256 clients, 64 clients share a file
                           state.json                written last: a folder with it is complete

The files do not depend on the placement of clients.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedsim.algorithms.base import ServerState
from fedsim.algorithms.learner import FlatParameters, State
from fedsim.errors import InputError
from fedsim.files import replacing, write_json

_OWN_FILE_UP_TO = 256  # clients
_BLOCK = 64  # clients that share a file above that


def folder(run: Path, round_: int) -> Path:
    """The folder of a round's checkpoint."""
    return run / "checkpoints" / f"round-{round_:04d}"


def complete_rounds(run: Path) -> list[int]:
    """Rounds with a complete checkpoint, ascending."""
    return sorted(int(path.parent.name.removeprefix("round-")) for path in run.glob("checkpoints/round-*/state.json"))


def write(
    run: Path, state: Mapping[str, Any], server: ServerState, layout: FlatParameters, save: Callable[[Path], None]
) -> None:
    """Write the checkpoint of round state["round"]; `save` writes every client's file into the folder it is given."""
    target = folder(run, state["round"])
    shutil.rmtree(target, ignore_errors=True)
    (target / "clients").mkdir(parents=True, exist_ok=True)
    save(target / "clients")
    _share_files(target / "clients", state["clients"])
    shared = layout.by_name(torch.from_numpy(server["shared"])) if "shared" in server else {}
    save_file({name: tensor.numpy() for name, tensor in shared.items()}, target / "shared.safetensors")
    own = {name: vector for name, vector in server.items() if name != "shared"}
    if own:
        save_file(own, target / "server.safetensors")
    write_json(target / "state.json", state)


def read_state(run: Path, round_: int) -> dict[str, Any]:
    """What state.json of a complete checkpoint says."""
    state: dict[str, Any] = json.loads((folder(run, round_) / "state.json").read_text(encoding="utf-8"))
    return state


def read_server(run: Path, round_: int, layout: FlatParameters) -> ServerState:
    """The server's state at a checkpoint; `shared` are its parameters (P,)."""
    at = folder(run, round_)
    arrays = _load(at / "shared.safetensors")
    shared = layout.flatten({name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()
    return {"shared": shared, **(_load(at / "server.safetensors") if (at / "server.safetensors").exists() else {})}


def client_files(names: list[str]) -> dict[str, str]:
    """The file in `clients/` that holds each client, given all clients in order."""
    if len(names) <= _OWN_FILE_UP_TO:
        return {name: f"{name}.safetensors" for name in names}
    return {name: f"block-{index // _BLOCK:04d}.safetensors" for index, name in enumerate(names)}


def write_client(clients: Path, name: str, state: State, layout: FlatParameters) -> None:
    """Write a client's private state: its parameters by name, the rest under `state.`."""
    arrays = {key: tensor.numpy() for key, tensor in layout.by_name(state["local"]).items()}
    arrays |= {f"state.{key}": tensor.numpy() for key, tensor in state.items() if key != "local"}
    with replacing(clients / f"{name}.safetensors") as temporary:
        save_file(arrays, temporary)


def read_client(path: Path, name: str, layout: FlatParameters) -> State:
    """A client's private state from the file that holds it.

    Raises:
        InputError: the file does not have the client, or is damaged.
    """
    prefix = "" if path.stem == name else f"{name}/"
    arrays = _load(path, prefix)
    tensors = {key.removeprefix(prefix): torch.from_numpy(array) for key, array in arrays.items()}
    state = {key.removeprefix("state."): tensor for key, tensor in tensors.items() if key.startswith("state.")}
    return {"local": layout.flatten(tensors), **state}


def prune(run: Path, keep_last: int, best: int | None, passing: list[int]) -> None:
    """Delete all checkpoints but the last ones, the best round's and, once passed, those off the schedule."""
    kept = [round_ for round_ in complete_rounds(run) if round_ not in passing][-keep_last:]
    for round_ in complete_rounds(run):
        if round_ not in kept and round_ != best:
            (folder(run, round_) / "state.json").unlink()  # first: a half-deleted folder must not look complete
            shutil.rmtree(folder(run, round_))


def _load(path: Path, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """The tensors of a file whose names begin with `prefix`."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: is damaged or missing ({error}); use another round") from error


def _share_files(clients: Path, names: list[str]) -> None:
    """Join the clients' own files into the files that they share, where there are many clients."""
    members: dict[str, list[str]] = {}
    for name, file in client_files(names).items():
        members.setdefault(file, []).append(name)
    for file, owners in members.items():
        if owners == [file.removesuffix(".safetensors")]:
            continue
        with replacing(clients / file) as temporary:
            own = {name: _load(clients / f"{name}.safetensors") for name in owners}
            save_file({f"{name}/{key}": array for name in owners for key, array in own[name].items()}, temporary)
        for name in owners:
            (clients / f"{name}.safetensors").unlink()
