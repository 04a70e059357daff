"""Random streams as pure functions of where they are used, so that the order of events cannot change them.

Every stream is named by the root seed and a key of words and integers, for example ("batches", client, round). Words
are hashed with SHA-256, so a stream depends neither on the process nor on the position of a site in a list.
"""

import hashlib
import math
from functools import lru_cache

import numpy as np
import torch

Key = str | int

_POOL = 16  # bytes of a SeedSequence's pool, to which a seed with a key is filled up


@lru_cache(maxsize=1 << 16)
def _words(part: Key) -> bytes:
    """A part of a key as NumPy reads an integer: 32-bit words, the lowest first, without leading zeros."""
    number = part if isinstance(part, int) else int.from_bytes(hashlib.sha256(part.encode()).digest()[:16], "little")
    return number.to_bytes(4 * max(1, math.ceil(number.bit_length() / 32)), "little")


def _sequence(seed: int, *key: Key) -> np.random.SeedSequence:
    """`SeedSequence(seed, spawn_key=key)`, with words for strings; as an array they are read seven times as fast."""
    words = _words(seed).ljust(_POOL, b"\0") + b"".join(map(_words, key))
    return np.random.SeedSequence(np.frombuffer(words, np.dtype("<u4")).astype(np.uint32))


def derive(seed: int, *key: Key) -> int:
    """An integer seed in [0, 2^63) for the stream that `key` names."""
    return int(_sequence(seed, *key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_stream(seed: int, *key: Key) -> np.random.Generator:
    """The NumPy generator of the stream that `key` names."""
    return np.random.default_rng(_sequence(seed, *key))


def torch_stream(seed: int, *key: Key) -> torch.Generator:
    """The torch generator (CPU) of the stream that `key` names."""
    return torch.Generator().manual_seed(derive(seed, *key))
