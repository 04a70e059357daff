"""Local training: the section of a workload, the arithmetic of a step, and where its numbers are."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from fedsim.algorithms.losses import MSE, AnyLoss
from fedsim.algorithms.modes import Mapped
from fedsim.algorithms.sampling import AnySampler, Uniform
from fedsim.algorithms.stopping import EarlyStopping
from fedsim.core.section import FolderPath, Section

State = dict[str, Tensor]
"""A client's private state by name: `local`, `optimizer.<group>.<key>` and whatever the algorithm keeps."""
Scalars = Sequence[Sequence[float | Tensor]]
"""Lists of numbers, of which those that were computed on a GPU are still there."""

Precision = Literal["float32", "tf32", "bfloat16"]


class Training(Section):
    """Local training. A site may override what concerns a client alone: epochs, batches, optimizer, learning rate."""

    rounds: int = Field(50, ge=1, description="Communication rounds.")
    local_epochs: int = Field(1, ge=1, description="Passes over a client's training slices in a round.")
    batch_size: int = Field(8, ge=1, description="Slices in a step.")
    optimizer: Literal["rmsprop", "adam", "sgd"] = Field("rmsprop", description="Optimizer; its state is private.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of the first round.")
    lr_step: int = Field(0, ge=0, description="The learning rate falls every N rounds; 0: never.")
    lr_gamma: float = Field(0.1, gt=0, le=1, description="Factor of the learning rate every lr_step rounds.")
    loss: AnyLoss = Field(
        default_factory=MSE,
        description="What training minimises: mse, l1 (mean absolute error), ssim (1 - SSIM of each slice), l1_ssim "
        "(their sum), kspace (mean absolute error of the images' k-space), or module:Class.",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of a step's gradient, which is scaled down to it; default no limit."
    )
    init: FolderPath | None = Field(
        None, description="safetensors file of parameters to start from, all or some; default a start from the seed."
    )
    participation: float = Field(1.0, gt=0, le=1, description="Share of the clients drawn for each round.")
    cohort: int | None = Field(
        None, ge=1, description="Number of clients drawn for each round, instead of a share; all, if there are fewer."
    )
    sampler: AnySampler = Field(
        default_factory=Uniform, description="How they are drawn: uniform, by_samples, fixed, or module:Class."
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop before the last round when validation no longer improves; default never."
    )
    precision: Precision = Field(
        "float32", description="Arithmetic of training steps. tf32: products with 10 mantissa bits, on GPUs only; "
        "bfloat16: automatic mixed precision. Weights, sums and tests are float32.")  # fmt: skip
    fuse: int = Field(
        1, ge=1, le=1024, description="Clients of an actor that train as one network; above 1 the last bits are those "
        "of that number. Faster for small networks, on GPUs and on CPUs.")  # fmt: skip
    memory_format: Literal["contiguous", "channels_last"] = Field(
        "contiguous", description="Order of the weights in memory; channels_last can be faster on GPUs."
    )

    def lr_in(self, round_: int) -> float:
        """The learning rate in a round (counted from 1); the schedule steps once per round."""
        return self.lr * self.lr_gamma ** ((round_ - 1) // self.lr_step) if self.lr_step else self.lr

    def drawn(self, clients: int) -> int:
        """The number of clients drawn for a round, out of all clients."""
        return max(1, round(self.participation * clients)) if self.cohort is None else min(self.cohort, clients)

    @model_validator(mode="after")
    def _one_number(self) -> "Training":
        if self.cohort is not None and self.participation != 1:
            raise ValueError(
                f"cohort: {self.cohort} clients a round, and participation={self.participation:g} says how many, too; "
                "leave one of them out"
            )
        return self


@contextmanager
def arithmetic(
    device: torch.device, precision: Precision, mapped: bool = False
) -> Iterator[AbstractContextManager[object]]:
    """What a training step computes in; TF32 exists on GPUs only, and holds for the backward pass too.

    Args:
        device: Where it computes.
        precision: Of products.
        mapped: Whether the forward pass is under torch.func.vmap.

    Yields:
        The context of the forward pass, which the backward pass follows.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    was = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
    narrow = precision == "bfloat16"
    try:
        yield Mapped(narrow) if mapped else torch.autocast(device.type, torch.bfloat16, narrow)
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = was


def onto(value: Tensor, device: torch.device) -> Tensor:
    """A state tensor where it is needed; counters stay on the CPU, where optimizers want them."""
    return value.to(device) if value.dim() else value


def numbers(lists: Scalars) -> list[NDArray[np.float64]]:
    """Scalars, list by list (S,); all that are on a GPU are read in one copy, which waits for it."""
    there = [value.double().reshape(()) for values in lists for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(there).tolist() if there else ())
    return [np.array([next(read) if isinstance(v, Tensor) else v for v in values], np.float64) for values in lists]
