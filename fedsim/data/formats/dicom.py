"""DICOM files: one grey-scale image or mosaic each, grouped into series."""

import logging
import operator
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydantic import Field
from pydicom.pixels.processing import apply_rescale

from fedsim.core.errors import InputError
from fedsim.data.discovery import fetched
from fedsim.data.formats.dicom_header import Header, begins_like_dicom, header_of, opened
from fedsim.data.left_out import leave_out
from fedsim.data.names import Contrast, pick, safe_name
from fedsim.data.reading import afford, reading
from fedsim.data.source import FileSource, Volume
from fedsim.data.subjects import SITE, Subject, connected

log = logging.getLogger("fedsim")

_STUDY = "StudyInstanceUID"
_EXPECTED = "a DICOM file with one grey-scale image"
_Series = dict[tuple[str, ...], list[Header]]
"""Files by series and patient: some anonymisers give several people the same series number."""


class Dicom(FileSource):
    """One magnitude volume per series, rescale slope and intercept applied; files without pixels are left out.

    Phase images, localizers, colour images and screen saves are left out, MONOCHROME1 is inverted, and Siemens mosaics
    are split into slices; real and imaginary images without magnitudes are combined to complex images. Slices are
    sorted by position along their normal, then by instance number, so echoes or phases in one series are consecutive
    at each position. The subject is PatientID.
    """

    format: Literal["dicom"] = Field("dicom", description="DICOM files (.dcm, .ima, or without a suffix).")
    contrast: Contrast = Field(
        None, description="Part of the SeriesDescription of the series to take: one, a list, or null for all."
    )

    record: ClassVar[str] = "PatientID"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.dcm, .ima and none."""
        return (".dcm", ".ima", "")

    def files(self, root: Path) -> list[Path]:
        """Every file with a DICOM suffix, and of the others those that begin like a DICOM file."""
        files = fetched(self.matching(root))
        found = [file for file in files if file.suffix.lower() in (".dcm", ".ima") or _is_dicom(file)]
        for other in sorted({*files} - {*found}):
            leave_out(other, "file of another kind (without a suffix)")
        if not found:
            raise InputError(f"{root / self.path}: holds no DICOM file; set path or format")
        return found

    def read(self, root: Path) -> Iterator[Volume]:
        """One volume per series, in natural order of their first files."""
        series = self._series(root)
        who = self._people([headers[0] for headers in series.values()], root)
        labels = {key: headers[0].description or "unnamed" for key, headers in series.items()}
        picked = {key: series[key] for key in pick(labels, self.contrast, operator.contains, root / self.path)}
        for key, headers in self._images_only(picked, root).items():
            first = headers[0]
            subject = who[key]
            name = safe_name("_".join(filter(None, [subject.name, first.number, first.description])))
            origin = first.file.parent.relative_to(root).as_posix()
            yield Volume(subject, name, _images(headers), origin, contrast=first.description)

    def _people(self, series: list[Header], root: Path) -> dict[tuple[str, ...], Subject]:
        """The subject of each series, by its key.

        Series without a PatientID are the same person as the other series of their study or folder.
        """
        who = {one.key: self.who(one.file, root, one.subject) for one in series}
        if self.subject != "auto":
            return who
        together: dict[tuple[str, str], list[Header]] = {}
        several = len({one.study for one in series}) > 1
        for one in series:
            folder = self.who(one.file, root)
            together.setdefault((folder.told, folder.name), []).append(one)
            together.setdefault((_STUDY, one.study), []).append(one)
            if not one.subject and one.study and folder.told == SITE and several:
                who[one.key] = Subject.of(one.study, _STUDY)
        groups = [
            [who[one.key].name for one in group]
            for (told, name), group in together.items()
            if told != SITE and name and not all(one.subject for one in group)
        ]
        person: dict[str, Subject] = {}
        for names in connected(groups):
            clearest = min((one for one in who.values() if one.name in names), key=self._clearest)
            person |= dict.fromkeys(names, clearest)
        return {key: person.get(one.name, one) for key, one in who.items()}

    def _clearest(self, subject: Subject) -> tuple[bool, bool, str]:
        return subject.told == _STUDY, subject.told != self.record, subject.name

    def _series(self, root: Path) -> _Series:
        series: _Series = {}
        for header in map(header_of, self.files(root)):
            if header.has_pixels:
                series.setdefault(header.key, []).append(header)
            else:
                leave_out(header.file, "DICOM file without pixels")
        if not series:
            raise InputError(f"{root / self.path}: its DICOM files hold no pixel data")
        if self.subject == "auto":
            _check_people([header for headers in series.values() for header in headers], root / self.path)
        return series

    def _images_only(self, series: _Series, root: Path) -> _Series:
        """The series that are magnitude images of an anatomy; if there are none, all series.

        Raises:
            InputError: only colour or only phase images are left.
        """
        every = [header for headers in series.values() for header in headers]
        for odd, always in (("colour image", True), ("screen save", False), ("localizer", False)):
            others = [header for header in every if header.oddity != odd]
            if others or always:
                for header in set(every) - set(others):
                    leave_out(header.file, odd)
                every = others
        if not every:
            colour = next(header for headers in series.values() for header in headers)
            raise InputError(f"{colour.file}: is in colour, like all DICOM images beside it; {_EXPECTED} is needed")
        kept: _Series = {}
        for key, headers in series.items():
            left = _told_apart([header for header in headers if header in set(every)], root)
            if left:
                kept[key] = left
        if not kept:
            raise InputError(
                f"{root / self.path}: holds phase images only; magnitudes, or real and imaginary, are needed"
            )
        return kept


def _is_dicom(file: Path) -> bool:
    with reading(file, _EXPECTED), file.open("rb") as stream:
        return begins_like_dicom(stream.read(140))


def _check_people(headers: list[Header], where: Path) -> None:
    """Refuse a PatientID that stands for several people; warn if one stands for all, as some anonymisers do.

    Raises:
        InputError: a PatientID has several birth dates or sexes.
    """
    for patient in dict.fromkeys(header.subject for header in headers if header.subject):
        own = [header for header in headers if header.subject == patient]
        for what in ("birth date", "sex"):
            told = sorted({getattr(header, what.replace(" ", "_")) for header in own} - {""})
            if len(told) > 1:
                raise InputError(
                    f"{where}: PatientID {patient} has {len(told)} {what}s ({', '.join(told[:3])}): it names several "
                    "people; set subject to folder, or to a pattern that distinguishes them"
                )
        studies = {header.study for header in own}
        if len(studies) > 2 and len(own) == len(headers) and len({header.file.parent for header in own}) > 2:
            log.warning(
                "%s: all %d studies have PatientID %s: one subject; if they are several people, set subject to folder",
                where, len(studies), patient,
            )  # fmt: skip


def _told_apart(headers: list[Header], root: Path) -> list[Header]:
    """The magnitude images of a series, or without any its real and imaginary ones; in one plane."""
    kinds = {header.component for header in headers}
    wanted = "M" if "M" in kinds else "RI" if {"R", "I"} <= kinds else ""
    words = {"P": "phase image", "R": "real image", "I": "imaginary image"}
    for header in headers:
        if header.component not in wanted:
            leave_out(header.file, words[header.component])
    kept = [header for header in headers if header.component in wanted]
    for what in ("size", "plane"):
        kept = _most(kept, what)
    return sorted(kept, key=lambda header: header.place)


def _most(headers: list[Header], what: str) -> list[Header]:
    """The images with the size or plane of the majority of a series; all if there is no majority."""
    counted = Counter(getattr(header, what) for header in headers)
    common, count = counted.most_common(1)[0] if counted else (None, 0)
    if 2 * count <= len(headers):
        return headers
    for header in headers:
        if getattr(header, what) != common:
            leave_out(header.file, f"image of another {what} than its series")
    return [header for header in headers if getattr(header, what) == common]


def _images(headers: list[Header]) -> NDArray[np.float32] | NDArray[np.complex64]:
    """Images (slices, H, W) of one series, in the order given; complex where they are real and imaginary parts.

    Raises:
        InputError: their sizes differ, or a real or imaginary image has no counterpart.
    """
    if {header.component for header in headers} == {"R", "I"}:
        real, imaginary = ([header for header in headers if header.component == kind] for kind in "RI")
        if [one.place[0] for one in real] != [one.place[0] for one in imaginary]:
            raise InputError(f"{real[0].file}: its series has real images without imaginary ones at the same positions")
        return (_images(real) + np.complex64(1j) * _images(imaginary)).astype(np.complex64)
    images: list[NDArray[np.float32]] = []
    for header in headers:
        with reading(header.file, _EXPECTED):
            images.append(_image(header.file))
            if images[-1].shape[1:] != images[0].shape[1:]:
                sizes = f"{images[-1].shape[1:]}, but its series began with {images[0].shape[1:]}"
                raise InputError(f"is {sizes}; the images of one series must have one size")
    stack = np.concatenate(images)
    return stack.max() - stack if headers[0].inverted else stack


def _image(file: Path) -> NDArray[np.float32]:
    """(1, H, W), or (images, H, W) of a mosaic."""
    data = opened(file)
    frames, samples = (int(data.get(key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel"))
    afford(file, (frames, data.Rows, data.Columns, samples), -(-data.BitsAllocated // 8))
    pixels = data.pixel_array
    if pixels.ndim != 2:
        raise InputError(f"holds pixels {pixels.shape}; {_EXPECTED} (H, W) is needed: split its frames, or use NIfTI")
    image = apply_rescale(pixels, data).astype(np.float32)
    return _cut_up(image, data) if "MOSAIC" in (data.get("ImageType") or ()) else image[None]


def _cut_up(mosaic: NDArray[np.float32], data: pydicom.Dataset) -> NDArray[np.float32]:
    """(images, h, w) of a Siemens mosaic, a square grid of images read row by row.

    Raises:
        InputError: the number of images is not recorded, or does not fit.
    """
    number = _number_in(data)
    across = int(np.ceil(np.sqrt(number)))
    if not number or any(side % across for side in mosaic.shape):
        raise InputError(
            f"is a Siemens mosaic {mosaic.shape} of {number or 'an unrecorded number of'} images "
            "(NumberOfImagesInMosaic); convert it with dcm2niix and use nifti, or leave it out"
        )
    height, width = (side // across for side in mosaic.shape)
    tiles = mosaic.reshape(across, height, across, width).swapaxes(1, 2).reshape(-1, height, width)
    return tiles[:number]


def _number_in(data: pydicom.Dataset) -> int:
    """The number of images in a mosaic, from Siemens' private tags; 0 if not recorded."""
    from nibabel.nicom import csareader  # noqa: PLC0415 - it warns, which `reading` silences

    plain: Any = data.get((0x0019, 0x100A))
    if plain is not None:
        value = plain.value
        return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    header: Any = data.get((0x0029, 0x1010))
    read: Any = csareader.read  # it is untyped
    csa = read(header.value) if header is not None else {"tags": {}}
    items = csa["tags"].get("NumberOfImagesInMosaic", {"items": []})["items"]
    return int(items[0]) if items else 0
