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
from safetensors.numpy import load_file, save_file

from fedsim.algorithms.base import ServerState
from fedsim.algorithms.learner import FlatParameters, State
from fedsim.errors import InputError
from fedsim.files import write_json

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
    (target / "clients").mkdir(parents=True)
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


def read_shared(run: Path, round_: int, layout: FlatParameters) -> NDArray[np.float32]:
    """The shared parameters (P,) at a checkpoint."""
    arrays = _load(folder(run, round_) / "shared.safetensors")
    return layout.flatten({name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()


def read_server(run: Path, round_: int, layout: FlatParameters) -> ServerState:
    """The server's state at a checkpoint."""
    path = folder(run, round_) / "server.safetensors"
    return {"shared": read_shared(run, round_, layout), **(_load(path) if path.exists() else {})}


def write_client(clients: Path, name: str, state: State, layout: FlatParameters) -> None:
    """Write a client's private state: its parameters by name, the rest under `state.`."""
    arrays = {key: tensor.numpy() for key, tensor in layout.by_name(state["local"]).items()}
    arrays |= {f"state.{key}": tensor.numpy() for key, tensor in state.items() if key != "local"}
    save_file(arrays, clients / f"{name}.safetensors")


def read_client(clients: Path, name: str, layout: FlatParameters) -> State:
    """A client's private state from its own file or the one it shares.

    Raises:
        InputError: no file has the client, or the file is damaged.
    """
    path = clients / f"{name}.safetensors"
    arrays = _load(path) if path.exists() else _from_block(clients, name)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    state = {key.removeprefix("state."): tensor for key, tensor in tensors.items() if key.startswith("state.")}
    return {"local": layout.flatten(tensors), **state}


def prune(run: Path, keep_last: int, best: int | None, passing: list[int]) -> None:
    """Delete all checkpoints but the last ones, the best round's and, once passed, those off the schedule."""
    kept = [round_ for round_ in complete_rounds(run) if round_ not in passing][-keep_last:]
    for round_ in complete_rounds(run):
        if round_ not in kept and round_ != best:
            (folder(run, round_) / "state.json").unlink()  # first: a half-deleted folder must not look complete
            shutil.rmtree(folder(run, round_))


def _load(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: is damaged or missing ({error}); use another round") from error


def _share_files(clients: Path, names: list[str]) -> None:
    """Put the files of 64 neighbours into one where there are many clients."""
    if len(names) <= _OWN_FILE_UP_TO:
        return
    for start in range(0, len(names), _BLOCK):
        members = names[start : start + _BLOCK]
        arrays = {f"{n}/{key}": a for n in members for key, a in load_file(clients / f"{n}.safetensors").items()}
        save_file(arrays, clients / f"block-{start // _BLOCK:04d}.safetensors")
        for name in members:
            (clients / f"{name}.safetensors").unlink()


def _from_block(clients: Path, name: str) -> dict[str, NDArray[np.float32]]:
    for path in sorted(clients.glob("block-*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            keys = [key for key in file.keys() if key.startswith(f"{name}/")]  # noqa: SIM118 - not a mapping
            if keys:
                return {key.removeprefix(f"{name}/"): file.get_tensor(key) for key in keys}
    raise InputError(f"{clients}: has no client {name}")
