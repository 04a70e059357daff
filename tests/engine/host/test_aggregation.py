import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.algorithms.base import Phase, Upload
from fedsim.core.errors import DivergedError, RunError
from fedsim.engine.gather import Gathered
from fedsim.engine.host.merging import PartialSum
from fedsim.engine.host.messages import Reply
from fedsim.engine.host.sums import OrderFreeSum, largest


def total(vectors: list[np.ndarray], weights: list[float], groups: int = 1) -> np.ndarray:
    """The sum with the terms spread over some hosts."""
    whole = OrderFreeSum(vectors[0].size)
    for group in range(groups):
        part = OrderFreeSum(vectors[0].size)
        for vector, weight in list(zip(vectors, weights, strict=True))[group::groups]:
            term = torch.from_numpy(vector)
            part.add(term, weight, part.check(term, largest(term), weight, "client"))
        whole.merge(part.partial)
    return whole.total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 7))
def test_order_and_grouping_do_not_matter(seed: int, clients: int, groups: int) -> None:
    """Bit for bit, for values over 12 orders of magnitude and more than one block."""
    rng = np.random.default_rng(seed)
    magnitude = 10.0 ** rng.uniform(-10, 2, (clients, 20_000))
    vectors = list((magnitude * rng.choice([-1, 1], magnitude.shape)).astype(np.float32))
    weights = list(rng.dirichlet(np.ones(clients)))
    reference = total(vectors, weights)
    order = rng.permutation(clients)
    shuffled = total([vectors[i] for i in order], [weights[i] for i in order], groups)
    assert reference.tobytes() == shuffled.tobytes()


def test_is_the_weighted_sum() -> None:
    rng = np.random.default_rng(0)
    vectors, weights = list(rng.standard_normal((9, 50_000)).astype(np.float32)), list(rng.dirichlet(np.ones(9)))
    exact = sum(w * v.astype(np.float64) for w, v in zip(weights, vectors, strict=True))
    np.testing.assert_allclose(total(vectors, weights), exact, atol=9 * 2.0**-40)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_bad_values_are_refused_by_name(bad: float) -> None:
    vector = np.zeros(100, np.float32)
    vector[17] = bad
    with pytest.raises(RunError, match="client Bergen, round 3: sent NaN"):
        OrderFreeSum(100).check(
            torch.from_numpy(vector), largest(torch.from_numpy(vector)), 0.5, "client Bergen, round 3"
        )


def test_a_sum_that_would_not_be_exact_is_refused() -> None:
    vector = np.full(3, 1000, np.float32)
    assert total([vector] * 2, [1.0, 1.0]).tolist() == [2000] * 3
    with pytest.raises(RunError, match="a sum over clients may exceed 2048, where it is exact; lower the lr"):
        total([vector] * 3, [1.0] * 3)


def test_a_wrong_length_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="client Bergen: train returned 99 values where other clients returned 100"):
        OrderFreeSum(100).check(torch.zeros(99), 0, 1, "client Bergen")


def test_what_is_left_out_is_left_out_of_the_mean() -> None:
    """Against the mean by hand, known before or found out in the round."""
    vectors = {name: np.full(3, value, np.float32) for name, value in (("a", 1), ("b", 10), ("c", 4))}
    weights = {"a": 0.2, "b": 0.5, "c": 0.3}
    means = []
    for failed in ({}, {"b": DivergedError("b")}):
        gathered = Gathered(Phase(("a", "b", "c")), [Upload("shared", collected=True)], weights, 3)
        for name in ("c", "a"):
            row = {"client": name, "weight": weights[name]}
            term = weights[name] * vectors[name].astype(np.float64)
            sums = {"shared": PartialSum(total=term, grid=40, bound=term.max())}
            gathered.add(Reply(sums=sums, collected={name: {"shared": vectors[name]}}, rows=[row]))
        gathered.add(Reply(failed=dict(failed)))
        received = gathered.received()
        assert received.phase.clients == ("a", "c")
        assert [v[0] for v in received.collected["shared"]] == [1, 4]
        assert received.weight == 0.5
        means.append(received.mean("shared"))
    np.testing.assert_allclose(means[0], np.full(3, 0.4 * 1 + 0.6 * 4), rtol=1e-6)
    assert means[0].tobytes() == means[1].tobytes()
