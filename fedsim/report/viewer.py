"""The image viewer of a report: all slices of one volume per site, as pictures in the page itself.

A picture holds all slices of one kind, side by side in rows. Truth, zero-filled and reconstruction share a grey window,
all error maps of a site one scale.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedsim.core.errors import InputError
from fedsim.data.evaluation import ReconstructedVolume
from fedsim.engine.record.run_directory import Run
from fedsim.mri.references import UNTRAINED
from fedsim.report.figures import ERROR_COLOURS
from fedsim.report.panels import Panel, volumes_of

MOST_BYTES = 2_000_000
"""Bytes of a viewer's pictures; beyond it slices are left out evenly."""
MOST_SITES = 4
_MOST_METHODS = 8
_WHITE = 99.5  # percentile of the truth shown as white, and of the errors at the end of their scale
_ERROR_LEVELS = 64  # levels of the error maps: fewer make smaller pictures

Images = NDArray[np.float32]
"""Slices (D, H, W)."""
Score = tuple[float, float]
"""PSNR [dB] and SSIM."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """All slices of one kind."""

    kind: str
    """target, zero_filled, reconstruction or error."""
    method: str
    """Empty for images that all methods share."""
    note: str
    png: bytes
    """The encoded image."""

    @property
    def source(self) -> str:
        """As a data: URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The pictures of one volume."""

    name: str
    note: str
    methods: tuple[str, ...]
    """Names of the methods, in the order of the page; references without training are the last ones."""
    slices: tuple[int, ...]
    """Index of each slice in the source."""
    height: int
    """Of a slice [pixels]."""
    width: int
    """Of a slice [pixels]."""
    aspect: float
    """Width of the field of view divided by its height."""
    columns: int
    """Slices side by side in a picture."""
    pictures: tuple[Picture, ...]


def stacks_of(runs: Mapping[str, Run], most_sites: int = MOST_SITES, most_bytes: int = MOST_BYTES) -> list[Stack]:
    """A stack for each of the first sites, with a reconstruction by each of the first runs.

    Args:
        runs: By method; runs of one seed on the same sites.
        most_sites: Maximum number of stacks.
        most_bytes: Maximum size of all pictures.

    Raises:
        InputError: a run has no checkpoint, its data cannot be read, or the runs do not show the same volumes.
    """
    shown = list(runs)[:_MOST_METHODS]
    by_method = [list(volumes_of(runs[method], most_sites)) for method in shown]
    for volumes in by_method[1:]:
        if [_what(panel) for panel, _ in volumes] != [_what(panel) for panel, _ in by_method[0]]:
            raise InputError("the methods do not show the same volumes, so the image viewer is left out")
    sites = [dict(zip(shown, of_site, strict=True)) for of_site in zip(*by_method, strict=True)]
    step = 1
    while True:
        stacks = [_stack(of_site, step) for of_site in sites]
        size = sum(len(picture.png) for stack in stacks for picture in stack.pictures)
        if size <= most_bytes or all(len(stack.slices) == 1 for stack in stacks):
            return stacks
        step = max(step + 1, math.ceil(step * size / most_bytes))


def _what(panel: Panel) -> tuple[str, str, int]:
    return panel.site, panel.volume, panel.slices


def _stack(of_site: Mapping[str, tuple[Panel, ReconstructedVolume]], step: int) -> Stack:
    """A site's volume with every `step`-th slice."""
    panel, volume = next(iter(of_site.values()))
    target, zero_filled = volume.target, volume.zero_filled
    outputs = {method: one.reconstruction for method, (_, one) in of_site.items()}
    scores = {method: own.scored("") for method, (own, _) in of_site.items()}
    outputs |= {UNTRAINED[name]: images for name, images in volume.references.items()}
    scores |= {UNTRAINED[name]: panel.scored(name) for name in volume.references}
    zero_score = _score(*panel.scored("zf"))
    told = {method: _score(*numbers) for method, numbers in scores.items()}
    pictures = _pictures(target, zero_filled, outputs, zero_score, told, step)
    height, width = target.shape[1:]
    first = panel.slice - panel.slices // 2  # the panel's slice is the middle one
    slices = tuple(first + index for index in range(0, len(target), step))
    return Stack(
        name=panel.site, note=_note(panel, step), methods=tuple(outputs), slices=slices,
        height=height, width=width, aspect=width / height / panel.aspect, columns=_columns(len(slices)),
        pictures=pictures,
    )  # fmt: skip


def _pictures(
    target: Images,
    zero_filled: Images,
    outputs: Mapping[str, Images],
    zero_note: str,
    notes: Mapping[str, str],
    step: int,
) -> tuple[Picture, ...]:
    """Truth, zero-filled, and of every method its images and their error map; every `step`-th slice."""
    white = float(np.percentile(target, _WHITE)) or 1.0
    errors = {method: 100 * np.abs(output - target) / white for method, output in outputs.items()}
    top = float(np.percentile([*errors.values(), 100 * np.abs(zero_filled - target) / white], _WHITE)) or 1.0
    pictures = [_grey("target", "", target, white, step, ""),
                _grey("zero_filled", "", zero_filled, white, step, zero_note)]  # fmt: skip
    for method, output in outputs.items():
        pictures.append(_grey("reconstruction", method, output, white, step, notes[method]))
        pictures.append(Picture(kind="error", method=method, note=f"black 0, yellow {top:.3g} % of white",
                                png=_png(errors[method][::step], top, _ERROR_LEVELS, colours=True)))  # fmt: skip
    return tuple(pictures)


def _grey(kind: str, method: str, images: Images, white: float, step: int, note: str) -> Picture:
    return Picture(kind=kind, method=method, note=note, png=_png(images[::step], white, 256, colours=False))


def _png(images: Images, top: float, levels: int, *, colours: bool) -> bytes:
    """Slices side by side in rows; `top` is the brightest level."""
    count, height, width = images.shape
    columns = _columns(count)
    steps = np.clip(np.round(images * ((levels - 1) / top)), 0, levels - 1).astype(np.uint8)
    tiles = np.zeros((-(-count // columns) * columns, height, width), np.uint8)
    tiles[:count] = steps
    sheet = tiles.reshape(-1, columns, height, width).swapaxes(1, 2).reshape(-1, columns * width)
    image = Image.fromarray(sheet)
    if colours:
        image.putpalette(_palette(levels))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _columns(count: int) -> int:
    """Columns of a picture with this many slices: about square, since browsers limit both sides."""
    return math.ceil(math.sqrt(count))


def _palette(levels: int) -> Sequence[int]:
    colours = mpl.colormaps[ERROR_COLOURS](np.linspace(0, 1, levels))[:, :3]
    return [int(value) for value in np.round(255 * colours).astype(int).flat]


def _score(psnr: float, ssim: float) -> str:
    return f"PSNR {psnr:.2f} dB, SSIM {ssim:.3f}"


def _note(panel: Panel, step: int) -> str:
    parts = [
        f"{panel.contrast + ', ' if panel.contrast else ''}volume {panel.volume} of the {panel.part} split",
        f"model of client {panel.client}, round {panel.round}",
        f"{panel.mask_kind} mask, {panel.acceleration:.2f}x measured",
        f"PSNR and SSIM over {panel.slices} slices, protocol {panel.protocol}",
        *(["within subject"] if panel.within_subject else []),
        *([f"one of {step} slices shown"] if step > 1 else []),
    ]
    return "; ".join(parts)


def stack_of(
    name: str,
    note: str,
    method: str,
    slices: tuple[int, ...],
    target: Images,
    zero_filled: Images,
    output: Images,
    *,
    aspect: float,
    scores: tuple[Score, Score],
) -> Stack:
    """A stack of images that were saved, by one method.

    Args:
        name: Of the site.
        note: What is shown.
        method: Whose reconstruction it is.
        slices: Index of each slice in the volume.
        target: Ground truth.
        zero_filled: Without training.
        output: The reconstruction.
        aspect: Width of the field of view divided by its height.
        scores: Of the zero-filled volume and of the reconstruction; NaN where there is none.
    """
    height, width = target.shape[1:]
    without, reached = ("" if math.isnan(psnr) else _score(psnr, ssim) for psnr, ssim in scores)
    return Stack(
        name=name, note=note, methods=(method,), slices=slices, height=height, width=width, aspect=aspect,
        columns=_columns(len(slices)),
        pictures=_pictures(target, zero_filled, {method: output}, without, {method: reached}, 1),
    )  # fmt: skip
