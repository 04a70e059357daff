"""Undersampling masks: small seeded classes, each also the workload section that configures it.

One-dimensional masks sample whole readouts; the last axis is the phase encoding. Nominal and measured acceleration
differ (a "3x" equispaced mask with an 8 % centre is really 2.6x), so results always carry the measured one.
"""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from fedsim.core.errors import InputError
from fedsim.core.extension import Extension, blamed
from fedsim.mri.fft import mirrored
from fedsim.mri.poisson import poisson_disc

BoolArray = NDArray[np.bool_]


def measured_acceleration(mask: BoolArray) -> float:
    """Number of grid points divided by the number of samples measured."""
    return mask.size / int(mask.sum())


def effective_acceleration(mask: BoolArray) -> float:
    """Number of grid points divided by the number of samples known in an image without phase.

    Its k-space is conjugate symmetric, so a sample that is not measured is known if its partner is: a mask that looks
    like 4x may leave out half as much.
    """
    return measured_acceleration(mask | mirrored(torch.from_numpy(mask)).numpy())


class Sampling(Extension):
    """The base class of everything that says where k-space is measured."""

    tag: ClassVar[str] = "kind"
    around: ClassVar[frozenset[str]] = frozenset({"drawn"})

    kind: str
    per: Literal["volume", "site"] = Field("volume", description="One mask for each volume, or one for the whole site.")

    @property
    def nominal(self) -> str:
        """The acceleration that it is meant to have, as text; "-" if it says nothing about it."""
        return "-"

    @property
    def content(self) -> str:
        """A digest of the files that it was read from; empty without any."""
        return ""

    def at(self, root: Path) -> Self:
        """This mask with the files that it names below `root` (federation.root) read.

        Raises:
            InputError: one cannot be read.
        """
        return self

    @abstractmethod
    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """A mask (H, W), True where k-space is measured."""

    def drawn(self, shape: tuple[int, int], rng: np.random.Generator, where: str) -> BoolArray:
        """The result of `sample`, after checking that it is a mask.

        Args:
            shape: H, W.
            rng: Generator of the volume or the site.
            where: Owner of the mask, for messages.

        Raises:
            InputError: `sample` raises, returns another shape or type, or measures nothing.
        """
        with blamed(self, where, "sample"):
            mask = self.sample(shape, rng)
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == tuple(shape)):
            found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InputError(f"{where}: sample of {self.label} must return an array of bool {shape}, not {found}")
        if not mask.any():
            remedy = f"sample of {self.label} must set some point" if self.foreign else "raise mask.center_fraction"
            raise InputError(f"{where} samples nothing; {remedy}")
        return mask


class Mask(Sampling):
    """The base class of masks with an acceleration, yours included."""

    acceleration: float = Field(4.0, gt=1, le=64, description="Nominal acceleration: the measured one is reported.")
    center_fraction: float = Field(
        0.08, ge=0, lt=1, description="Fraction of each undersampled axis that is fully sampled around the centre."
    )

    @property
    def nominal(self) -> str:
        """The nominal acceleration."""
        return f"{self.acceleration:g}"

    def _check_centre(self, fraction: float) -> None:
        if fraction * self.acceleration >= 1:
            raise ValueError(
                f"impossible mask: its centre alone ({fraction:.3g} of k-space) is at least 1/acceleration "
                f"({1 / self.acceleration:.3g}); lower center_fraction or acceleration"
            )

    def _centre(self, size: int) -> slice:
        width = round(size * self.center_fraction)
        start = (size - width + 1) // 2  # the same centre as in fastMRI, for odd sizes too
        return slice(start, start + width)


class _LineMask(Mask):
    """Base class of masks of whole readouts: the same columns in every row."""

    @model_validator(mode="after")
    def _possible(self) -> "_LineMask":
        self._check_centre(self.center_fraction)
        return self

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        columns = self._columns(shape[1], rng)
        columns[self._centre(shape[1])] = True
        return np.broadcast_to(columns, shape).copy()

    @abstractmethod
    def _columns(self, size: int, rng: np.random.Generator) -> BoolArray:
        """The columns sampled outside the centre, (size,)."""

    def _outside_centre(self, size: int) -> tuple[NDArray[np.intp], float]:
        """Columns outside the centre, and the number of them to sample for this acceleration (not rounded)."""
        outside = np.setdiff1d(np.arange(size), np.arange(size)[self._centre(size)])
        return outside, max(0.0, size / self.acceleration - (size - len(outside)))


class Equispaced(_LineMask):
    """Every R-th readout from a random offset, plus the centre."""

    kind: Literal["equispaced"] = Field("equispaced", description="Kind of mask.")

    def _columns(self, size: int, rng: np.random.Generator) -> BoolArray:
        columns = np.zeros(size, dtype=bool)
        positions = rng.uniform(0, self.acceleration) + self.acceleration * np.arange(int(size / self.acceleration) + 1)
        columns[positions[positions < size].astype(int)] = True
        return columns


class Magic(_LineMask):
    """Every R-th readout, counted from the centre with another offset on either side, plus the centre, as in fastMRI.

    The conjugate of a sample is then never measured too, so an image without phase has all its samples twice as dense
    (Defazio, arXiv:1912.01101).
    """

    kind: Literal["magic"] = Field("magic", description="Kind of mask.")

    @field_validator("acceleration")
    @classmethod
    def _whole(cls, acceleration: float) -> float:
        if acceleration != round(acceleration):
            raise ValueError(f"must be a whole number for a magic mask, not {acceleration:g}")
        return acceleration

    def _columns(self, size: int, rng: np.random.Generator) -> BoolArray:
        step = round(self.acceleration)
        offset = int(rng.integers(step))
        above, below = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
        columns = np.zeros(size, dtype=bool)
        columns[size // 2 + above :: step] = True
        columns[size // 2 - 1 - below :: -step][: max(0, size // 2 - below)] = True
        return columns


class Random(_LineMask):
    """Each readout outside the centre with probability (N/R - n_low) / (N - n_low), as in fastMRI."""

    kind: Literal["random"] = Field("random", description="Kind of mask.")

    def _columns(self, size: int, rng: np.random.Generator) -> BoolArray:
        outside, wanted = self._outside_centre(size)
        return rng.random(size) < wanted / len(outside)


class CartesianVariableDensity(_LineMask):
    """N/R readouts, drawn without replacement with density (1 - |k| / k_max)^power."""

    kind: Literal["cartesian_vd"] = Field("cartesian_vd", description="Kind of mask.")
    power: float = Field(3.0, ge=0, le=10, description="Exponent of the decay from the centre; 0 is uniform.")

    def _columns(self, size: int, rng: np.random.Generator) -> BoolArray:
        outside, wanted = self._outside_centre(size)
        distance = np.abs(outside - size // 2) / (size / 2 + 1)
        columns = np.zeros(size, dtype=bool)
        columns[_weighted_draw(outside, (1 - distance) ** self.power, round(wanted), rng)] = True
        return columns


class _PointMask(Mask):
    """Base class of masks of single points; the centre is a rectangle."""

    @model_validator(mode="after")
    def _possible(self) -> "_PointMask":
        self._check_centre(self.center_fraction**2)
        return self


class Radial(_PointMask):
    """Equiangular spokes through the centre on the Cartesian grid, starting at a random angle."""

    kind: Literal["radial"] = Field("radial", description="Kind of mask.")

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """The fewest equiangular spokes that reach 1/acceleration of the grid."""
        turn = rng.uniform(0, 1)
        few, many = 1, 4 * max(shape)
        while few < many:  # bisection: coverage grows with the number of spokes
            middle = (few + many) // 2
            if self._spokes(shape, middle, turn).mean() >= 1 / self.acceleration:
                many = middle
            else:
                few = middle + 1
        return self._spokes(shape, few, turn)

    def _spokes(self, shape: tuple[int, int], count: int, turn: float) -> BoolArray:
        mask = np.zeros(shape, dtype=bool)
        mask[self._centre(shape[0]), self._centre(shape[1])] = True
        angle = np.pi * (np.arange(count) + turn)[:, None] / count
        reach = np.linspace(-1, 1, 4 * max(shape))[None, :] * np.hypot(*shape) / 2
        rows = np.rint(shape[0] // 2 + reach * np.sin(angle)).astype(int)
        columns = np.rint(shape[1] // 2 + reach * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        mask[rows[inside], columns[inside]] = True
        return mask


class Gaussian2D(_PointMask):
    """N/R points of the grid, drawn without replacement with a Gaussian density about the centre."""

    kind: Literal["gaussian2d"] = Field("gaussian2d", description="Kind of mask.")
    sigma: float = Field(0.2, gt=0, le=1, description="Standard deviation of the density, as a fraction of each axis.")

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """Exactly N/R points, those of the centre included."""
        mask = np.zeros(shape, dtype=bool)
        mask[self._centre(shape[0]), self._centre(shape[1])] = True
        rows, columns = np.meshgrid(*(np.arange(n) / n - (n // 2) / n for n in shape), indexing="ij")
        density = np.exp(-(rows**2 + columns**2) / (2 * self.sigma**2)).ravel()
        outside = np.flatnonzero(~mask)
        wanted = max(0, round(mask.size / self.acceleration) - int(mask.sum()))
        mask.ravel()[_weighted_draw(outside, density[outside], wanted, rng)] = True
        return mask


def _weighted_draw(
    items: NDArray[np.intp], weights: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    return rng.choice(items, size=count, replace=False, p=weights / weights.sum())


class Poisson(_PointMask):
    """N/R points that keep a distance from each other, which grows with that from the centre (Poisson disc)."""

    kind: Literal["poisson"] = Field("poisson", description="Kind of mask.")

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """Exactly N/R points, those of the centre included."""
        centre = self._centre(shape[0]), self._centre(shape[1])
        wanted = round(shape[0] * shape[1] / self.acceleration)
        return poisson_disc(shape, wanted, (centre[0].start, centre[0].stop), (centre[1].start, centre[1].stop),
                            int(rng.integers(2**63))).copy()  # fmt: skip
