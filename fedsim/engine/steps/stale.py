"""Uploads of clients that began with earlier states of the server, taken relative to its present one.

An upload w_i of a client that began with the server's w_v counts as u_i = w + c_i (w_i - b_i), where w is the present
state and c_i the client's factor. In buffered mode (FedBuff, Nguyen et al., AISTATS 2022) b_i = w_v and c_i = s(tau);
in asynchronous mode (FedAsync, Xie et al. 2019) b_i = w and c_i = alpha s(tau). Then the method's own step follows, as
if its clients had sent u_i.

Hosts add up p_i c_i w_i for weights p_i, exactly. What lacks is added here: sum_i p_i (1 - c_i) w, and
sum_v A_v (w - w_v) with A_v = sum p_i c_i over the clients that began with version v. Nothing lacks where all c_i are 1
and all clients began with the present state, and the step is then the method's, bit for bit.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsim.algorithms.base import Received, ServerState, Vector
from fedsim.engine.host.uploads import SCALED

Total: TypeAlias = NDArray[np.float64]
_BLOCK = 1 << 14  # elements: those of a block stay in the L2 cache, however many states are read


@dataclass(frozen=True)
class Stale:
    """A client whose upload is in the sums."""

    weight: float
    """p_i, as hosts have multiplied with it."""
    factor: float
    """c_i, likewise."""
    base: int
    """The version of the server's state whose parameters are b_i."""


def rebased(received: Received, clients: Collection[Stale], now: int, states: Mapping[int, ServerState]) -> Received:
    """What a method is to step with.

    Args:
        received: The sums as hosts have added them.
        clients: Those whose uploads are in the sums.
        now: The present version.
        states: The server's states by version, those of all bases and the present one among them.
    """
    rest = math.fsum(one.weight * (1 - one.factor) for one in clients)
    terms = defaultdict[int, list[float]](list)
    for one in clients:
        if one.base != now:
            terms[one.base].append(one.weight * one.factor)
    if not terms and all(one.factor == 1 for one in clients):
        return received
    weights = {version: math.fsum(each) for version, each in sorted(terms.items())}
    moved = {
        name: _moved(received.sums[name], rest, states[now][name], [(w, states[v][name]) for v, w in weights.items()])
        for name in SCALED & received.sums.keys()
    }
    return replace(received, sums={**received.sums, **moved}, stale=True)


def _moved(total: Total, rest: float, present: Vector, earlier: Sequence[tuple[float, Vector]]) -> Total:
    """total + rest * present + the sum of weight * (present - vector) over those that are earlier (P,)."""
    moved = np.empty_like(total)
    for start in range(0, total.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        here = present[block].astype(np.float64)
        part = np.add(total[block], rest * here, out=moved[block])
        for weight, vector in earlier:
            part += weight * (here - vector[block])
    return moved
