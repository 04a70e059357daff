"""Head-like phantoms: one random 3-D anatomy per subject, imaged in axial slices by a spin echo sequence.

`anatomy` is drawn from the subject's stream alone; `image` scans it by any sequence, at any field strength, and draws
phase, bias field and noise from the acquisition's own stream.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedsim.mri.head import COVERAGE, FIELD_OF_VIEW, Head, SmoothNoise, pixel_centres, slice_heights
from fedsim.mri.loops import ReceiveArray

__all__ = ["COVERAGE", "FIELD_OF_VIEW", "NAMES", "TISSUES", "Anatomy", "Sequence"]
__all__ += ["anatomy", "image", "nulling_time", "relaxation_times", "signal"]

# name: proton density relative to water, T1 at 1 T [ms], exponent of T1 in the field strength, T2 [ms].
# T1 = T1(1 T) * B0^exponent: cortical grey matter (1190 ms at 1.5 T) and white matter Rooney et al., Magn Reson Med
# 57:308 (2007), CSF constant; T2 of grey and white matter (3 T) Stanisz et al., Magn Reson Med 54:507 (2005); fat and
# muscle T1 (between 1.5 and 3 T) and T2 (fat 3 T, muscle 3 T) Gold et al., AJR 183:343 (2004). The deep nuclei lie
# between grey and white matter, with T2 shortened by iron. Other tissues and all proton densities are plausible values.
# T2 is taken as constant in B0.
TISSUES: dict[str, tuple[float, float, float, float]] = {
    "csf": (1.00, 4300.0, 0.0, 2000.0),
    "grey": (0.82, 1020.0, 0.376, 99.0),
    "white": (0.70, 583.0, 0.382, 69.0),
    "striatum": (0.80, 800.0, 0.376, 78.0),
    "thalamus": (0.77, 720.0, 0.376, 76.0),
    "pallidum": (0.74, 640.0, 0.376, 55.0),
    "lesion": (0.90, 1150.0, 0.30, 150.0),
    "oedema": (0.84, 950.0, 0.33, 125.0),
    "bone": (0.10, 700.0, 0.35, 1.0),
    "marrow": (0.55, 330.0, 0.36, 70.0),
    "muscle": (0.75, 988.0, 0.33, 32.0),
    "fat": (0.65, 248.0, 0.365, 133.0),
    "skin": (0.70, 800.0, 0.35, 35.0),
}
NAMES = tuple(TISSUES)


@dataclass(frozen=True)
class Sequence:
    """A spin echo, preceded by an inversion if `ti` is given."""

    tr: float
    """Repetition time [ms]."""
    te: float
    """Echo time [ms]."""
    ti: float | None = None
    """Inversion time [ms]."""


@dataclass(frozen=True)
class Anatomy:
    """One subject's head, independent of any sequence."""

    density: NDArray[np.float32]
    """(tissues, slices, size, size): each tissue's share of the pixel times its local proton density factor."""
    scale: NDArray[np.float64]
    """(tissues, 3): this subject's factors on proton density, T1 and T2."""


def relaxation_times(tissue: str, field_t: float) -> tuple[float, float]:
    """T1 and T2 [ms] of `tissue` at a field strength [T]."""
    _, t1, exponent, t2 = TISSUES[tissue]
    return float(t1 * field_t**exponent), t2


def signal(pd: float, t1: float, t2: float, sequence: Sequence) -> float:
    """Steady-state signal of a spin echo or an inversion recovery spin echo; negative where still inverted.

    Exact for one refocusing pulse at TE/2 and spoiled transverse magnetisation (Haacke, Brown, Thompson and Venkatesan,
    Magnetic Resonance Imaging: Physical Principles and Sequence Design, 1999, on spin echo and inversion recovery).

    Args:
        pd: proton density.
        t1: longitudinal relaxation time [ms].
        t2: transverse relaxation time [ms].
        sequence: its times.
    """
    echo = 2 * np.exp(-(sequence.tr - sequence.te / 2) / t1) - np.exp(-sequence.tr / t1)
    longitudinal = 1 - echo if sequence.ti is None else 1 - 2 * np.exp(-sequence.ti / t1) + echo
    return float(pd * longitudinal * np.exp(-sequence.te / t2))


def nulling_time(t1: float, tr: float, te: float) -> float:
    """The inversion time [ms] at which a tissue of this T1 gives no signal: where `signal` is zero."""
    return float(t1 * np.log(2 / (1 + 2 * np.exp(-(tr - te / 2) / t1) - np.exp(-tr / t1))))


def anatomy(rng: Generator, slices: int, size: int, lesions: float) -> Anatomy:
    """A random head on a grid; the same generator gives the same head at any `slices` and `size`.

    Args:
        rng: the subject's own stream, which alone determines the anatomy.
        slices: number of axial slices, evenly spread over COVERAGE.
        size: pixels along each edge of the field of view.
        lesions: probability of one lesion with oedema.
    """
    scale = 1 + np.clip(rng.normal(size=(len(NAMES), 3)), -2, 2) * np.array([0.015, 0.03, 0.03])
    head = Head(rng, lesions)
    density = np.zeros((len(NAMES), slices, size, size), np.float32)
    for index, height in enumerate(slice_heights(slices)):
        for name, share in head.tissues(float(height), size).items():
            density[NAMES.index(name), index] = share
    return Anatomy(density, scale)


def image(
    anatomy: Anatomy,
    sequence: Sequence,
    field_t: float,
    rng: Generator,
    noise: float,
    bias: float,
    array: ReceiveArray | None = None,
) -> NDArray[np.complex64]:
    """The image of the anatomy (slices, size, size), complex, in units of the signal of fully relaxed water.

    With an array, the images of its coils (slices, C, size, size).

    Args:
        anatomy: the subject's head.
        sequence: its times.
        field_t: field strength [T].
        rng: draws this acquisition's bias field, phase and noise.
        noise: standard deviation of real and imaginary part, relative to the mean of grey and white matter's signal.
        bias: strength of the smooth multiplicative bias field, 0 to 1; at 1 its standard deviation is about 30 %.
        array: what receives it; default one coil that sees everything alike.
    """
    signals = _signals(anatomy, sequence, field_t)
    level = noise * np.mean([abs(signals[NAMES.index(name)]) for name in ("grey", "white")])
    _, slices, size, _ = anatomy.density.shape
    sensitivity, phase, edge = SmoothNoise(rng, 90.0), SmoothNoise(rng, 110.0), pixel_centres(size)
    result = np.empty((slices, *(array.maps.shape[1:2] if array else ()), size, size), np.complex64)
    for index, height in enumerate(slice_heights(slices).tolist()):
        seen = np.einsum("t,tyx->yx", signals, anatomy.density[:, index])  # no BLAS: its bits vary with the threads
        seen = seen * np.exp(0.3 * bias * sensitivity.plane(height, edge))
        seen = seen * np.exp(1j * phase.plane(height, edge))
        if array is not None:
            result[index] = array.receive(seen, index, level, rng)
            continue
        static = rng.standard_normal((size, size, 2), dtype=np.float32).view(np.complex64)[..., 0]
        result[index] = seen + np.float32(level) * static
    return result


def _signals(anatomy: Anatomy, sequence: Sequence, field_t: float) -> NDArray[np.float32]:
    """(tissues,): the signal of each of this subject's tissues."""
    table = np.array([(TISSUES[name][0], *relaxation_times(name, field_t)) for name in NAMES]) * anatomy.scale
    return np.array([signal(pd, t1, t2, sequence) for pd, t1, t2 in table.tolist()], np.float32)
