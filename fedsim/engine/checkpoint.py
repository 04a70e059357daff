"""Checkpoints: everything a run needs to go on, as safetensors and JSON.

    checkpoints/round-0005/shared.safetensors        shared parameters by name
                           server.safetensors        the method's own server state, if any
                           clients/<client>.safetensors   private state; above 256 clients, 64 clients share a file
                           state.json                written last: a folder with it is complete

The files do not depend on the placement of clients. The driver lays them out, headers and all, from what hosts say
about their clients' states; then every host writes its own clients' bytes in their places, all hosts at the same time.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedsim.algorithms.base import ServerState
from fedsim.algorithms.learner import FlatParameters, State
from fedsim.engine import states
from fedsim.errors import InputError, RunError
from fedsim.files import write_json

_OWN_FILE_UP_TO = 256  # clients
_BLOCK = 64  # clients that share a file above that

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, safetensors type and shape of every tensor that a checkpoint holds of a client."""

_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}
_SIZES = {"F32": 4, "F64": 8, "I64": 8, "I32": 4, "BOOL": 1}


def folder(run: Path, round_: int) -> Path:
    """The folder of a round's checkpoint."""
    return run / "checkpoints" / f"round-{round_:04d}"


def complete_rounds(run: Path) -> list[int]:
    """Rounds with a complete checkpoint, ascending."""
    return sorted(int(path.parent.name.removeprefix("round-")) for path in run.glob("checkpoints/round-*/state.json"))


def write(
    run: Path,
    state: Mapping[str, Any],
    server: ServerState,
    layout: FlatParameters,
    clients: Mapping[str, Layout],
    save: Callable[[Path], None],
) -> None:
    """Write the checkpoint of a round.

    Args:
        run: Run directory.
        state: What state.json says; `round` is its number.
        server: The server's state.
        layout: Of the shared parameters.
        clients: What there is to hold of each client, in the federation's order.
        save: Lets every client be written into the files laid out in the folder it is given.
    """
    target = folder(run, state["round"])
    shutil.rmtree(target, ignore_errors=True)
    (target / "clients").mkdir(parents=True, exist_ok=True)
    for file, members in files_of(list(clients), client_files(list(clients))).items():
        allocate(target / "clients" / file, {name: clients[name] for name in members})
    save(target / "clients")
    shared = layout.by_name(torch.from_numpy(server["shared"])) if "shared" in server else {}
    save_file({name: tensor.contiguous().numpy() for name, tensor in shared.items()}, target / "shared.safetensors")
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


def client_files(names: Sequence[str]) -> dict[str, str]:
    """The file in `clients/` that holds each client, given all clients in order."""
    if len(names) <= _OWN_FILE_UP_TO:
        return {name: own_file(name) for name in names}
    return {name: f"block-{index // _BLOCK:04d}.safetensors" for index, name in enumerate(names)}


def own_file(name: str) -> str:
    """The name of a file that holds one client."""
    return f"{name}.safetensors"


def files_of(clients: Sequence[str], files: Mapping[str, str]) -> dict[str, list[str]]:
    """Some clients by the file that holds them."""
    members: dict[str, list[str]] = {}
    for name in clients:
        members.setdefault(files[name], []).append(name)
    return members


def client_layout(state: states.Layout, layout: FlatParameters) -> Layout:
    """What a checkpoint holds of a state: its local parameters by name, the rest under `state.`."""
    parameters = [(name, "F32", tuple(shape)) for name, shape in layout.layout]
    own = sorted((f"state.{key}", _TYPES[kind], tuple(shape)) for key, kind, shape in state if key != "local")
    return (*parameters, *own)


def allocate(file: Path, clients: Mapping[str, Layout]) -> None:
    """Make a safetensors file for some clients with its header and room for their tensors, which `fill` writes.

    The library writes only whole files from memory; a file that several hosts write at once needs this much of the
    format (https://huggingface.co/docs/safetensors): 8 bytes with the length of a JSON header, the header, the data.
    """
    prefixes = {name: _prefix(file, name) for name in clients}
    tensors = [(prefixes[name] + key, kind, shape) for name, layout in clients.items() for key, kind, shape in layout]
    tensors.sort(key=lambda tensor: -_SIZES[tensor[1]])  # so that each is aligned to its type
    header: dict[str, Any] = {}
    end = 0
    for key, kind, shape in tensors:
        begin, end = end, end + _SIZES[kind] * int(np.prod(shape, dtype=np.int64))
        header[key] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)


def fill(file: Path, clients: Iterable[tuple[str, State]], layout: FlatParameters) -> None:
    """Write the private state of some clients into the file that `allocate` made for them and perhaps others.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with file.open("r+b", buffering=0) as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
            for name, state in clients:
                for key, tensor in _saved(state, layout).items():
                    array: NDArray[Any] = tensor.contiguous().numpy().reshape(-1)
                    begin, end = header[_prefix(file, name) + key]["data_offsets"]
                    if os.pwrite(opened.fileno(), array.data.cast("B"), 8 + length + begin) != end - begin:
                        raise OSError(0, "was written only in part")
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror}); make room, and go on with --resume") from error


def read_clients(path: Path, names: Sequence[str], layout: FlatParameters) -> Iterator[tuple[str, State]]:
    """The private state of some clients from the file that holds them.

    Raises:
        InputError: the file does not have a client, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys: dict[str, list[str]] = {"": list(file.keys())}
            for key in keys[""]:
                keys.setdefault(key.partition("/")[0] + "/", []).append(key)
            for name in names:
                prefix = _prefix(path, name)
                tensors = {key.removeprefix(prefix): file.get_tensor(key) for key in keys[prefix]}
                state = {key.removeprefix("state."): value for key, value in tensors.items() if key[:6] == "state."}
                yield name, {"local": layout.flatten(tensors), **state}
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: is damaged or missing ({error}); use another round") from error


def read_client(path: Path, name: str, layout: FlatParameters) -> State:
    """A client's private state from the file that holds it.

    Raises:
        InputError: the file does not have the client, or is damaged.
    """
    ((_, state),) = read_clients(path, [name], layout)
    return state


def _prefix(file: Path, name: str) -> str:
    """What a client's tensors are called after, in a file that holds others too."""
    return "" if file.name == own_file(name) else f"{name}/"


def _saved(state: State, layout: FlatParameters) -> dict[str, torch.Tensor]:
    own = {f"state.{key}": tensor for key, tensor in state.items() if key != "local"}
    return layout.by_name(state["local"]) | own


def prune(run: Path, keep_last: int, best: int | None, passing: list[int]) -> None:
    """Delete all checkpoints but the last ones, the best round's and, once passed, those off the schedule."""
    kept = [round_ for round_ in complete_rounds(run) if round_ not in passing][-keep_last:]
    for round_ in complete_rounds(run):
        if round_ not in kept and round_ != best:
            (folder(run, round_) / "state.json").unlink()  # first: a half-deleted folder must not look complete
            shutil.rmtree(folder(run, round_))


def _load(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: is damaged or missing ({error}); use another round") from error
