"""Files that hold clients' private state: laid out by one process, filled by several at once, read in parts.

These are safetensors files. A reader of a part of one checks that part's digest (SHA-256), so a host that takes up
some clients of a file need not read the others. They do not depend on the placement of clients.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from fedsim.algorithms.flat import FlatParameters
from fedsim.algorithms.training import State
from fedsim.core.errors import DamagedError
from fedsim.core.files import reading_back, writing
from fedsim.core.shared_disk import awaited
from fedsim.engine.state import store as states

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, safetensors type and shape of every tensor that a checkpoint holds of a client."""
Digests = Mapping[str, str]
"""SHA-256 in hexadecimal by file (of the driver's files, and of the headers of clients' files) or by client."""


@dataclass(frozen=True)
class FilePart:
    """Some clients of a file that holds clients."""

    file: Path
    header: str
    """The digest of the file's header."""
    clients: Digests
    """The digest of each client's state."""


_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL"}
_SIZES = {"F32": 4, "F64": 8, "I64": 8, "I32": 4, "BOOL": 1}


def own_file(name: str) -> str:
    """The name of a file that holds one client."""
    return f"{name}.safetensors"


def files_of(clients: Iterable[str], files: Mapping[str, str]) -> dict[str, list[str]]:
    """Some clients by the file that holds them."""
    members: dict[str, list[str]] = {}
    for name in clients:
        members.setdefault(files[name], []).append(name)
    return members


def client_layout(state: states.Layout, layout: FlatParameters) -> Layout:
    """Layout of a state in a checkpoint: local parameters by name, the rest under `state.`."""
    parameters = [(name, "F32", tuple(shape)) for name, shape in layout.layout]
    own = sorted((f"state.{key}", _TYPES[kind], tuple(shape)) for key, kind, shape in state if key != "local")
    return (*parameters, *own)


def allocate(file: Path, clients: Mapping[str, Layout]) -> str:
    """Create a safetensors file for some clients, with its header and space for their tensors, which `fill` writes.

    The library writes only whole files from memory; a file that several hosts write at once needs this much of the
    format (https://huggingface.co/docs/safetensors): 8 bytes with the length of a JSON header, the header, the data.

    Returns:
        The header's digest.
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
    text = len(text).to_bytes(8, "little") + text
    with file.open("wb") as opened:
        opened.write(text)
        opened.truncate(len(text) + end)
    return hashlib.sha256(text).hexdigest()


def fill(file: Path, clients: Iterable[tuple[str, State]], layout: FlatParameters) -> dict[str, str]:
    """Write the private state of some clients into the file that `allocate` made for them and perhaps others.

    Returns:
        The digest of each client's state.

    Raises:
        WriteError: it cannot be written.
    """
    digests = {}
    with writing(file), awaited(file).open("r+b", buffering=0) as opened:
        length = int.from_bytes(opened.read(8), "little")
        header, data = json.loads(opened.read(length)), 8 + length
        for name, state in clients:
            saved = _saved(state, layout)
            for key, tensor in saved.items():
                begin, _ = header[_prefix(file, name) + key]["data_offsets"]
                states.every_byte(os.pwritev, opened.fileno(), [tensor.contiguous().numpy()], data + begin)
            digests[name] = _digest_of_state(saved)
        os.fsync(opened.fileno())
    return digests


def read_clients(part: FilePart, layout: FlatParameters) -> Iterator[tuple[str, State]]:
    """The private states of some clients of a file.

    Raises:
        DamagedError: the file is not what was written.
        RunError: it cannot be read.
    """
    path = part.file
    with reading_back(path), _opened(part) as file:
        keys: dict[str, list[str]] = {"": list(file.keys())}
        for key in keys[""]:
            keys.setdefault(key.partition("/")[0] + "/", []).append(key)
        for name, digest in part.clients.items():
            prefix = _prefix(path, name)
            tensors = {key.removeprefix(prefix): file.get_tensor(key) for key in keys.get(prefix, ())}
            if _digest_of_state(tensors) != digest:
                raise DamagedError(f"{path}: is damaged (the digest of {name} does not match); use another round")
            state = {key.removeprefix("state."): value for key, value in tensors.items() if key[:6] == "state."}
            yield name, {"local": layout.flatten(tensors), **state}


@contextmanager
def _opened(part: FilePart) -> Iterator[Any]:
    """Open a file after checking its header and length."""
    path = awaited(part.file)
    with path.open("rb") as file:
        length = file.read(8)
        text = length + file.read(min(int.from_bytes(length, "little"), path.stat().st_size))
    if hashlib.sha256(text).hexdigest() != part.header:
        raise DamagedError(f"{path}: is damaged (the digest of its header does not match); use another round")
    ends = [tensor["data_offsets"][1] for tensor in json.loads(text[8:]).values()]
    if path.stat().st_size != len(text) + max(ends, default=0):
        raise DamagedError(f"{path}: is damaged (its length does not match); use another round")
    try:
        with safe_open(path, framework="pt") as opened:
            yield opened
    except SafetensorError as error:  # the header is intact, so the file is not damaged
        raise OSError(0, str(error)) from error


def _prefix(file: Path, name: str) -> str:
    """Prefix of a client's tensors in a file that several clients share; else empty."""
    return "" if file.name == own_file(name) else f"{name}/"


def _saved(state: State, layout: FlatParameters) -> dict[str, torch.Tensor]:
    own = {f"state.{key}": tensor for key, tensor in state.items() if key != "local"}
    return layout.by_name(state["local"]) | own


def _digest_of_state(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(tensors[key].contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
