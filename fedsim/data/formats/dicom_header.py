"""What a DICOM header says: the person, the series, the position, and the kind of image."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from fedsim.core.errors import InputError
from fedsim.data.reading import reading

_EXPECTED = "a DICOM file with one grey-scale image"
_GE_KIND, _PHILIPS_KIND = (0x0043, 0x102F), (0x2005, 0x1011)
_TAGS: list[Any] = [
    *("PatientID", "PatientBirthDate", "PatientSex", "SeriesNumber", "SeriesDescription", "SeriesInstanceUID"),
    *("StudyInstanceUID", "SOPClassUID", "Modality", "ImageType", "ComplexImageComponent", "PhotometricInterpretation"),
    *("SamplesPerPixel", "Rows", "Columns", "InstanceNumber", "ImageOrientationPatient", "ImagePositionPatient"),
    *("PixelData", pydicom.tag.Tag(_GE_KIND), pydicom.tag.Tag(_PHILIPS_KIND)),
]
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LOCALIZER = re.compile(r"(?i)(?<![a-z])(localizer|localiser|loc|scout|survey|aahscout|3[- ]?plane)(?![a-z])")
_NOBODY = re.compile(r"(?i)(anon\w*|de-?identified|unknown|none|null|n/?a|no_?id|patient|subject|test|[x0*?-]+)")
"""A placeholder that anonymisers write as PatientID of every patient."""
_COMPONENT = re.compile(r"(M|P|R|I)(?:_\w+)?|(M)AGNITUDE|(P)HASE(?: MAP)?|(R)EAL|(I)MAGINARY|VELOCITY MAP")


@dataclass(frozen=True, kw_only=True)
class Header:
    """One file's."""

    file: Path
    has_pixels: bool
    subject: str
    """PatientID; empty if it is a placeholder."""
    birth_date: str
    sex: str
    study: str
    number: str
    """SeriesNumber."""
    series: str
    description: str
    component: str
    """M (magnitude), P (phase), R (real) or I (imaginary)."""
    oddity: str
    """Colour image, screen save or localizer if it is not an image of an anatomy; else empty."""
    inverted: bool
    """Whether its lowest value is white."""
    size: tuple[int, int]
    """H, W."""
    plane: tuple[float, ...]
    """Directions of rows and columns, rounded; empty where unknown."""
    place: tuple[float, float]
    """Position along the normal of the slice [mm], 0 where unknown; instance number."""

    @property
    def key(self) -> tuple[str, ...]:
        """The key of its series and patient; by folder if the file names neither patient nor study."""
        own = () if self.subject or self.study else (str(self.file.parent),)
        return (self.series, self.subject, self.study, *own)


def begins_like_dicom(begin: bytes) -> bool:
    """Whether a file with this beginning (132 bytes or more) is DICOM, or a bare data set as in old archives."""
    return (
        begin[128:132] == b"DICM"
        or re.match(rb"[\x02\x08]\x00[\x00-\x18]\x00([A-Z]{2}|[\x00-\x7f]\x00\x00\x00)", begin) is not None
    )


def opened(file: Path, tags: list[Any] | None = None) -> pydicom.Dataset:
    """The file's data set, also without preamble; restricted to `tags` if given.

    Raises:
        InputError: it is not a DICOM file.
    """
    data = pydicom.dcmread(file, force=True, specific_tags=tags, defer_size=1024 if tags else None)
    if "SOPClassUID" not in data and "Rows" not in data:
        raise InputError(f"cannot be read (no DICOM data set in it); expected {_EXPECTED}")
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        syntax = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else syntax
    return data


def header_of(file: Path) -> Header:
    """The file's header.

    Raises:
        InputError: it cannot be read.
    """
    with reading(file, _EXPECTED):
        data = opened(file, _TAGS)
        patient = _text(data.get("PatientID"))
        orientation = [round(float(value), 2) for value in data.get("ImageOrientationPatient") or ()]
        return Header(
            file=file,
            has_pixels="PixelData" in data,
            subject="" if _NOBODY.fullmatch(patient) else patient,
            birth_date=_text(data.get("PatientBirthDate")),
            sex=_text(data.get("PatientSex")),
            study=_text(data.get("StudyInstanceUID")),
            number=_text(data.get("SeriesNumber")),
            series=_text(data.get("SeriesInstanceUID")) or str(file.parent),
            description=_text(data.get("SeriesDescription")),
            component=_component(data),
            oddity=_oddity(data),
            inverted=_text(data.get("PhotometricInterpretation")) == "MONOCHROME1",
            size=(int(data.get("Rows") or 0), int(data.get("Columns") or 0)),
            plane=tuple(orientation),
            place=(_position(data), float(data.get("InstanceNumber") or 0)),
        )


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _kinds(data: pydicom.Dataset) -> list[str]:
    """The values of ImageType after ORIGINAL or DERIVED and PRIMARY or SECONDARY."""
    kinds = data.get("ImageType") or []
    return [str(kind).strip().upper() for kind in ([kinds] if isinstance(kinds, str) else kinds)][2:]


def _component(data: pydicom.Dataset) -> str:
    """M, P, R or I, as recorded by the standard, GE, Philips or Siemens; M if not recorded."""
    ge, philips = _private(data, _GE_KIND), _private(data, _PHILIPS_KIND)
    if len(ge) == 1 and ge in "0123":
        return "MPRI"[int(ge)]
    for one in (_text(data.get("ComplexImageComponent")).upper(), philips.upper(), *_kinds(data)):
        if match := _COMPONENT.fullmatch(one):
            return next((letter for letter in match.groups() if letter), "P")
    return "M"


def _private(data: pydicom.Dataset, tag: tuple[int, int]) -> str:
    """A private element, which is bytes if the file does not record its type."""
    element: Any = data.get(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return (
            str(value[0]) if value[1:2] == b"\0" and value[:1] < b" " else value.decode("ascii", "replace").strip("\0 ")
        )
    return _text(value)


def _oddity(data: pydicom.Dataset) -> str:
    grey = _text(data.get("PhotometricInterpretation")).startswith("MONOCHROME") or "PixelData" not in data
    if not grey or int(data.get("SamplesPerPixel") or 1) > 1:
        return "colour image"
    modality = _text(data.get("Modality")) or "MR"
    if (
        _text(data.get("SOPClassUID")).startswith(_SECONDARY_CAPTURE)
        or modality != "MR"
        or "SCREEN SAVE" in _kinds(data)
    ):
        return "screen save"
    localizer = "LOCALIZER" in _kinds(data) or _LOCALIZER.search(_text(data.get("SeriesDescription")))
    return "localizer" if localizer else ""


def _position(data: pydicom.Dataset) -> float:
    """Distance of the slice from the origin along its normal [mm]; 0 without position or orientation."""
    orientation, position = data.get("ImageOrientationPatient"), data.get("ImagePositionPatient")
    if not orientation or not position:
        return 0.0
    rows, columns = np.array(orientation, float).reshape(2, 3)
    return round(float(np.cross(rows, columns) @ np.array(position, float)), 3)
