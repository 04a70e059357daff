"""A first look at a file or folder with images: what is in it, and a picture of a few slices."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table

from fedsim.core.files import replacing
from fedsim.core.text import counted
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.left_out import lines, noting
from fedsim.data.sharing import subject_lines
from fedsim.data.source import FileSource, Volume
from fedsim.data.sources import formats_at
from fedsim.data.subjects import Subject

_MOST_ROWS = 60
_MOST_AT_ALL = 300  # of a picture that can be opened
_MOST_PICTURED = 12
_ACROSS = 4  # slices of a volume
_MOST_LETTERS = 60  # characters of a row's title
_COLUMNS = ("volume", "subject", "slices", "H x W", "values", "min", "max")


@dataclass(frozen=True)
class Sample:
    """A few slices of a volume."""

    name: str
    indices: tuple[int, ...]
    """Indices of the slices in the source."""
    images: NDArray[np.float32] | NDArray[np.complex64]
    """(len(indices), H, W)."""


def inspect_path(path: Path, picture: Path, everything: bool = False) -> tuple[Table, list[str]]:
    """A table of the volumes at `path` and remarks about them; `picture` shows a few slices of the first ones.

    Files are read in the format that most of them have; channels that differ become separate volumes.

    Args:
        path: A file or folder.
        picture: File for the picture.
        everything: Show every volume, in the table and in the picture.

    Raises:
        InputError: there are no images, or a file cannot be read.
    """
    (source, _), *others = formats_at(path)
    rows: list[tuple[str, ...]] = []
    samples: list[Sample] = []
    subjects: dict[str, Subject] = {}
    slices = 0
    most = (_MOST_AT_ALL, _MOST_AT_ALL) if everything else (_MOST_ROWS, _MOST_PICTURED)
    with noting(path.parent) as left_out:
        source, notes = _each_channel(source, path.parent)
        for volume in source.volumes(path.parent):
            rows.append(_row(volume))
            subjects.setdefault(volume.subject, volume.who)
            slices += len(volume.images)
            if len(samples) < most[1]:
                samples.append(_sample(volume))
    with replacing(picture) as temporary:
        montage(samples).savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    counts = f"{counted(len(rows), 'volume')} of {counted(len(subjects), 'subject')}, {counted(slices, 'slice')}"
    table = _table(f"{escape(str(path))}: {source.format}, {counts}", rows, most[0])
    if others:
        besides = ", ".join(counted(count, f"{other.format} file") for other, count in others)
        table.caption = f"not shown: {besides}; inspect their folders"
    if len(rows) > len(samples):
        notes.append(f"the picture shows the first {len(samples)} of {len(rows)} volumes; --all shows every one")
    told = subject_lines(Counter(who.told for who in subjects.values()), {})
    return table, [*told, *notes, *lines(left_out)]


def _each_channel(source: FileSource, root: Path) -> tuple[FileSource, list[str]]:
    """The source with every channel, or volume of a 4-D file, as a volume; and a remark about channels."""
    if isinstance(source, Nifti):
        return source.model_copy(update={"volume": "all"}), []
    channels = source.channels_at(root) if isinstance(source, ImageFolder) else 1
    if channels == 1:
        return source, []
    note = (
        f"{channels} channels, each shown as a volume; a workload must choose: channel: 0 to {channels - 1}, or a list"
    )
    return source.model_copy(update={"channel": list(range(channels))}), [note]


def montage(samples: list[Sample]) -> Figure:
    """One row per volume: magnitude of some slices and, for complex volumes, their phase."""
    phases = any(np.iscomplexobj(sample.images) for sample in samples)
    columns = _ACROSS * (1 + phases)
    figure = Figure(figsize=(1.6 * columns, 1.75 * len(samples) + 0.2), layout="constrained")
    cells = figure.subplots(len(samples), columns, squeeze=False)
    for sample, row in zip(samples, cells, strict=True):
        for axis in row:
            axis.set_axis_off()
        name = _shortened(sample.name)
        row[0].set_title(" ", fontsize=8)  # reserves the height; a wide title would push columns apart
        look: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "parse_math": False, "in_layout": False}
        row[0].text(0, 1.05, name, transform=row[0].transAxes, va="bottom", **look)
        _draw(sample, row)
    if phases:
        scale = ScalarMappable(Normalize(-np.pi, np.pi), cmap="twilight")
        bar = figure.colorbar(scale, ax=cells[:, -1], label="phase [rad]", fraction=0.08, aspect=30)
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    return figure


def _shortened(name: str) -> str:
    """A name shortened to fit above its row, by leaving out the middle."""
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _draw(sample: Sample, row: NDArray[np.object_]) -> None:
    magnitude = np.abs(sample.images)
    finite = magnitude[np.isfinite(magnitude)]
    window = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    for column, (index, image) in enumerate(zip(sample.indices, magnitude, strict=True)):
        row[column].imshow(image, cmap="gray", vmin=0, vmax=window or 1.0)
        _write(row[column], f"slice {index}")
        if np.iscomplexobj(sample.images):
            phase = np.angle(sample.images[column])
            row[_ACROSS + column].imshow(phase, cmap="twilight", vmin=-np.pi, vmax=np.pi, interpolation="nearest")
            _write(row[_ACROSS + column], f"phase of slice {index}")


def _write(axis: Axes, text: str) -> None:
    box = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "linewidth": 0}
    axis.text(0.03, 0.04, text, transform=axis.transAxes, color="white", fontsize=7, bbox=box)


def _sample(volume: Volume) -> Sample:
    """Indices of up to four slices, evenly spread with a margin at both ends."""
    slices = len(volume.images)
    at = sorted({int(slices * (i + 0.5) / _ACROSS) for i in range(_ACROSS)})
    return Sample(volume.name, tuple(at), _combined(volume.images[at]))


def _combined(images: NDArray[np.float32] | NDArray[np.complex64]) -> NDArray[np.float32] | NDArray[np.complex64]:
    """Images (slices, H, W); of several coils the root sum of squares."""
    return images if images.ndim == 3 else np.linalg.norm(images, axis=1)


def _row(volume: Volume) -> tuple[str, ...]:
    images = _combined(volume.images)
    slices, height, width = images.shape
    magnitude = np.abs(images) if np.iscomplexobj(images) else images
    finite = np.isfinite(magnitude)
    empty = slices - int(np.any(magnitude, axis=(1, 2)).sum())
    below = 0 if np.iscomplexobj(volume.images) else int((volume.images < 0).sum())
    notes = [
        f"{counted(below, 'value')} below 0" if below else "",
        f"{counted(int((~finite).sum()), 'value')} NaN or infinite" if not finite.all() else "",
        f"{counted(empty, 'empty slice')}" if empty else "",
    ]
    low, high = (f(magnitude, where=finite, initial=start) for f, start in ((np.min, np.inf), (np.max, -np.inf)))
    coils = f"{volume.coils} coils, " if volume.coils > 1 else ""
    kind = ", ".join([coils + ("complex" if np.iscomplexobj(volume.images) else "magnitude"), *filter(None, notes)])
    values = (str(slices), f"{height} x {width}", kind, f"{low:.3g}", f"{high:.3g}")
    return volume.name, _who(volume), *values


def _who(volume: Volume) -> str:
    """The subject unless it equals the volume's name, with the original if that is not a safe name."""
    who = volume.who
    made = who.name != who.original and not who.original.isascii()
    shown = f"{who.name} ({who.original})" if made else who.name
    return "" if shown == volume.name else escape(shown)


def _table(title: str, rows: list[tuple[str, ...]], most: int) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for column in _COLUMNS:
        number = column in {"slices", "H x W", "min", "max"}
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows[:most]:
        table.add_row(*row)
    if len(rows) > most:
        table.add_row(f"... and {len(rows) - most} more")
    return table
