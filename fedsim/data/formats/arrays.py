"""NumPy's .npy and .npz files: images or k-space, with axes in the order that the user names."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.core.section import Text
from fedsim.data.axes import Axes, arranged
from fedsim.data.kspace import KSpaceSource, RawVolume, centred, looks_like_kspace, truth
from fedsim.data.names import safe_name, stem
from fedsim.data.reading import afford, one_line, reading
from fedsim.data.source import Volume
from fedsim.data.subjects import apart

_EXPECTED = "a NumPy .npy or .npz file with one numeric array"
_AXES = {2: "hw", 3: "shw", 4: "schw"}
"""Order of an array's axes, by their number, unless the user names them."""
_Header = tuple[tuple[int, ...], bool, "np.dtype[Any]"]


class NumpyArrays(KSpaceSource):
    """One volume per file, from its array (H, W), (slices, H, W) or (slices, coils, H, W), or as `axes` says."""

    format: Literal["numpy"] = Field("numpy", description="NumPy's files (.npy, .npz).")
    variable: Text | None = Field(None, description="Name of the array in .npz files; null: the only one.")
    domain: Literal["auto", "image", "kspace"] = Field(
        "auto",
        description="What the array holds: image or kspace; auto: k-space if it is complex and concentrated in one "
        "place, as k-space is.",
    )
    axes: Axes = Field(
        None,
        description="The array's axes, one letter each: h (readout) and w (phase encoding) of the image, s for slices, "
        "repetitions or phases (any number), c for coils, such as cshw; null: hw, shw or schw, except that k-space of "
        "three axes needs it.",
    )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.npy and .npz."""
        return (".npy", ".npz")

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per file, in natural order of the files."""
        files = self.files(root)
        alone = apart(files)
        for file in files:
            who = self.who(file, root, "", alone[file])
            with reading(file, _EXPECTED):
                values, is_kspace = self._values(file)
                images = _of_coils(values)
                if is_kspace:
                    images = np.stack([truth(one, values.shape[-2:]) for one in values])
            yield Volume(who, safe_name(stem(file)), images, file.relative_to(root).as_posix())

    def raw(self, root: Path) -> Iterator[RawVolume]:
        """The k-space of each file that holds any."""
        for file in self.files(root):
            with reading(file, _EXPECTED):
                values, is_kspace = self._values(file)
            if is_kspace:
                yield RawVolume(safe_name(stem(file)), values.shape[-2:], iter(values))

    def _values(self, file: Path) -> tuple[NDArray[Any], bool]:
        """(slices, coils, H, W), and whether it is k-space, which is centred then.

        Raises:
            InputError: the array is missing, not numeric, or has axes of unknown meaning.
        """
        array = load(file, self.variable)
        order = self.axes or _AXES.get(array.ndim, "")
        if not order or not 2 <= array.ndim <= len(order) or 0 in array.shape:
            raise InputError(f"has an array {array.shape}; set axes to a letter for each of its axes, such as hwcs")
        values = arranged(array, order)
        is_complex = values.dtype.kind == "c"
        if self.domain == "image" or (self.domain == "auto" and not (is_complex and looks_like_kspace(values))):
            return values, False
        if not is_complex:
            raise InputError("has a real array, but k-space is complex; set domain: image if it has images")
        if self.axes is None and array.ndim == 3:
            raise InputError(f"has k-space {array.shape}; name its axes: axes: shw (slices) or axes: chw (coils)")
        return centred(values), True


def load(file: Path, variable: str | None = None) -> NDArray[Any]:
    """The numeric array of a .npy file, or the named or only one of a .npz file.

    Raises:
        InputError: there is no such array, it is not numeric, or it is larger than the file can hold.
    """
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            _check(file, _header(stream), "its array")
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        return array
    with zipfile.ZipFile(file) as archive:
        headers = {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
    planes = [name for name, (shape, _, _) in headers.items() if len(shape) > 1 or len(headers) == 1]
    name = variable or (planes[0] if len(planes) == 1 else "")
    if name not in headers:
        lacks = f"no array {name}" if name else f"{len(planes)} arrays that may be images"
        there = ", ".join(f"{one_line(one)} {shape}" for one, (shape, _, _) in headers.items()) or "none"
        raise InputError(f"has {lacks}; set variable to one of its arrays: {there}")
    _check(file, headers[name], name)
    with np.load(file, allow_pickle=False) as arrays:
        member: NDArray[Any] = arrays[name]
    return member


def _member(archive: zipfile.ZipFile, name: str) -> _Header:
    with archive.open(name) as stream:
        return _header(stream)


def _header(stream: IO[bytes]) -> _Header:
    """Shape, order and type of an array, before anything of it is read."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: _Header = read(stream)
    return header


def _check(file: Path, header: _Header, name: str) -> None:
    shape, _, dtype = header
    if dtype.kind not in "biufc":
        raise InputError(f"{one_line(name)} holds {one_line(str(dtype))}; real or complex numbers are needed")
    afford(file, shape, dtype.itemsize)


def _of_coils(values: NDArray[Any]) -> NDArray[Any]:
    """Images (slices, H, W); (slices, coils, H, W) if they are complex images of several coils."""
    if values.shape[1] == 1:
        return values[:, 0]
    return values if values.dtype.kind == "c" else np.linalg.norm(values, axis=1)
