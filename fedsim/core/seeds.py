"""Random streams as pure functions of where they are used, so that the order of events cannot change them.

Every stream is named by the root seed and a key of words and integers, for example ("batches", client, round). Words
are hashed with SHA-256, so a stream depends neither on the process nor on the position of a site in a list.
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch

Key = str | int


@lru_cache(maxsize=1 << 16)
def _words(part: Key) -> int:
    if isinstance(part, int):
        return part
    return int.from_bytes(hashlib.sha256(part.encode()).digest()[:16], "little")


def _sequence(seed: int, *key: Key) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=tuple(_words(part) for part in key))


def derive(seed: int, *key: Key) -> int:
    """An integer seed in [0, 2^63) for the stream that `key` names."""
    return int(_sequence(seed, *key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_stream(seed: int, *key: Key) -> np.random.Generator:
    """The NumPy generator of the stream that `key` names."""
    return np.random.default_rng(_sequence(seed, *key))


def torch_stream(seed: int, *key: Key) -> torch.Generator:
    """The torch generator (CPU) of the stream that `key` names."""
    return torch.Generator().manual_seed(derive(seed, *key))
