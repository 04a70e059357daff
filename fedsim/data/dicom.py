"""DICOM files: one grey image each, gathered into series."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydantic import Field
from pydicom.pixels.processing import apply_rescale

from fedsim.data.names import Contrast, pick, safe_name
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume
from fedsim.errors import InputError

_EXPECTED = "a DICOM file with one grey image"
_TAGS = ["PatientID", "SeriesNumber", "SeriesDescription", "SeriesInstanceUID", "InstanceNumber"]
_TAGS += ["ImageOrientationPatient", "ImagePositionPatient", "PixelData"]


@dataclass(frozen=True)
class _Header:
    """What one file says about itself."""

    file: Path
    series: str
    subject: str
    number: str
    description: str
    place: tuple[float, float]
    """Position along the normal of the slice [mm], 0 where unknown; instance number."""


class Dicom(FileSource):
    """A volume a series, magnitude, with the rescale slope and intercept applied and files without pixels left out.

    Slices are sorted by position along their normal, then by instance number: echoes or phases that share a series
    come one after the other at each place. The subject is PatientID, or the folder where there is none.
    """

    format: Literal["dicom"] = Field("dicom", description="DICOM files (.dcm, .ima, or without a suffix).")
    contrast: Contrast = Field(
        None, description="Part of the SeriesDescription of the series to take: one, a list, or null for all."
    )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.dcm, .ima and none."""
        return (".dcm", ".ima", "")

    def files(self, root: Path) -> list[Path]:
        """Every file with a suffix of DICOM, and of the others those that begin like one."""
        found = [file for file in self.matching(root) if file.suffix.lower() in (".dcm", ".ima") or _is_dicom(file)]
        if not found:
            raise InputError(f"{root / self.path}: holds no DICOM file; set path or format")
        return found

    def read(self, root: Path) -> Iterator[Volume]:
        """A volume a series, in natural order of their first files."""
        series = self._series(root)
        labels = {uid: headers[0].description or "unnamed" for uid, headers in series.items()}
        for uid in pick(labels, self.contrast, operator.contains, root / self.path):
            headers = series[uid]
            first = headers[0]
            subject = self.who(first.file, root, first.subject or self.folder(first.file, root))
            name = safe_name("_".join(filter(None, [subject, first.number, first.description])))
            images = _images(sorted(headers, key=lambda header: header.place))
            yield Volume(subject, name, images, first.file.parent.relative_to(root).as_posix())

    def _series(self, root: Path) -> dict[str, list[_Header]]:
        series: dict[str, list[_Header]] = {}
        for header in filter(None, map(_header, self.files(root))):
            series.setdefault(header.series, []).append(header)
        if not series:
            raise InputError(f"{root / self.path}: its DICOM files hold no pixel data")
        return series


def _is_dicom(file: Path) -> bool:
    with reading(file, _EXPECTED), file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _header(file: Path) -> _Header | None:
    """The file's header, None when it has no pixel data."""
    with reading(file, _EXPECTED):
        data = pydicom.dcmread(file, defer_size=1024, specific_tags=_TAGS)
        if "PixelData" not in data:
            return None
        series = str(data.get("SeriesInstanceUID") or file.parent)
        place = (_position(data), float(data.get("InstanceNumber") or 0))
        subject, number, description = (_text(data.get(tag)) for tag in _TAGS[:3])
        return _Header(file, series, subject, number, description, place)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _position(data: pydicom.Dataset) -> float:
    """Distance of the slice from the origin along its normal [mm]; 0 without position or orientation."""
    orientation, position = data.get("ImageOrientationPatient"), data.get("ImagePositionPatient")
    if not orientation or not position:
        return 0.0
    rows, columns = np.array(orientation, float).reshape(2, 3)
    return round(float(np.cross(rows, columns) @ np.array(position, float)), 3)


def _images(headers: list[_Header]) -> NDArray[np.float32]:
    """Images (slices, H, W) of one series, in the order given."""
    images: list[NDArray[np.float32]] = []
    for header in headers:
        with reading(header.file, _EXPECTED):
            images.append(_image(header.file))
            if images[-1].shape != images[0].shape:
                sizes = f"{images[-1].shape}, but its series began with {images[0].shape}"
                raise InputError(f"is {sizes}; the images of one series must have one size")
    return np.stack(images)


def _image(file: Path) -> NDArray[np.float32]:
    data = pydicom.dcmread(file)
    frames, samples = (int(data.get(key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel"))
    afford(file, (frames, data.Rows, data.Columns, samples), -(-data.BitsAllocated // 8))
    pixels = data.pixel_array
    if pixels.ndim != 2:
        raise InputError(f"holds pixels {pixels.shape}; {_EXPECTED} (H, W) is needed: split its frames, or use NIfTI")
    return apply_rescale(pixels, data).astype(np.float32)
