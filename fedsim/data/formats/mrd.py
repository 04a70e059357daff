"""ISMRMRD (MRD) files: raw data as scanners export them, readout by readout, with an XML header.

Layout (Inati et al., Magn Reson Med 77:411, 2017): a group, by default `dataset`, with `xml` (the header) and `data`
(the acquisitions: `head` with flags and encoding counters, `data` float32 (2 x coils x samples)). They are read with
h5py alone, because every length in them must be checked first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.hdf5 import opened
from fedsim.data.formats.ismrmrd_header import matrix, parsed
from fedsim.data.formats.mrd_readouts import Encoding, Readouts
from fedsim.data.names import Contrast, pick, safe_name, stem
from fedsim.data.raw import RawSource, Scan
from fedsim.data.reading import one_line
from fedsim.data.subjects import apart


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a file's header says."""

    patient: str
    protocol: str
    encoding: Encoding


class MRD(RawSource):
    """One volume per file and contrast (echo) of it, with slices, phases, repetitions and sets as its slices.

    Readouts are sorted by their encoding counters and averaged where they repeat; k = 0 is where the header says, so
    partial Fourier leaves zeros. Noise scans, if there are any, decorrelate the coils. The readout's oversampling is
    removed, and partitions of 3-D scans become slices.
    """

    format: Literal["mrd"] = Field("mrd", description="ISMRMRD (MRD) raw data (.h5, .mrd), Cartesian.")
    contrast: Contrast = Field(None, description="Contrasts to take, echo1, echo2, ...: one, a list, or null for all.")

    record: ClassVar[str] = "patientID"
    expected: ClassVar[str] = "an ISMRMRD file with a header and acquisitions"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 and .mrd."""
        return (".h5", ".mrd")

    def recognises(self, file: Path) -> bool:
        """Whether it holds a header and acquisitions."""
        try:
            with opened(file, self.expected) as hdf:
                return bool(_groups(hdf))
        except InputError:
            return False

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per file and contrast, in natural order of the files."""
        files = self.files(root)
        alone = apart(files)
        for file in files:
            with opened(file, self.expected) as hdf:
                group = _group(hdf)
                about = _about(group)
                numbers = Readouts(file, group["data"], about.encoding).contrasts()
            who = self.who(file, root, about.patient, alone[file])
            labels = {number: f"echo{number + 1}" for number in numbers}
            for number in pick(labels, self.contrast, str.__eq__, file):
                name = safe_name(f"{stem(file)}_{labels[number]}" if len(numbers) > 1 else stem(file))
                slices = self._slices(file, about.encoding, number)
                label = labels[number] if len(numbers) > 1 else about.protocol
                yield Scan(name, about.encoding.size, slices, file=file, who=who, contrast=label)

    def _slices(self, file: Path, encoding: Encoding, contrast: int) -> Iterator[NDArray[np.complex64]]:
        with opened(file, self.expected) as hdf:
            stacks = Readouts(file, _group(hdf)["data"], encoding).stacks(contrast)
        for at in stacks:
            with opened(file, self.expected) as hdf:
                slices = Readouts(file, _group(hdf)["data"], encoding).kspace(at)
            yield from slices


def _groups(hdf: h5py.File) -> list[str]:
    """Names of the groups with a header and acquisitions."""
    groups = [name for name in hdf if isinstance(hdf.get(name), h5py.Group)]
    return [name for name in groups if all(isinstance(hdf[name].get(one), h5py.Dataset) for one in ("xml", "data"))]


def _group(hdf: h5py.File) -> h5py.Group:
    found = _groups(hdf)
    if len(found) != 1:
        there = ", ".join(map(one_line, hdf)) or "nothing"
        raise InputError(f"has {len(found)} groups with xml and data, and one is needed; it holds {there}")
    return hdf[found[0]]


def _about(group: h5py.Group) -> _File:
    """The header.

    Raises:
        InputError: the scan is not Cartesian, or says nothing about its matrix.
    """
    stored = np.asarray(group["xml"][()]).ravel()
    header = parsed(stored[0].decode() if stored.size and isinstance(stored[0], bytes) else str(stored[:1]))
    patient = header.findtext("{*}subjectInformation/{*}patientID", "").strip()
    protocol = header.findtext("{*}measurementInformation/{*}protocolName", "").strip()
    return _File(patient=one_line(patient), protocol=one_line(protocol), encoding=_encoding(header))


def _encoding(header: ElementTree.Element) -> Encoding:
    trajectory = header.findtext("{*}encoding/{*}trajectory", "cartesian").strip()
    if trajectory != "cartesian":
        raise InputError(f"its trajectory is {one_line(trajectory)!r:.30}; only cartesian can be read")
    encoded = matrix(header, "encodedSpace")
    if encoded is None:
        raise InputError("its ISMRMRD header has no encodedSpace/matrixSize; it must say how k-space is encoded")
    partitions, lines = (
        _number(header, f"encodingLimits/{{*}}kspace_encoding_step_{step}/{{*}}center", size // 2)
        for step, size in ((2, encoded[2]), (1, encoded[1]))
    )
    height, width, depth = (_cut(header, encoded, axis) for axis in range(3))
    return Encoding(shape=encoded, centre=(lines, partitions), size=(height, width), depth=depth)


def _number(header: ElementTree.Element, path: str, default: int) -> int:
    return int(header.findtext(f"{{*}}encoding/{{*}}{path}", str(default)))


def _cut(header: ElementTree.Element, encoded: tuple[int, int, int], axis: int) -> int:
    """Pixels of the reconstructed field of view; the encoded one is larger by the oversampling."""
    name, size = "xyz"[axis], encoded[axis]
    fields = [
        float(header.findtext(f"{{*}}encoding/{{*}}{space}/{{*}}fieldOfView_mm/{{*}}{name}", "0"))
        for space in ("reconSpace", "encodedSpace")
    ]
    if min(fields) > 0:
        return max(1, min(size, round(size * fields[0] / fields[1])))
    return max(1, min(size, (matrix(header, "reconSpace") or encoded)[axis]))
