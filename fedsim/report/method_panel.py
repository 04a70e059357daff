"""One picture of several methods: at every site the same slice, its truth, and each method's reconstruction."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.mri.references import HEADS
from fedsim.report.figures import ERROR_COLOURS
from fedsim.report.panels import Panel, panels_of

_TRUTH = "Ground truth"
_WIDTH, _HEIGHT = 1.5, 1.5  # size of a cell [inch]
_SIDE, _FOOT = 1.1, 0.5  # for labels and colour bars; for the names and the note [inch]
_BAR = 0.06  # width of a colour bar [cells]
_PART = {"test": "", "val": "validation split", "train": "training split"}

Panels = list[tuple[Panel, ...]]
"""By site, a panel of the same slice for each method."""


def method_panels(runs: Mapping[str, Run], most_sites: int = 4, most_methods: int = 8) -> Iterator[Figure]:
    """Images of all methods and, below them, their error maps; the mask stands below the ground truth.

    Args:
        runs: By label; runs of one seed on the same sites.
        most_sites: Number of sites to show, each by the middle slice of its first test volume.
        most_methods: Methods per figure; all figures have the same windows and error scales.

    Raises:
        InputError: there is no run, a run has no checkpoint, or two runs do not show the same slice.
    """
    panels, labels = collect(runs, most_sites), list(runs)
    for start in range(0, len(labels), most_methods):
        yield _draw(panels, labels, labels[start : start + most_methods])


def collect(runs: Mapping[str, Run], most_sites: int) -> Panels:
    """By site, a panel of each run.

    Raises:
        InputError: there is no run, or two runs do not show the same slice.
    """
    if not runs:
        raise InputError("there is no run to show")
    of_run = {label: list(panels_of(run, most_sites)) for label, run in runs.items()}
    first = next(iter(of_run))
    for label, panels in of_run.items():
        if len(panels) != len(of_run[first]) or not all(map(_same_slice, panels, of_run[first])):
            raise InputError(
                f"{first} and {label} do not show the same slices; give runs of one seed on the same sites"
            )
    return list(zip(*of_run.values(), strict=True))


def _same_slice(one: Panel, other: Panel) -> bool:
    same = (one.site, one.volume, one.slice) == (other.site, other.volume, other.slice)
    return same and np.array_equal(one.target, other.target) and np.array_equal(one.mask, other.mask)


def _draw(panels: Panels, labels: Sequence[str], shown: Sequence[str]) -> Figure:
    untrained = list(dict.fromkeys(prefix for of_site in panels for prefix in of_site[0].untrained))
    columns = 1 + len(untrained) + len(shown)
    size = (columns * _WIDTH + _SIDE, len(panels) * (2 * _HEIGHT + 0.2) + _FOOT)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(2 * len(panels), columns + 1, squeeze=False, width_ratios=[*[1.0] * columns, _BAR])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for index, of_site in enumerate(panels):
        by_label = dict(zip(labels, of_site, strict=True))
        _draw_site(axes[2 * index : 2 * index + 2], of_site, untrained, {label: by_label[label] for label in shown})
    heads = (_TRUTH, *(HEADS[prefix] for prefix in untrained), *shown)
    for axis, name in zip(axes[0, :-1], heads, strict=True):
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 9, "parse_math": False}
        axis.text(0.5, 1.14, name, transform=axis.transAxes, **look)  # the score stands in between
    panel = panels[0][0]
    note = (
        f"PSNR [dB] / SSIM over the volume of the slice, protocol {panel.protocol}; best round of each run. "
        "Below: |x − ground truth| in % of white, one scale per site; the mask below the ground truth."
    )
    figure.supxlabel(fill(note, int(18 * size[0])), fontsize=7.5, x=0.01, ha="left", color="#404040")
    return figure


def _draw_site(
    axes: NDArray[Any], of_site: Sequence[Panel], untrained: Sequence[str], shown: Mapping[str, Panel]
) -> None:
    """A site's two rows: images on one grey window, errors on one scale, both the same in all figures."""
    first = of_site[0]
    window = float(np.percentile(first.target, 99.5)) or 1.0
    cells = [(first.untrained.get(prefix), first.scored(prefix)) for prefix in untrained]
    cells += [(panel.reconstruction, panel.scored("")) for panel in shown.values()]
    everyone = [first.zero_filled, *(panel.reconstruction for panel in of_site)]
    top = float(np.percentile([_error(image, first.target, window) for image in everyone], 99.5)) or 1.0
    look: dict[str, Any] = {"aspect": first.aspect}
    axes[0, 0].imshow(first.target, cmap="gray", vmin=0, vmax=window, **look)
    axes[1, 0].imshow(first.mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **look)
    best = [max(column) for column in zip(*(panel.scored("") for panel in of_site), strict=True)]
    for above, below, (image, score) in zip(axes[0, 1:-1], axes[1, 1:-1], cells, strict=True):
        above.set_title(" ", fontsize=8.5)  # reserves the space
        if image is None:  # a reference that does not suit this site's data
            continue
        above.imshow(image, cmap="gray", vmin=0, vmax=window, **look)
        _write_score(above, score, [own == top_ for own, top_ in zip(score, best, strict=True)])
        map_ = below.imshow(_error(image, first.target, window), cmap=ERROR_COLOURS, vmin=0, vmax=top, **look)
    axes[1, -1].set_frame_on(True)
    bar = axes[1, -1].figure.colorbar(map_, cax=axes[1, -1], extend="max")
    bar.ax.tick_params(labelsize=7.5)
    bar.set_label("% of white", fontsize=7.5)
    _label(axes[0, 0], axes[1, 0], first)


def _write_score(axis: Axes, score: tuple[float, float], best: Sequence[bool]) -> None:
    """PSNR / SSIM above an image, each in bold if it is the best of its row."""
    for text, side, bold in zip((f"{score[0]:.2f} ", f"/ {score[1]:.3f}"), ("right", "left"), best, strict=True):
        look: dict[str, Any] = {"ha": side, "va": "bottom", "fontsize": 8.5, "transform": axis.transAxes}
        axis.text(0.5, 1.03, text, fontweight="bold" if bold else "normal", **look)


def _error(image: NDArray[np.float32], target: NDArray[np.float32], window: float) -> NDArray[np.float32]:
    """Absolute difference (H, W) in percent of the grey window."""
    error: NDArray[np.float32] = 100 * np.abs(image - target) / window
    return error


def _label(above: Axes, below: Axes, panel: Panel) -> None:
    stamps = (_PART[panel.part], "WITHIN SUBJECT" if panel.within_subject else "")
    name = "\n".join(filter(None, (panel.site, panel.contrast, *stamps)))
    above.set_ylabel(name, fontsize=9, fontweight="bold", parse_math=False)
    below.set_ylabel(f"{panel.mask_kind}\nR = {panel.acceleration:.2f}", fontsize=8, parse_math=False)
