"""The image viewer's pictures: every slice in its place, one grey window, and no more bytes than it may have."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.report.panels import volumes_of
from fedsim.report.viewer import MOST_BYTES, Picture, Stack, stacks_of
from fedsim.workload.schema import Workload


@pytest.fixture(scope="module")
def stacks(finished: Run) -> list[Stack]:
    return stacks_of({"fedmri": finished, "again": finished})


def sheet(picture: Picture, mode: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert(mode), np.float64)


def tile(picture: Picture, stack: Stack, at: int, mode: str = "L") -> np.ndarray:
    row, column = divmod(at, stack.columns)
    height, width = stack.height, stack.width
    return sheet(picture, mode)[row * height : (row + 1) * height, column * width : (column + 1) * width]


def picture_of(stack: Stack, kind: str, method: str = "") -> Picture:
    (found,) = [one for one in stack.pictures if (one.kind, one.method) == (kind, method)]
    return found


def test_every_slice_stands_in_its_place_on_one_grey_window(finished: Run, stacks: list[Stack]) -> None:
    shown = list(volumes_of(finished, 4))
    assert [stack.name for stack in stacks] == [panel.site for panel, _ in shown]
    for stack, (panel, volume) in zip(stacks, shown, strict=True):
        white = np.percentile(volume.target, 99.5)
        assert len(stack.slices) == len(volume.target)
        assert stack.slices[panel.slices // 2] == panel.slice
        for kind, images in (("target", volume.target), ("zero_filled", volume.zero_filled)):
            for at, image in enumerate(images):
                expected = np.clip(image / white, 0, 1) * 255
                assert np.abs(tile(picture_of(stack, kind), stack, at) - expected).max() <= 0.51
        expected = np.clip(volume.reconstruction[0] / white, 0, 1) * 255
        assert np.abs(tile(picture_of(stack, "reconstruction", "fedmri"), stack, 0) - expected).max() <= 0.51


def test_error_maps_are_brighter_where_the_error_is_larger(finished: Run, stacks: list[Stack]) -> None:
    _, volume = next(volumes_of(finished, 1))
    error = np.abs(volume.reconstruction[0] - volume.target[0]).ravel()
    shown = tile(picture_of(stacks[0], "error", "fedmri"), stacks[0], 0, "RGB").sum(axis=2).ravel()
    assert np.corrcoef(np.argsort(np.argsort(error)), np.argsort(np.argsort(shown)))[0, 1] > 0.95
    assert picture_of(stacks[0], "error", "fedmri").png == picture_of(stacks[0], "error", "again").png


def test_slices_are_left_out_evenly_where_the_pictures_would_be_too_large(finished: Run, stacks: list[Stack]) -> None:
    size = sum(len(one.png) for stack in stacks for one in stack.pictures)
    assert size < MOST_BYTES
    fewer = stacks_of({"fedmri": finished, "again": finished}, most_bytes=size // 2)
    assert sum(len(one.png) for stack in fewer for one in stack.pictures) <= size // 2
    assert all(few.slices == stack.slices[:: stack.slices.index(few.slices[-1]) or 1] or len(few.slices) == 1
               for few, stack in zip(fewer, stacks, strict=True))  # fmt: skip
    assert "slices shown" in fewer[0].note
    assert len(stacks_of({"fedmri": finished}, most_sites=1, most_bytes=1)[0].slices) == 1, "never none"


@pytest.mark.slow
def test_methods_that_show_other_volumes_are_refused(
    finished: Run, make_workload: Callable[..., Workload], tmp_path: Path
) -> None:
    other = run(make_workload("seed=11", "training.rounds=1"), tmp_path / "run")
    with pytest.raises(InputError, match="do not show the same volumes"):
        stacks_of({"fedmri": finished, "other": other})
