"""Steps of several optimizers as one, and numbers read together."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedsim.algorithms.optimizers import OPTIMIZERS, alike, step_together
from fedsim.algorithms.training import numbers


def optimizers(name: str, *steps: int) -> list[torch.optim.Optimizer]:
    """Optimizers of two vectors each, every one after its own number of steps."""
    generator, made = torch.Generator().manual_seed(0), []
    for count in steps:
        vectors = [nn.Parameter(torch.randn(size, generator=generator)) for size in (5, 3)]
        made.append(OPTIMIZERS[name](vectors, lr=0.1))
        for vector in vectors:
            vector.grad = torch.randn(vector.shape, generator=generator)
        for _ in range(count):
            made[-1].step()
    return made


def held(optimizer: torch.optim.Optimizer) -> list[bytes]:
    """All bits of its vectors and its state."""
    vectors = optimizer.param_groups[0]["params"]
    states = [optimizer.state.get(vector, {}) for vector in vectors]
    tensors = [*vectors, *(value for state in states for value in state.values() if value is not None)]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_together_is_a_step_of_each(name: str) -> None:
    together, alone = optimizers(name, 0, 1, 4), optimizers(name, 0, 1, 4)
    for _ in range(2):
        step_together(together)
        for optimizer in alone:
            optimizer.step()
        assert [held(one) for one in together] == [held(one) for one in alone]
    assert [len(one.param_groups[0]["params"]) for one in together] == [2, 2, 2]
    assert [one.state.keys() <= set(one.param_groups[0]["params"]) for one in together] == [True, True, True]


def test_only_equal_settings_of_a_known_kind_are_alike() -> None:
    adam, slower, sgd = (*optimizers("adam", 0, 0), *optimizers("sgd", 0))
    assert alike(adam) == alike(copy.copy(slower))
    slower.param_groups[0]["lr"] = 0.01
    assert len({alike(one) for one in (adam, slower, sgd)}) == 3


def test_numbers_are_read_list_by_list() -> None:
    there = torch.tensor([0.1, 7.0], dtype=torch.float32)
    read = numbers([[1.5, there[0]], [], [there[1:], torch.tensor(2.0**-40, dtype=torch.float64)]])
    assert [values.tolist() for values in read] == [[1.5, float(np.float32(0.1))], [], [7.0, 2.0**-40]]
    assert all(values.dtype == np.float64 for values in read)
