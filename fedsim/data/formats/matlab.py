"""MATLAB files of version 5 or 7.3 (HDF5), with one numeric array each."""

import math
import os.path
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.core.section import Text
from fedsim.data.axes import Axes, arranged
from fedsim.data.formats import mat5
from fedsim.data.kspace import KSpaceSource, RawVolume, centred, looks_like_kspace, truth
from fedsim.data.names import safe_name, stem
from fedsim.data.reading import afford, one_line, reading
from fedsim.data.source import Volume
from fedsim.data.subjects import Subject, apart

_EXPECTED = "a MATLAB file of version 5 or 7.3"
_NUMERIC = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_KSPACE = re.compile(r"(?i)k[-_]?(sp|data|full|raw|cart)|raw[-_]?data|^(k|ks|kt|raw)$")
_PATIENT = re.compile(r"(?i)(^|/)(pid|(patient|subject)[-_]?(id|name|number)?)$")


@dataclass(frozen=True, kw_only=True)
class _Array:
    """One array in a file, not read yet."""

    file: Path
    name: str
    """Name; struct/field within a struct."""
    shape: tuple[int, ...]
    """As MATLAB counts."""
    is_text: bool


class Matlab(KSpaceSource):
    """One volume per file, from an array (H, W, slices) or (H, W), or as `axes` says; complex arrays stay complex.

    Unless every file is a subject, single images of one subject with the same size are the slices of one volume, in
    natural order. With `subject: auto`, the subject is what the file names (PID, patient_id), else the file, or for
    single images their folder. k-space, recognised by its name, is transformed to images, one of each coil.
    """

    format: Literal["matlab"] = Field("matlab", description="MATLAB files (.mat), version 5 or 7.3.")
    variable: Text | None = Field(
        None,
        description="Name of the array, struct/field within a struct; null: the only numeric one that is not a vector.",
    )
    domain: Literal["auto", "image", "kspace"] = Field(
        "auto",
        description="What the array holds: image or kspace; auto: by its name (kspace, ksp, kdata, ...).",
    )
    axes: Axes = Field(
        None,
        description="The array's axes, one letter each: h and w of the image, s for slices, repetitions or phases (any "
        "number), c for coils, such as hwcs; null: hws. k-space of three or more axes needs it.",
    )

    record: ClassVar[str] = "the patient in the file"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.mat alone."""
        return (".mat",)

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per file, or per subject if its files are single images, in natural order of the first files."""
        for who, arrays in self._subjects(root).items():
            one_size = len({array.shape for array in arrays}) == 1 and len(arrays[0].shape) == 2
            if len(arrays) > 1 and one_size and self.subject != "file":
                origin = Path(os.path.commonpath([array.file.parent for array in arrays]))
                images = np.concatenate([self._images(array) for array in arrays])
                yield Volume(who, safe_name(origin.resolve().name), images, origin.relative_to(root).as_posix())
                continue
            for array in arrays:
                name = safe_name(stem(array.file))
                yield Volume(who, name, self._images(array), array.file.relative_to(root).as_posix())

    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of each file that holds any."""
        for file in self.files(root):
            array, _ = self._array(file)
            with reading(file, _EXPECTED):
                values = self._values(array)
                kspace = centred(values) if self._is_kspace(array, values) else values[:0]
            if len(kspace):
                yield RawVolume(safe_name(stem(file)), kspace.shape[-2:], iter(kspace))

    def _subjects(self, root: Path) -> dict[Subject, list[_Array]]:
        subjects: dict[Subject, list[_Array]] = {}
        files = self.files(root)
        alone = apart(files)
        for file in files:
            array, patient = self._array(file)
            who = self.who(file, root, patient, "" if len(array.shape) == 2 else alone[file])
            subjects.setdefault(who, []).append(array)
        return subjects

    def _array(self, file: Path) -> tuple[_Array, str]:
        """The array to read, and the patient that the file names, if any.

        Raises:
            InputError: it is missing, not numeric, has an unexpected rank, or is one of several candidates.
        """
        with reading(file, _EXPECTED):
            found = {array.name: array for array in _arrays(file)}
            arrays = {name: array.shape for name, array in found.items() if not array.is_text}
            images = [name for name, shape in arrays.items() if sorted(shape)[-2] > 1]
            images = [name for name in images if "/" not in name] or images
            name = self.variable or (images[0] if len(images) == 1 else "")
            if name not in arrays:
                lacks = f"no numeric array {name}" if name else f"{len(images)} arrays that may be images"
                there = ", ".join(f"{one_line(name)} {shape}" for name, shape in arrays.items()) or "none"
                raise InputError(f"has {lacks}; set variable to one of its numeric arrays: {there}")
            most = len(self.axes) if self.axes else 3
            if not 2 <= len(arrays[name]) <= most:
                wanted = f"axes {self.axes}" if self.axes else "(H, W) or (H, W, slices)"
                raise InputError(f"array {name} is {arrays[name]}; {wanted} is needed: set axes, such as hwcs")
            afford(file, arrays[name], 8)
            patient = next(
                (one for one in found.values() if _PATIENT.search(one.name) and math.prod(one.shape) <= 64), None
            )
            return found[name], _text(patient) if patient else ""

    def _images(self, array: _Array) -> NDArray[np.float32] | NDArray[np.complex64]:
        """Images (slices, H, W), or (slices, coils, H, W) complex."""
        with reading(array.file, _EXPECTED):
            values = self._values(array)
            if self._is_kspace(array, values):
                size = values.shape[-2:]
                images: NDArray[Any] = np.stack([truth(kspace, size) for kspace in centred(values)])
                return images
            if values.shape[1] == 1:
                return values[:, 0]
            return values if np.iscomplexobj(values) else np.linalg.norm(values, axis=1)

    def _values(self, array: _Array) -> NDArray[Any]:
        """(slices, coils, H, W), float32 or complex64; one coil if there is no coil axis."""
        values = (_values_v73 if h5py.is_hdf5(array.file) else _values_v5)(array)
        return arranged(values.reshape(array.shape), self.axes or "hws")  # MATLAB drops trailing axes of size one

    def _is_kspace(self, array: _Array, values: NDArray[Any]) -> bool:
        """Whether the array is k-space, by the key `domain` or else by its name.

        Raises:
            InputError: it is k-space but real, or with unknown axes; or it looks like k-space under another name.
        """
        named = _KSPACE.search(array.name.rpartition("/")[2]) is not None
        if self.domain == "image" or (self.domain == "auto" and not named):
            if self.domain == "auto" and values.dtype.kind == "c" and looks_like_kspace(values):
                raise InputError(f"array {array.name} looks like k-space; set domain to kspace or image")
            return False
        if values.dtype.kind != "c":
            raise InputError(f"array {array.name} is real, but k-space is complex; set domain: image if it has images")
        if self.axes is None and len(array.shape) > 2:
            raise InputError(
                f"array {array.name} {array.shape} is k-space; name its axes, such as axes: hwc (coils last) "
                "or axes: hws (slices last), or set domain: image if it holds images"
            )
        return True


def _arrays(file: Path) -> list[_Array]:
    """The numeric arrays and texts of a file; cells, arrays of structs, and objects are never read."""
    if not h5py.is_hdf5(file):
        return [_Array(file=file, name=one.name, shape=one.shape, is_text=one.is_text) for one in mat5.arrays(file)]
    found: list[_Array] = []

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and not name.startswith("#") and _kind(item):
            shape = item.shape[::-1]  # HDF5 reverses the axes
            found.append(_Array(file=file, name=name, shape=shape, is_text=_kind(item) == "char"))

    with h5py.File(file, "r", locking=False) as hdf:
        hdf.visititems(look)
    return found


def _kind(item: h5py.Dataset) -> str:
    """numeric, char, or empty for neither."""
    kind = item.attrs.get("MATLAB_class", b"double")
    name = kind.decode() if isinstance(kind, bytes) else str(kind)
    if name == "char" and item.dtype.kind in "ui":
        return "char"
    numbers = item.dtype.kind in "iufc" or item.dtype.names == ("real", "imag")
    return "numeric" if numbers and name in _NUMERIC else ""


def _text(array: _Array) -> str:
    values = (_values_v73 if h5py.is_hdf5(array.file) else _values_v5)(array).ravel(order="F")
    whole = "".join(chr(int(code)) for code in values) if array.is_text else " ".join(f"{value:g}" for value in values)
    return one_line(whole)


def _values_v5(array: _Array) -> NDArray[Any]:
    same = [one for one in mat5.arrays(array.file) if (one.name, one.shape) == (array.name, array.shape)]
    return same[0].values()


def _values_v73(array: _Array) -> NDArray[Any]:
    with h5py.File(array.file, "r", locking=False) as hdf:
        afford(array.file, hdf[array.name].chunks or (), 16)
        stored: NDArray[Any] = hdf[array.name][()].T
    return stored["real"] + 1j * stored["imag"] if stored.dtype.names else stored


def load(file: Path, variable: str | None = None) -> NDArray[Any]:
    """The named or the only numeric array of a MATLAB file.

    Raises:
        InputError: there is no such array, it is one of several, or it is larger than the file can hold.
    """
    found = {array.name: array for array in _arrays(file) if not array.is_text}
    name = variable or (next(iter(found)) if len(found) == 1 else "")
    if name not in found:
        there = ", ".join(f"{one_line(name)} {array.shape}" for name, array in found.items()) or "none"
        raise InputError(f"has no array {name or 'alone'}; set variable to one of its numeric arrays: {there}")
    afford(file, found[name].shape, 8)
    return (_values_v73 if h5py.is_hdf5(file) else _values_v5)(found[name])
