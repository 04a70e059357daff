"""Laws of the phantom: same seed same bits, one anatomy for every contrast, signals as the equations say."""

import numpy as np
import pytest

from fedsim.mri import phantom
from fedsim.mri.phantom import NAMES, Anatomy, Sequence, anatomy, image, nulling_time, relaxation_times, signal

T1, T2 = Sequence(400, 8), Sequence(4500, 95)
FLAIR = Sequence(9000, 110, nulling_time(4300, 9000, 110))


@pytest.fixture(scope="module")
def head() -> Anatomy:
    return anatomy(np.random.default_rng(1), slices=12, size=64, lesions=1.0)


def shown(head: Anatomy, sequence: Sequence, seed: int = 2, noise: float = 0.0, bias: float = 0.0) -> np.ndarray:
    return image(head, sequence, 1.5, np.random.default_rng(seed), noise, bias)


def tissue(name: str, field_t: float, sequence: Sequence) -> float:
    return signal(phantom.TISSUES[name][0], *relaxation_times(name, field_t), sequence)


def pure(head: Anatomy, name: str) -> np.ndarray:
    share = head.density / head.density.sum(axis=0).clip(1e-6)
    return share[NAMES.index(name)] > 0.9999


def test_same_seed_same_bits_another_seed_another_head(head: Anatomy) -> None:
    again, other = (anatomy(np.random.default_rng(seed), 12, 64, 1.0) for seed in (1, 2))
    np.testing.assert_array_equal(again.density, head.density)
    np.testing.assert_array_equal(again.scale, head.scale)
    assert np.abs(other.density - head.density).mean() > 0.005
    np.testing.assert_array_equal(shown(again, T1, noise=0.02, bias=1), shown(head, T1, noise=0.02, bias=1))
    assert (shown(head, T1, seed=3, noise=0.02) != shown(head, T1, noise=0.02)).all()


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = anatomy(np.random.default_rng(1), 1, 32, 0.5).density
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    np.testing.assert_array_equal(anatomy(np.random.default_rng(1), 1, 32, 0.5).density, first)


def test_shapes_types_and_shares(head: Anatomy) -> None:
    assert head.density.shape == (len(NAMES), 12, 64, 64)
    assert head.density.dtype == np.float32
    assert shown(head, T1).dtype == np.complex64
    assert shown(head, T1).shape == (12, 64, 64)
    assert head.density.min() >= 0
    inside = head.density.sum(axis=0)[:, 30:34, 30:34]
    np.testing.assert_allclose(inside, 1, atol=0.15)  # up to the texture of proton density
    assert not head.density[:, :, :2].any()  # air above the forehead
    assert not head.density[..., :2].any()


def test_every_tissue_of_a_brain_is_there(head: Anatomy) -> None:
    share = head.density.sum(axis=(1, 2, 3)) / head.density.sum()
    assert (share > 0).all()
    brain = {name: share[NAMES.index(name)] for name in ("grey", "white", "csf")}
    assert min(brain["grey"], brain["white"]) > 0.15
    assert 0.03 < brain["csf"] < 0.3


def test_lesions_are_as_probable_as_asked_and_change_nothing_else() -> None:
    without, certain = (anatomy(np.random.default_rng(4), 4, 32, p) for p in (0.0, 1.0))
    lesion = [NAMES.index("lesion"), NAMES.index("oedema")]
    assert not without.density[lesion].any()
    assert certain.density[lesion].any()
    untouched = ~certain.density[lesion].any(axis=0)
    np.testing.assert_array_equal(certain.density[:, untouched], without.density[:, untouched])


def test_the_head_is_the_same_at_any_resolution() -> None:
    fine, coarse = (anatomy(np.random.default_rng(4), 1, size, 0.0).density[:, 0] for size in (128, 64))
    averaged = fine.reshape(len(NAMES), 64, 2, 64, 2).mean(axis=(2, 4))
    assert np.abs(averaged - coarse).mean() < 0.005


def test_spin_echo_against_the_bloch_equations_step_by_step() -> None:
    """Magnetisation followed through 90 - TE/2 - 180 - TE/2 (- inversion - TI) until it repeats."""
    t1, t2, pd = 900.0, 80.0, 0.7

    def recover(m: float, time: float) -> float:
        return 1 - (1 - m) * np.exp(-time / t1)

    for sequence in (Sequence(500, 20), Sequence(3000, 100), Sequence(2500, 60, 300.0), Sequence(9000, 110, 2400.0)):
        ready = 1.0
        for _ in range(50):
            ti = sequence.ti or 0.0
            rest = recover(-recover(0.0, sequence.te / 2), sequence.tr - ti - sequence.te / 2)
            ready = rest if sequence.ti is None else recover(-rest, ti)
        assert signal(pd, t1, t2, sequence) == pytest.approx(pd * ready * np.exp(-sequence.te / t2), rel=1e-9)


def test_known_values() -> None:
    assert signal(1, 1000, 100, Sequence(1e6, 100)) == pytest.approx(np.exp(-1))
    assert signal(1, 1000, 1e9, Sequence(1000, 1e-6)) == pytest.approx(1 - np.exp(-1))
    assert signal(1, 1000, 1e9, Sequence(1e6, 1e-6, 1e-6)) == pytest.approx(-1)
    assert nulling_time(1000, 1e6, 10) == pytest.approx(1000 * np.log(2))
    assert relaxation_times("white", 1.0) == (583.0, 69.0)
    assert relaxation_times("white", 3.0)[0] == pytest.approx(887, abs=1)  # Rooney's law: 0.583 s * 3^0.382
    assert relaxation_times("grey", 1.5)[0] == pytest.approx(1190, abs=10)  # cortex; 998 ms is internal grey matter
    assert relaxation_times("csf", 0.3) == relaxation_times("csf", 7.0)


@pytest.mark.parametrize("field_t", [0.3, 1.5, 3.0, 7.0])
def test_contrasts_look_as_a_radiologist_expects(field_t: float) -> None:
    def order(sequence: Sequence, *names: str) -> list[str]:
        return sorted(names, key=lambda name: -abs(tissue(name, field_t, sequence)))

    assert order(T1, "csf", "grey", "white", "fat") == ["fat", "white", "grey", "csf"]
    assert order(T2, "white", "grey", "csf", "lesion") == ["csf", "lesion", "grey", "white"]
    assert order(Sequence(3000, 15), "white", "grey") == ["grey", "white"]
    assert order(FLAIR, "csf", "white", "grey", "lesion") == ["lesion", "grey", "white", "csf"]
    assert tissue("csf", field_t, FLAIR) == pytest.approx(0, abs=1e-12)


def test_field_and_times_change_the_contrast() -> None:
    def ratio(field_t: float, sequence: Sequence) -> float:
        return tissue("white", field_t, sequence) / tissue("grey", field_t, sequence)

    assert abs(ratio(0.3, T1) - ratio(3.0, T1)) > 0.02
    assert ratio(1.5, Sequence(3000, 8)) < 1 < ratio(1.5, T1)
    assert ratio(1.5, Sequence(4500, 95)) < ratio(1.5, Sequence(4500, 20)) - 0.1
    assert tissue("csf", 1.5, Sequence(9000, 110, 1500.0)) < -0.1


def test_pixels_of_one_tissue_have_its_signal_in_every_contrast(head: Anatomy) -> None:
    for name in ("white", "csf", "fat"):
        where = pure(head, name)
        assert where.any()
        index = NAMES.index(name)
        for sequence in (T1, T2):
            pd, t1, t2 = np.array([phantom.TISSUES[name][0], *relaxation_times(name, 1.5)]) * head.scale[index]
            expected = head.density[index][where] * signal(pd, t1, t2, sequence)
            np.testing.assert_allclose(np.abs(shown(head, sequence))[where], expected, rtol=0.02)


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_in_the_air_is_what_was_asked(head: Anatomy, noise: float) -> None:
    air = shown(head, T2, noise=noise)[head.density.sum(axis=0) == 0]
    rows = [phantom.TISSUES[name][0] for name in ("grey", "white")]
    brain = [
        signal(*(np.array([pd, *relaxation_times(name, 1.5)]) * head.scale[NAMES.index(name)]), T2)
        for pd, name in zip(rows, ("grey", "white"), strict=True)
    ]
    for part in (air.real, air.imag):
        assert part.std() == pytest.approx(noise * np.mean(brain), rel=0.05)
        assert abs(part.mean()) < 0.1 * part.std()


def test_bias_is_smooth_and_its_strength_is_the_setting(head: Anatomy) -> None:
    ratio = {}
    inside = head.density.sum(axis=0) > 0.5
    for bias in (0.0, 0.5, 1.0):
        gain = np.abs(shown(head, T2, bias=bias))[inside] / np.abs(shown(head, T2))[inside].clip(1e-9)
        ratio[bias] = np.log(gain[np.abs(shown(head, T2))[inside] > 1e-3])
    assert not ratio[0.0].any()
    np.testing.assert_allclose(ratio[1.0], 2 * ratio[0.5], atol=1e-3)
    assert 0.02 < ratio[1.0].std() < 0.6


def test_phase_and_anatomy_are_smooth_over_slices() -> None:
    head = anatomy(np.random.default_rng(8), slices=13, size=32, lesions=0.0)  # 5 mm apart
    steps = np.abs(np.diff(head.density.astype(float), axis=1)).mean()
    across = np.abs(head.density[:, 0] - head.density[:, -1]).mean()
    assert steps < 0.75 * across
    images = shown(head, T2)
    strong = np.abs(images[1:]) * np.abs(images[:-1]) > 1e-3
    assert np.abs(np.angle(images[1:] * images[:-1].conj())[strong]).max() < 0.5
    assert np.abs(images.imag).max() > 0.01
