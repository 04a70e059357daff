"""NIfTI files: magnitude volumes, complex where a phase file lies beside them."""

import gzip
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedsim.core.errors import InputError
from fedsim.data.chosen import Choice, Names, check_number, label, numbers
from fedsim.data.discovery import fetched
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume

_RADIANS = {"radians": 1.0, "milliradians": 1e-3, "siemens": np.pi / 4096}
"""One unit of a phase file [rad]."""
_KIND = re.compile(r"(?i)(?<![a-z0-9])(magnitude|mag|phase|ph)(?![a-z0-9])")
_IXI = re.compile(r"(IXI\d+)-(Guys|HH|IOP)-")
_Key = tuple[Path, str, int]
"""Folder, name and series number; the name without its number and without words for magnitude and phase."""


class Nifti(FileSource):
    """One volume per magnitude file or folder of 2-D slices, turned upright in radiological convention.

    Slices keep the file's order. Rows run from head to foot (axial slices: front to back), columns to the patient's
    left (sagittal slices: to the back). Phase files are never volumes.
    """

    format: Literal["nifti"] = Field("nifti", description="NIfTI files (.nii, .nii.gz).")
    contrast: Contrast = Field(
        None,
        description="Part of the file names to take, between separators: t1, t1ce, t2, flair (BraTS), t1n, t1c, t2w, "
        "t2f (BraTS 2023), T1 (IXI), e1 (an echo), and so on: one, a list, or null for all.",
    )
    center: Literal["Guys", "HH", "IOP"] | None = Field(None, description="Hospital of the IXI files to take.")
    phase: Literal["auto", "none", "radians", "milliradians", "siemens"] = Field(
        "auto",
        description="Unit of the phase files: auto (from the range, if there are any), none (use magnitudes alone), "
        "radians, milliradians, or siemens (4096 is pi); with a unit given every magnitude needs its phase.",
    )
    axis: Literal[0, 1, 2] = Field(2, description="The file's slice axis.")
    slices: tuple[Annotated[int, Field(ge=0)], int] | None = Field(
        None, description="[start, stop): the slices to take of each volume, in the file's order; null for all."
    )

    volume: Literal["all"] | Choice = Field(
        None, description="Volume of 4-D files, from 0, or by its name in `volume_names`; a list or all reads several."
    )
    volume_names: Names = Field({}, description="Names of the volumes of 4-D files, such as {0: FLAIR, 1: T1}.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.volume != "all":
            numbers(self.volume, self.volume_names)
        return self

    @model_validator(mode="after")
    def _some_slices(self) -> Self:
        if self.slices and self.slices[0] >= self.slices[1]:
            raise ValueError(f"slices {list(self.slices)} takes none: [start, stop] needs start < stop")
        return self

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.nii and .nii.gz."""
        return (".nii", ".nii.gz")

    def files(self, root: Path) -> list[Path]:
        """The magnitude files of the wanted contrasts, each followed by its phase file."""
        return fetched([file for pair in self._pairs(root) for file in pair if file])

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per magnitude file and number in it, or folder of 2-D slices, in natural order of the files."""
        for pairs in self._stacks(root):
            file = pairs[0][0]
            who = self.who(file, root)
            name, origin = (safe_name(stem(file)), file) if len(pairs) == 1 else (self.folder(file, root), file.parent)
            for number in self._numbers(file):
                images = np.concatenate([self._images(*pair, number) for pair in pairs])
                contrast = label("volume", number, self.volume_names) or self._kind(file)
                ending = contrast.replace("volume ", "v") if number is not None else ""
                full = safe_name("_".join(filter(None, [name, ending])))
                yield Volume(who, full, images, origin.relative_to(root).as_posix(), contrast=contrast)

    def _stacks(self, root: Path) -> list[list[tuple[Path, Path | None]]]:
        """The files of each volume: one, or all 2-D slices of one size in a folder, unless every file is a subject."""
        stacks: dict[tuple[object, ...], list[tuple[Path, Path | None]]] = {}
        for file, phase in self._pairs(root):
            shape = _shape(file)
            slices = len(shape) == 2 and self.subject != "file"
            stacks.setdefault((*self.together(file, root), shape) if slices else (file,), []).append((file, phase))
        return list(stacks.values())

    def _numbers(self, file: Path) -> list[int | None]:
        """Which volumes of a 4-D file to read; None for a file with a single volume.

        Raises:
            InputError: there are several, and the key `volume` does not say which.
        """
        shape = _shape(file)
        with reading(file, "a NIfTI file"):
            if len(shape) < 4:
                return [None]
            if len(shape) > 4:
                raise InputError(f"is {len(shape)}-D {shape}; a volume (x, y, z) or volumes (x, y, z, n) are needed")
            if self.volume is None:
                raise InputError(
                    f"is 4-D {shape}; set volume to one of 0 to {shape[3] - 1}, to a list of them, or to all"
                )
            if self.volume == "all":
                return list(range(shape[3]))
            wanted = numbers(self.volume, self.volume_names)
            for number in wanted:
                check_number(number, shape[3], "volume")
            return [*wanted]

    def _pairs(self, root: Path) -> list[tuple[Path, Path | None]]:
        found = self.matching(root)
        phases = {_key(file): file for file in found if _is_phase(file)}
        magnitudes = {file: stem(file) for file in found if not _is_phase(file) and self._is_here(file)}
        if not magnitudes:
            kind = f"IXI file of {self.center}" if self.center else "magnitude file"
            raise InputError(f"{root / self.path}: holds no {kind} among {len(found)} NIfTI files; set path or center")
        picked = pick(magnitudes, self.contrast, _has_part, root / self.path)
        keys = {_key(file) for file in magnitudes}
        return [(file, self._partner(file, phases, keys)) for file in picked]

    def _is_here(self, file: Path) -> bool:
        ixi = _IXI.match(file.name)
        return self.center is None or (ixi is not None and ixi[2] == self.center)

    def _partner(self, file: Path, phases: dict[_Key, Path], magnitudes: set[_Key]) -> Path | None:
        """The phase file of the same name and series number, or of the next number unless that is a magnitude file."""
        if self.phase == "none":
            return None
        folder, name, number = own = _key(file)
        following = (folder, name, number + 1)
        phase = phases.get(own) or (None if following in magnitudes else phases.get(following))
        if phase is None and self.phase != "auto":
            raise InputError(f"{file}: has no phase file beside it; add one named like it with _ph, or set phase: auto")
        return phase

    def _kind(self, file: Path) -> str:
        """The wanted contrast that the file's name contains; else the last of several words of the name."""
        asked = [self.contrast] if isinstance(self.contrast, str) else self.contrast or []
        parts = re.split(r"[^A-Za-z0-9]+", stem(file))
        last = parts[-1] if len(parts) > 1 and not parts[-1].isdecimal() else ""
        return next((one for one in asked if _has_part(stem(file).lower(), one.lower())), last)

    def _images(
        self, file: Path, phase: Path | None, number: int | None
    ) -> NDArray[np.float32] | NDArray[np.complex64]:
        """Upright images (slices, H, W)."""
        values, affine = _load(file, number)
        if phase:
            angles, _ = _load(phase, number)
            if angles.shape != values.shape:
                raise InputError(f"{phase}: is {angles.shape}, but its magnitude {file.name} is {values.shape}")
            with reading(phase, "a phase image"):
                values = values * np.exp(1j * angles * np.float32(_RADIANS[_unit(angles, self.phase)]))
        with reading(file, "an affine that maps indices to positions"):
            return self._chosen(_upright(values, affine, self.axis))

    def _chosen(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.slices is None:
            return images
        if self.slices[1] > len(images):
            raise InputError(f"has {len(images)} slices along axis {self.axis}; slices {list(self.slices)} needs more")
        return images[slice(*self.slices)]


_orientation: Callable[[NDArray[np.float64]], NDArray[np.float64]] = nibabel.io_orientation
"""(3, 2) of an affine: for each file axis the patient axis (right, anterior, superior) and its direction, 1 or -1."""


def _has_part(name: str, part: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(part)}(?![a-z0-9])", name) is not None


def _is_phase(file: Path) -> bool:
    return re.search(r"(?i)_ph$|(?<![a-z0-9])phase(?![a-z0-9])", stem(file)) is not None


def _key(file: Path) -> _Key:
    number, name = re.fullmatch(r"(\d*)(.*)", stem(file)).groups()  # type: ignore[union-attr]  # it matches any name
    return file.parent, re.sub(r"[_-]+", "_", _KIND.sub("", name)).strip("_"), int(number or 0)


def _shape(file: Path) -> tuple[int, ...]:
    """(x, y), (x, y, z) or more, without trailing axes of one beyond z."""
    with reading(file, "a NIfTI file"):
        image: Any = nibabel.load(file)
        return tuple(image.shape[:3]) + tuple(n for n in image.shape[3:] if n > 1)


def _load(file: Path, number: int | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values (x, y, z), float32 or complex64, with the file's slope and intercept applied, and the affine.

    Reads volume `number` of a 4-D file; a 2-D file has z = 1.
    """
    shape = (*_shape(file), 1)[:3] if number is None else _shape(file)
    with reading(file, "a NIfTI file"):
        image: Any = nibabel.load(file)
        afford(file, shape, image.get_data_dtype().itemsize)
        values = np.asanyarray(image.dataobj).reshape(shape)
        if values.dtype.kind not in "iufc":
            raise InputError(f"holds {values.dtype} values; real or complex numbers are needed")
        if file.suffix.lower() == ".gz":
            _check_end(file, image.dataobj.offset + math.prod(shape) * image.get_data_dtype().itemsize)
        values = values if number is None else values[..., number]
        return values.astype(np.complex64 if values.dtype.kind == "c" else np.float32), image.affine


def _check_end(file: Path, size: int) -> None:
    """Read a compressed file to its end, where the checksum is; nibabel stops before it and would not notice damage.

    Raises:
        InputError: the file holds far more than the `size` bytes of its header.
    """
    with gzip.open(file) as stream:
        while chunk := stream.read(2**20):
            size -= len(chunk)
            if size < -(2**24):
                raise InputError("has far more data than its volume needs")


def _unit(phase: NDArray[np.float32], unit: str) -> str:
    """`unit`, or for auto the unit with a range that holds the phase."""
    if unit != "auto":
        return unit
    low, high = float(phase.min()), float(phase.max())
    peak = max(-low, high)
    if peak <= 3.2:
        return "radians"
    if peak > 4096 or low >= 0:
        raise InputError(f"phase from {low:g} to {high:g} has an unknown unit; set phase to its unit, or to none")
    return "milliradians" if peak <= 3200 else "siemens"


def _upright(values: NDArray[Any], affine: NDArray[np.float64], axis: int) -> NDArray[Any]:
    """(slices, H, W) from (x, y, z), oriented as the class says; each file axis is taken for the closest patient axis.

    Raises:
        InputError: the affine is singular.
    """
    nearest: NDArray[np.float64] = _orientation(affine)
    if not np.isfinite(nearest).all():
        raise InputError("its affine is singular; write one that maps the axes to the patient")
    turned = np.flip(values, tuple(a for a in range(3) if a != axis and nearest[a, 1] > 0))
    in_plane = sorted({0, 1, 2} - {axis}, key=lambda a: -float(nearest[a, 0]))
    return np.ascontiguousarray(turned.transpose(axis, *in_plane))
