"""An importer of arrays as they are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from fedsim.data.coils import Maps
from fedsim.data.source import FileSource, Volume
from fedsim.data.subjects import Subject


class Arrays(FileSource):
    """Reads .npy files: images, or coil images, of one volume each, and their maps from .maps beside them."""

    format: Literal["npy"] = "npy"
    maps: Maps = "estimate"
    size: tuple[int, int] | None = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".npy",)

    def read(self, root: Path) -> Iterator[Volume]:
        for file in self.files(root):
            beside = file.with_suffix(".maps")
            with beside.open("rb") if beside.exists() else file.open("rb") as stream:
                maps = np.load(stream) if beside.exists() else None
            who = Subject.of(file.stem, "file")
            yield Volume(who, file.stem, np.load(file), file.name, maps=maps, size=self.size)
