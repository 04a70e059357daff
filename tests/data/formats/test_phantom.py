"""A phantom site is a function of the seed and its name; what cannot be imaged is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.source import Volume, draws_subjects
from fedsim.mri import phantom

RANGES: dict[str, Any] = {
    "field_t": [0.5, 3.0],
    "tr": [300, 600],
    "te": [8, 20],
    "noise": [0.01, 0.1],
    "bias": [0, 1],
    "lesions": [0.1, 0.4],
}


def source(**keys: Any) -> PhantomSource:
    return PhantomSource(**{"subjects": 2, "slices": 2, "size": 32, **keys})


def volumes(source: PhantomSource, site: str = "A", seed: int = 1) -> list[Volume]:
    return list(source.resolve(seed, site).volumes(Path()))


def test_names_subjects_and_shapes() -> None:
    found = volumes(source(contrast=["t1", "flair"]))
    assert [v.name for v in found] == ["subject-001_t1", "subject-001_flair", "subject-002_t1", "subject-002_flair"]
    assert [v.subject for v in found] == ["subject-001", "subject-001", "subject-002", "subject-002"]
    assert {(v.images.shape, v.images.dtype) for v in found} == {((2, 32, 32), np.dtype(np.complex64))}
    assert source().files(Path()) == []


def test_same_seed_same_bits_and_all_subjects_and_sites_differ() -> None:
    first, again, elsewhere = volumes(source()), volumes(source()), volumes(source(), site="B")
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    images = [v.images.tobytes() for v in [*first, *elsewhere, *volumes(source(), seed=2)]]
    assert len(set(images)) == 6


def test_sites_share_an_origin_only_with_their_seed() -> None:
    """The search for leaks tells subjects apart by origin and name."""
    assert volumes(source())[0].origin != volumes(source(), site="B")[0].origin
    assert volumes(source(seed=3))[0].origin == volumes(source(seed=3), site="B")[0].origin


def test_the_workloads_seed_decides_who_the_subjects_are_unless_they_have_one() -> None:
    """Results pair subjects of two seeds by name only where they are the same people."""
    assert draws_subjects(source(), "A")
    assert not draws_subjects(source(seed=3, noise=(0.01, 0.02)), "A"), "other noise, the same heads"
    assert not draws_subjects(Nifti(path="a", synthetic_phase=True), "A"), "another phase, the same people"


def test_a_contrast_does_not_depend_on_the_others() -> None:
    both, alone = volumes(source(contrast=["t2", "pd"])), volumes(source(contrast="pd"))
    np.testing.assert_array_equal(both[1].images, alone[0].images)


def test_contrasts_share_the_anatomy_but_not_the_noise() -> None:
    """Without noise and bias, pixels of air are air in both; with noise, the noise differs."""
    clean = volumes(source(contrast=["t1", "t2"], noise=0, bias=0))
    air = [np.abs(v.images) == 0 for v in clean]
    np.testing.assert_array_equal(air[0], air[1])
    t1, t2 = volumes(source(contrast=["t1", "t2"]))[:2]
    noise = [v.images[air[0]] for v in (t1, t2)]
    assert abs(np.corrcoef(noise[0].real, noise[1].real)[0, 1]) < 0.2


def test_resolve_is_pure_stays_in_range_and_is_final() -> None:
    ranged = source(**RANGES)
    drawn = ranged.resolve(7, "A")
    assert drawn == ranged.resolve(7, "A") == drawn.resolve(8, "B")
    assert ranged.seed is None
    for key, (low, high) in RANGES.items():
        assert low <= getattr(drawn, key) <= high
    other = ranged.resolve(7, "B")
    assert all(getattr(other, key) != getattr(drawn, key) for key in [*RANGES, "seed"])
    assert PhantomSource.model_validate(drawn.model_dump()) == drawn


def test_a_range_more_does_not_move_the_others() -> None:
    one, two = source(noise=[0.01, 0.1]).resolve(1, "A"), source(noise=[0.01, 0.1], bias=[0, 1]).resolve(1, "A")
    assert one.noise == two.noise
    assert one.seed == two.seed


def test_a_thousand_sites_draw_seeds_and_values_that_cover_the_range() -> None:
    ranged = source(**RANGES)
    drawn = [ranged.resolve(1, f"P-{number:04d}") for number in range(1000)]
    assert len({d.seed for d in drawn}) == 1000
    fields = np.array([d.field_t for d in drawn])
    assert fields.mean() == pytest.approx(1.75, abs=0.1)
    assert fields.max() > 2.9
    assert fields.min() < 0.6


def test_settings_reach_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def image(head: phantom.Anatomy, *settings: Any) -> np.ndarray:
        seen.append(settings)
        return phantom.image(head, *settings)

    monkeypatch.setattr("fedsim.data.formats.phantom.image", image)
    volumes(source(subjects=1, contrast="flair", field_t=1.5, tr=8000, te=120, noise=0.05, bias=0.1))
    volumes(source(subjects=1, contrast="flair", ti=2000))
    sequence, field_t, _, noise, bias, _ = seen[0]
    assert (sequence.tr, sequence.te, field_t, noise, bias) == (8000, 120, 1.5, 0.05, 0.1)
    assert phantom.signal(1, 4300, 2000, sequence) == pytest.approx(0, abs=1e-9)  # fluid is nulled by default
    assert seen[1][0].ti == 2000


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"field_t": 20}, "less than or equal to 11.7"),
        ({"field_t": [3.0, 1.5]}, "must ascend"),
        ({"field_t": [0.01, 1.5]}, "greater than or equal to 0.05"),
        ({"slices": 0}, "greater than or equal to 1"),
        ({"te": 500}, r"te \(500 ms\) must be shorter than tr \(400 ms\)"),
        ({"tr": [100, 300], "te": [5, 120]}, r"te \(120 ms\) must be shorter than tr \(100 ms\)"),
        ({"contrast": "flair", "ti": 8950}, r"ti \+ te \(9060 ms\) must be shorter"),
        ({"ti": 2000}, "ti belongs to contrast flair"),
        ({"contrast": ["t1", "t2"], "tr": 500}, "tr can be set for one contrast"),
        ({"contrast": ["t1", "t1"]}, "t1 is listed twice"),
        ({"contrast": []}, "at least 1 item"),
        ({"contrast": "t1ce"}, "'t1', 't2', 'pd' or 'flair'"),
        ({"noise": [0.1]}, "required"),
        ({"lesions": 1.5}, "less than or equal to 1"),
        ({"matrix": 64}, "Extra inputs"),
    ],
)
def test_what_cannot_be_imaged_is_refused_with_one_error(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        source(**keys)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("unresolved", [{}, {"seed": 1, "noise": [0.0, 0.1]}])
def test_volumes_before_resolve_say_so(unresolved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="call resolve"):
        next(source(**unresolved).volumes(Path()))


def test_every_key_says_what_it_is() -> None:
    assert all(field.description for field in PhantomSource.model_fields.values())
