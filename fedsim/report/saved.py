"""What a run directory holds of reconstructions: saved volumes, and panels of its report."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from fedsim.core.errors import DamagedError
from fedsim.data.reading import one_line
from fedsim.engine.record.run_directory import Run
from fedsim.report.page import Picture, picture
from fedsim.report.viewer import Images, Score, Stack, stack_of

_MOST_PIXELS = 3e6  # of a volume's slices that are shown
_MOST_BYTES = 4_000_000  # of a panel's picture
_ARRAYS = ("target", "zero_filled", "reconstruction")


def newest_volume(run: Path) -> Path | None:
    """The newest file in RUN/images; None if there is none."""
    return _newest(path for folder in _folders(run / "images") for path in folder.glob("*.h5"))


def newest_panel(run: Path) -> Path | None:
    """The newest picture of a site in RUN/figures; None if there is none."""
    return _newest((run / "figures").glob("panel-*.png"))


def stack_of_saved(run: Run, path: Path) -> Stack:
    """A saved volume for the image viewer; of many slices, some.

    Args:
        run: The run.
        path: A file in RUN/images.

    Raises:
        DamagedError: it is not what fedsim writes.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            count, height, width = file["reconstruction"].shape
            if height * width > _MOST_PIXELS:
                raise ValueError(f"slices of {height} x {width} are too large to be shown")
            step = max(1, math.ceil(count * height * width / _MOST_PIXELS))
            arrays = [_images(file, name, (count, height, width), step) for name in _ARRAYS]
            told = {name: one_line(str(file.attrs.get(name, "?"))) for name in ("site", "client", "round")}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: is damaged, or not a saved volume ({one_line(str(error))[:120]})") from error
    note = f"volume {path.stem}; model of client {told['client']}, round {told['round']}"
    note += f"; one of {step} slices shown" if step > 1 else ""
    known, sites = run.workload.federation, run.workload.federation.expanded_sites()
    place = sites.place(told["site"])
    native = ((place is not None and sites[place].matrix) or known.matrix) == "native"
    return stack_of(
        told["site"], note, run.workload.algorithm.name, tuple(range(0, count, step)), *arrays,
        aspect=width / height if native else 1.0, scores=_scores(run, path.stem, told),
    )  # fmt: skip


def _scores(run: Run, volume: str, told: Mapping[str, str]) -> tuple[Score, Score]:
    """PSNR and SSIM of the zero-filled and of the reconstructed volume; NaN if it was not scored."""
    rows = run.evaluation if (run.path / "evaluation.parquet").exists() else pd.DataFrame()
    if len(rows):
        at = (
            (rows["volume"] == volume)
            & (rows["client"] == told["client"])
            & (rows["round"].astype(str) == told["round"])
        )
        rows = rows[at]
    if not len(rows) or not {"psnr", "ssim", "zf_psnr", "zf_ssim"} <= {*rows}:
        return (math.nan, math.nan), (math.nan, math.nan)
    row = rows.iloc[0]
    return (row["zf_psnr"], row["zf_ssim"]), (row["psnr"], row["ssim"])


def panel_of_saved(path: Path) -> Picture:
    """A panel of the report.

    Raises:
        DamagedError: it cannot be read, or is far larger than a panel is.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DamagedError(f"{path}: is too large for a picture of a report")
        return picture(path, f"Site {path.stem.removeprefix('panel-')}", "")
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error


def _images(file: h5py.File, name: str, shape: tuple[int, int, int], step: int) -> Images:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or file[name].shape != shape:
        raise ValueError(f"{name} is not an array of this file like reconstruction")
    found: Images = np.nan_to_num(file[name][::step].astype(np.float32))
    return found


def _folders(images: Path) -> Iterable[Path]:
    return (path for path in images.glob("*") if path.is_dir() and not path.is_symlink())


def _newest(paths: Iterable[Path]) -> Path | None:
    """The newest of some files; links, which may lead anywhere, are left out."""
    return max((path for path in paths if not path.is_symlink()), key=lambda path: path.stat().st_mtime, default=None)
