"""The optimizers that a workload names: made for a client's vectors, their state, and steps of several as one."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import nn

from fedsim.algorithms.training import State, Training, onto

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def new_optimizer(
    training: Training, round_: int, vectors: Mapping[str, nn.Parameter], state: State, prefix: str
) -> torch.optim.Optimizer:
    """The optimizer of some vectors in a round, with what `state` holds for it."""
    optimizer = OPTIMIZERS[training.optimizer](list(vectors.values()), lr=training.lr_in(round_))
    load_optimizer(optimizer, vectors, state, prefix)
    return optimizer


def load_optimizer(
    optimizer: torch.optim.Optimizer, vectors: Mapping[str, nn.Parameter], state: State, prefix: str
) -> None:
    """Give an optimizer what `state` holds for its vectors under `<prefix><name>.<key>`."""
    for name, vector in vectors.items():
        mine = f"{prefix}{name}."
        kept = {key.removeprefix(mine): value for key, value in state.items() if key.startswith(mine)}
        if kept:
            optimizer.state[vector] = {key: onto(value, vector.device) for key, value in kept.items()}


def optimizer_state(optimizer: torch.optim.Optimizer, vectors: Mapping[str, nn.Parameter], prefix: str) -> State:
    """What an optimizer keeps for its vectors, under `<prefix><name>.<key>`."""
    return {
        f"{prefix}{name}.{key}": value
        for name, vector in vectors.items()
        for key, value in optimizer.state.get(vector, {}).items()
        if value is not None
    }


def alike(optimizer: torch.optim.Optimizer) -> Hashable:
    """The same for optimizers that `step_together` takes; only torch's own are known to be elementwise."""
    if type(optimizer) not in OPTIMIZERS.values() or len(optimizer.param_groups) != 1:
        return id(optimizer)
    return type(optimizer), *((key, value) for key, value in optimizer.param_groups[0].items() if key != "params")


def step_together(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """A step of optimizers that are alike, taken by the first: on a GPU with no more launches than its own."""
    first, *others = optimizers
    group = first.param_groups[0]
    own, theirs = group["params"], [(other, vector) for other in others for vector in other.param_groups[0]["params"]]
    group["params"] = [*own, *(vector for _, vector in theirs)]
    first.state.update({vector: other.state[vector] for other, vector in theirs if vector in other.state})
    try:
        first.step()
    finally:
        group["params"] = own
        for other, vector in theirs:
            if vector in first.state:
                other.state[vector] = first.state.pop(vector)
