"""All masks, distinguished by `kind`; among them those that are made of others, or lie in a file."""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr, SerializeAsAny, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Catalogue
from fedsim.core.files import absent
from fedsim.core.section import InsidePath, Text
from fedsim.data.formats import arrays, matlab
from fedsim.data.formats.hdf5 import Layout, opened
from fedsim.data.reading import reading
from fedsim.mri.masks import (
    BoolArray,
    CartesianVariableDensity,
    Equispaced,
    Gaussian2D,
    Magic,
    Mask,
    Poisson,
    Radial,
    Random,
    Sampling,
)

_EXPECTED = "a mask in .npy, .npz, .mat, .h5 or .hdf5"


class FileMask(Sampling):
    """A mask from a file: W readouts, (H, W) points, or a stack (masks, H, W) of which one is drawn.

    The last axis is the phase encoding; in MATLAB the stack comes last, (H, W, masks). True, or 1, is where k-space is
    measured. Its size must be that of the samples that are undersampled: with `matrix: native` the scan's own.
    """

    kind: Literal["file"] = Field("file", description="Kind of mask.")
    path: InsidePath = Field(description="File (.npy, .npz, .mat, .h5, .hdf5), relative to federation.root.")
    variable: Text | None = Field(None, description="Name of the array in the file; null: the only one.")
    _stored: tuple[tuple[int, ...], bytes] | None = PrivateAttr(None)
    """Shape (masks, H or 1, W) and values, one byte each."""

    @property
    def content(self) -> str:
        """A digest of the mask, once it has been read."""
        return hashlib.sha256(self._stored[1]).hexdigest()[:8] if self._stored else ""

    def at(self, root: Path) -> Self:
        """This mask, read from its file."""
        file = root / self.path
        if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
            raise InputError(f"mask.path: {file}: {absent(file) if not file.exists() else 'is no file of the root'}")
        with reading(file, _EXPECTED):
            masks = _stack(_array(file, self.variable))
        read = self.model_copy()
        read._stored = masks.shape, masks.tobytes()
        return read

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """The mask, or one of its stack.

        Raises:
            InputError: it has another size.
        """
        if self._stored is None:
            raise ValueError("the mask has not been read yet; call at(root) first")
        masks = np.frombuffer(self._stored[1], np.bool_).reshape(self._stored[0])
        if masks.shape[2] != shape[1] or masks.shape[1] not in (1, shape[0]):
            have = " x ".join(map(str, masks.shape[1:])) if masks.shape[1] > 1 else f"{masks.shape[2]} readouts"
            needs = f"{shape[0]} x {shape[1]}"
            raise InputError(
                f"mask.path: {self.path} has {have}, but {needs} samples are to be undersampled; set the site's matrix "
                "to the mask's size, or give a mask of that size"
            )
        return np.broadcast_to(masks[rng.integers(len(masks)) if len(masks) > 1 else 0], shape).copy()


def _array(file: Path, variable: str | None) -> NDArray[Any]:
    suffix = file.suffix.lower()
    if suffix in {".npy", ".npz"}:
        return arrays.load(file, variable)
    if suffix == ".mat":
        stored = matlab.load(file, variable)
        return np.moveaxis(stored, -1, 0) if stored.ndim == 3 else stored
    if suffix not in {".h5", ".hdf5"}:
        raise InputError(f"has the suffix {suffix or 'none'}; {_EXPECTED} is needed")
    with opened(file, _EXPECTED) as hdf:
        name = variable or (next(iter(hdf)) if len(hdf) == 1 else "mask")
        layout = Layout(name=name, axes=(1, 2, 3), kinds="biuf", words="numbers (W,), (H, W) or (masks, H, W)")
        found: NDArray[Any] = layout.find(file, hdf, _EXPECTED)[()]
    return found


def _stack(values: NDArray[Any]) -> BoolArray:
    """Masks (masks, H, W), or (1, 1, W) of readouts."""
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if not 1 <= values.ndim <= 3 or not values.size:
        raise InputError(f"has an array {values.shape}; a mask is (W,), (H, W) or (masks, H, W)")
    if not np.isin(values, (0, 1)).all():
        raise InputError("has other values than 0 and 1; a mask is 1 where k-space is measured and 0 elsewhere")
    stack = values.astype(bool).reshape((1,) * (3 - values.ndim) + values.shape)
    if not stack.any((1, 2)).all():
        raise InputError("has a mask without a single 1; each must measure something")
    return stack


_Drawn = Equispaced | Random | Magic | CartesianVariableDensity | Radial | Gaussian2D | Poisson | FileMask
_Inner = Annotated[_Drawn, Field(discriminator="kind")]


class PartialFourier(Sampling):
    """Only the first readouts, up to a fraction of them; of these all, or those of another mask."""

    kind: Literal["partial_fourier"] = Field("partial_fourier", description="Kind of mask.")
    fraction: float = Field(0.75, gt=0.5, lt=1, description="Fraction of the readouts up to which k-space is measured.")
    of: _Inner | None = Field(None, description="Mask of these readouts, such as {kind: equispaced}; null: all.")

    @property
    def nominal(self) -> str:
        """That of the other mask, and the fraction."""
        return f"{self.of.nominal if self.of else 1} x {1 / self.fraction:.3g}"

    @property
    def content(self) -> str:
        """That of the other mask."""
        return self.of.content if self.of else ""

    def at(self, root: Path) -> Self:
        """This mask with the file of the other one read."""
        return self.model_copy(update={"of": self.of.at(root)}) if self.of else self

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """The readouts up to a fraction of W, rounded up."""
        mask = self.of.sample(shape, rng) if self.of else np.ones(shape, dtype=bool)
        mask[:, math.ceil(self.fraction * shape[1]) :] = False
        return mask


class Mixed(Sampling):
    """For each volume one of several masks, drawn with equal probability: other accelerations, or other kinds."""

    kind: Literal["mixed"] = Field("mixed", description="Kind of mask.")
    masks: tuple[Annotated[_Drawn | PartialFourier, Field(discriminator="kind")], ...] = Field(
        min_length=2,
        description="The masks, such as [{kind: random, acceleration: 4}, {kind: magic}].",
    )

    @property
    def nominal(self) -> str:
        """Those of all masks."""
        return ", ".join(dict.fromkeys(mask.nominal for mask in self.masks))

    @property
    def content(self) -> str:
        """Those of all masks."""
        return " ".join(filter(None, (mask.content for mask in self.masks)))

    def at(self, root: Path) -> Self:
        """This mask with all files read."""
        return self.model_copy(update={"masks": tuple(mask.at(root) for mask in self.masks)})

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """A sample of one of the masks."""
        return self.masks[rng.integers(len(self.masks))].sample(shape, rng)


class Unread(Mask):
    """A user's mask, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
        """Not known."""
        raise InputError(f"mask.kind: {self.kind} is a user's own, whose code was not run")


_Known = _Drawn | PartialFourier | Mixed
MASKS = Catalogue(
    key="mask.kind", base=Sampling, unread=Unread, known=_Known.__args__, group="fedsim.masks", noun="mask"
)
"""Where a user's own masks are found."""

AnyMask = Annotated[SerializeAsAny[Annotated[_Known, Field(discriminator="kind")]], WrapValidator(MASKS.read), MASKS]
"""A known mask, or one of the user's own."""
