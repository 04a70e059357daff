"""Starting a network from a safetensors file, `training.init`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import nn

from fedsim.core.errors import InputError, nearest

Tensors = Mapping[str, NDArray[Any]]
"""Parameters and running statistics of a network, or some of them, by name."""


def read_tensors(file: Path) -> Tensors:
    """The tensors of a file, floats as float32.

    Raises:
        InputError: it cannot be read, is of another format, or has no tensors or none that are finite.
    """
    if file.is_dir():
        raise InputError(f"training.init: {file}: is a folder; of a run, name checkpoints/round-N/shared.safetensors")
    try:
        found = safetensors.load(file.read_bytes())
    except OSError as error:
        raise InputError(f"training.init: {file}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        remedy = "write one with safetensors.torch.save_file(network.state_dict(), FILE)"
        raise InputError(f"training.init: {file}: is not a safetensors file ({error}); {remedy}") from error
    if not found:
        raise InputError(f"training.init: {file}: has no tensors")
    for name, value in found.items():
        if not value.isfinite().all():
            raise InputError(f"training.init: {file}: {name} has NaN or infinite numbers")
    return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in found.items()}


@torch.no_grad()
def start_from(network: nn.Module, tensors: Tensors) -> None:
    """Set the parameters and running statistics that are given; the others stay as they are.

    Raises:
        InputError: a name is not the network's, or has another shape there.
    """
    own = network.state_dict()
    for name, value in tensors.items():
        if name not in own:
            near = nearest(name, own)
            meant = f"did you mean {near!r}?" if near else "it is of another network"
            raise InputError(f"training.init: this network has no {name!r}; {meant}")
        if value.shape != tuple(own[name].shape):
            shapes = f"{value.shape}, and in this network {tuple(own[name].shape)}"
            raise InputError(f"training.init: {name} is {shapes}; set the keys of model to those of the file's network")
        own[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
