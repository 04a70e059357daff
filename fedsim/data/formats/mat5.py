"""Numeric arrays and texts of MATLAB 5 files, read without trusting any length or type that a file states.

Reading a damaged file with scipy can crash the process, because it looks up types that do not exist.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_STRUCT, _TEXT = 2, 4
_NUMERIC = range(6, 16)  # classes double, single, and the integers
_DEEPEST = 8  # structs within structs
_COMPLEX, _LOGICAL = 0x800, 0x200
_HEAD = 8192  # bytes that hold an array's flags, dimensions and name
_Parts = Iterator[tuple[int, memoryview]]


@dataclass(frozen=True, kw_only=True)
class Array:
    """A numeric array or a text in a file."""

    name: str
    """Name; fields of structs are named struct/field."""
    shape: tuple[int, ...]
    """As MATLAB counts, first axis fastest."""
    is_text: bool
    """Whether its values are character codes."""
    is_complex: bool
    _order: str
    _kind: int
    """The format's code for the type of the stored data."""
    _body: memoryview

    def values(self) -> NDArray[np.float32] | NDArray[np.complex64]:
        """The array, with axes in MATLAB's order.

        Raises:
            ValueError: its data are missing or have the wrong size.
        """
        parts = _parts(_unpacked(self._kind, self._body, self._order, None), self._order)
        for _ in ("flags", "dimensions", "name"):
            next(parts)
        real = self._part(parts)
        return real + np.complex64(1j) * self._part(parts) if self.is_complex else real

    def _part(self, parts: _Parts) -> NDArray[np.float32]:
        kind, body = next(parts, (0, memoryview(b"")))
        stored = np.dtype(self._order + _STORED.get(kind, "V1"))
        if kind not in _STORED or len(body) != math.prod(self.shape) * stored.itemsize:
            raise ValueError(f"array {self.name} has {len(body)} bytes of type {kind}, not {self.shape} numbers")
        return np.frombuffer(body, stored).astype(np.float32).reshape(self.shape, order="F")


def arrays(file: Path) -> Iterator[Array]:
    """The numeric arrays and texts of a file, also within structs; everything else is skipped.

    Raises:
        ValueError: the file has another version, or is damaged.
    """
    content = memoryview(np.memmap(file, np.uint8, mode="r"))  # type: ignore[arg-type]  # it has a buffer
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None or 1 not in content[124:126]:
        raise ValueError("has no header of a MATLAB file of version 5")
    for kind, body in _parts(content[128:], order):
        if kind in (_MATRIX, _COMPRESSED):
            yield from _arrays(kind, body, order, "", _DEEPEST)


def _arrays(kind: int, body: memoryview, order: str, within: str, deepest: int) -> Iterator[Array]:
    """The array in `body`, or the arrays in its fields if it is a single struct."""
    parts = _parts(_unpacked(kind, body, order, _HEAD), order)
    flags, dimensions, name = (part for _, (_, part) in zip(range(3), parts, strict=False))
    (word,) = struct.unpack_from(f"{order}I", flags)
    shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
    named = within + bytes(name).decode("latin-1")
    sort = word & 0xFF
    if sort == _STRUCT and math.prod(shape) == 1 and deepest:
        for field, inner in _fields(kind, body, order):
            yield from _arrays(_MATRIX, inner, order, f"{named}/{field}", deepest - 1)
    elif sort == _TEXT or (sort in _NUMERIC and not word & _LOGICAL):
        yield Array(
            name=named,
            shape=shape,
            is_text=sort == _TEXT,
            is_complex=bool(word & _COMPLEX),
            _order=order,
            _kind=kind,
            _body=body,
        )


def _fields(kind: int, body: memoryview, order: str) -> Iterator[tuple[str, memoryview]]:
    """Name and content of a single struct's fields."""
    parts = _parts(_unpacked(kind, body, order, None), order)
    for _ in ("flags", "dimensions", "name"):
        next(parts)
    (_, width), (_, names) = next(parts), next(parts)
    step = int(np.frombuffer(width, f"{order}i4")[0])
    if step < 1:
        raise ValueError(f"a struct's field names are {step} bytes long")
    for at, (_, inner) in zip(range(0, len(names), step), parts, strict=False):
        if len(inner):
            yield bytes(names[at : at + step]).partition(b"\0")[0].decode("latin-1"), inner


def _unpacked(kind: int, body: memoryview, order: str, most: int | None) -> memoryview:
    """The elements of a matrix, at most the first `most` bytes."""
    if kind == _MATRIX:
        return body
    inflate = zlib.decompressobj()
    _, size = struct.unpack(f"{order}II", inflate.decompress(body, 8))
    return memoryview(inflate.decompress(inflate.unconsumed_tail, min(size, most or size) or 1))


def _parts(content: memoryview, order: str) -> Iterator[tuple[int, Any]]:
    """The type and the bytes of each element, one after the other."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        small = kind >> 16  # the small format: size in the upper half, and up to four bytes of data after it
        begin, size = (at + 4, small) if small else (at + 8, size)
        if begin + size > len(content):
            raise ValueError("is truncated or damaged: an element is longer than the rest of the file")
        yield kind & 0xFFFF, content[begin : begin + size]
        at = begin + 4 if small else begin + size + (-size % 8 if kind != _COMPRESSED else 0)
