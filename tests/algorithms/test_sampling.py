"""Samplers: who is drawn for a round, as a function of (seed, round)."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.algorithms.sampling import BySamples, Fixed, Sampler, Uniform
from fedsim.algorithms.training import Training
from fedsim.core.seeds import numpy_stream

KINDS = (Uniform(), BySamples(name="by_samples"), Fixed(name="fixed"))


@dataclass(frozen=True)
class Many:
    """Clients, the last of which has as many slices as all others together."""

    size: int

    def __len__(self) -> int:
        return self.size

    @property
    def samples(self) -> NDArray[np.int64]:
        return np.array([1] * (self.size - 1) + [self.size - 1])


class Unwalked(Many):
    """Clients whose slices cost too much to ask for."""

    @property
    def samples(self) -> NDArray[np.int64]:
        raise AssertionError("walks all clients")


@pytest.mark.parametrize("sampler", KINDS)
def test_a_cohort_has_its_size_in_order_and_depends_on_seed_and_round_alone(sampler: Sampler) -> None:
    drawn = {(seed, r): tuple(sampler.drawn(Many(40), 7, r, seed)) for seed in (0, 1) for r in range(1, 9)}
    assert all(len(set(cohort)) == 7 and list(cohort) == sorted(cohort) for cohort in drawn.values())
    assert drawn == {(seed, r): tuple(sampler.drawn(Many(40), 7, r, seed)) for seed, r in drawn}
    assert drawn[0, 1] != drawn[1, 1]
    assert len({cohort for (seed, _), cohort in drawn.items() if seed == 0}) == (1 if sampler.name == "fixed" else 8)


def test_uniform_draws_what_was_drawn_before_there_were_samplers() -> None:
    then = sorted(numpy_stream(5, "cohort", 3).choice(40, size=7, replace=False))
    assert Uniform().drawn(Many(40), 7, 3, 5) == then


def test_more_slices_are_drawn_more_often() -> None:
    by_samples = BySamples(name="by_samples")
    counts = [sum(39 in sampler.drawn(Many(40), 1, r, 0) for r in range(200)) for sampler in (by_samples, Uniform())]
    assert 80 < counts[0] < 120
    assert counts[1] < 20


@pytest.mark.parametrize("sampler", [Uniform(), Fixed(name="fixed")])
def test_a_thousand_of_ten_million_are_drawn_without_a_walk(sampler: Sampler) -> None:
    assert len(sampler.drawn(Unwalked(10_000_000), 1000, 1, 0)) == 1000


@pytest.mark.parametrize(
    ("keys", "clients", "cohort"),
    [({}, 5, 5), ({"participation": 0.5}, 5, 2), ({"participation": 0.01}, 5, 1), ({"cohort": 3}, 5, 3),
     ({"cohort": 9}, 5, 5)],
)  # fmt: skip
def test_a_cohort_is_a_share_or_a_number(keys: dict[str, float], clients: int, cohort: int) -> None:
    assert Training.model_validate(keys).drawn(clients) == cohort


def test_a_share_and_a_number_are_refused_together() -> None:
    with pytest.raises(ValueError, match="cohort: 3 clients a round, and participation=0"):
        Training(participation=0.5, cohort=3)


@pytest.mark.parametrize("sampler", KINDS)
def test_a_sampler_is_written_as_its_name(sampler: Sampler) -> None:
    assert Training(sampler=sampler).model_dump()["sampler"] == sampler.name
    assert Training.model_validate({"sampler": sampler.name}).sampler == sampler
