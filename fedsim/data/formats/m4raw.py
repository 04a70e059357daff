"""M4Raw's HDF5 files: low-field brain scans in fastMRI's layout, every repetition in a file of its own.

Layout (Lyu et al., Sci Data 10:264, 2023): `2022061003_T201.h5` is repetition 01 of subject 2022061003's T2 scan, with
`kspace` complex (18 slices, 4 coils, 256, 256) and attributes `acquisition` (AXT1, AXT2, AXFLAIR) and `patient_id`.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.raw import Scan
from fedsim.data.reading import reading

_NAME = re.compile(r"(\d{10}_(?:T1|T2|FLAIR))(\d\d)\.h5")


class M4Raw(FastMRI):
    """One volume per subject and contrast, from the files of all its repetitions, which are never separated."""

    format: Literal["m4raw"] = Field("m4raw", description="M4Raw's HDF5 files (.h5).")  # type: ignore[assignment]
    repetitions: Literal["average", "keep"] = Field(
        "average",
        description="Repetitions of a scan: average (their k-space, as a scanner does) or keep (each slice once for "
        "every repetition, one after the other, all in one volume).",
    )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """.h5 alone."""
        return (".h5",)

    def recognises(self, file: Path) -> bool:
        """Whether the file is named like M4Raw's."""
        return _NAME.fullmatch(file.name) is not None

    def scans(self, root: Path) -> Iterator[Scan]:
        """One scan per subject and contrast, in natural order of the first files."""
        together: dict[Path, list[Scan]] = {}
        for scan in super().scans(root):
            with reading(scan.file, self.expected):
                named = _NAME.fullmatch(scan.file.name)
                if named is None:
                    raise InputError("is not named like M4Raw's files, 2022061003_T201.h5; rename it, or set format")
            together.setdefault(scan.file.with_name(named[1]), []).append(scan)
        for name, scans in together.items():
            self._check_alike(scans)
            yield replace(scans[0], name=name.name, slices=self._joined(scans))

    def _joined(self, scans: list[Scan]) -> Iterator[NDArray[np.complex64]]:
        for kspaces in zip(*(scan.slices for scan in scans), strict=True):
            with reading(scans[0].file, self.expected):
                together = [np.mean(kspaces, axis=0)] if self.repetitions == "average" else kspaces
            yield from together

    def _check_alike(self, scans: list[Scan]) -> None:
        first, *others = ((scan.file, self.shape_and_size(scan.file)[0]) for scan in scans)
        for file, shape in others:
            if shape != first[1]:
                raise InputError(f"{file}: its kspace is {shape}, but repetition {first[0].name} has {first[1]}")
