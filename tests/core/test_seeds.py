"""Random streams are NumPy's own, however they are made."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.core.seeds import Key, derive, numpy_stream


def as_numpy_documents(seed: int, *key: Key) -> np.random.SeedSequence:
    """Strings are the first 16 bytes of their SHA-256, read as an integer."""
    digests = (hashlib.sha256(str(part).encode()).digest()[:16] for part in key)
    numbers = (int.from_bytes(digest, "little") for digest in digests)
    words = (part if isinstance(part, int) else number for part, number in zip(key, numbers, strict=True))
    return np.random.SeedSequence(seed, spawn_key=tuple(words))


EDGES = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**96, 2**128])
INTEGERS = st.integers(0, 2**130) | EDGES


@given(INTEGERS, st.lists(INTEGERS | st.text(max_size=4), max_size=4))
def test_streams_are_those_of_a_seed_sequence_with_a_spawn_key(seed: int, key: list[Key]) -> None:
    expected = as_numpy_documents(seed, *key)
    assert derive(seed, *key) == int(expected.generate_state(1, np.uint64)[0] >> np.uint64(1))
    drawn = numpy_stream(seed, *key).random(3)
    np.testing.assert_array_equal(drawn, np.random.default_rng(expected).random(3))
