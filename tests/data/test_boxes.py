"""Boxes around findings: fastMRI+'s table, and the same place at another matrix."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsim.core.errors import InputError
from fedsim.data.boxes import boxes_of, read_boxes, region_of
from fedsim.data.source import StoredVolume
from fedsim.data.subjects import Subject
from fedsim.mri.geometry import kspace_at, square

HEAD = "file,slice,study_level,x,y,width,height,label\n"
TABLE = (
    HEAD
    + "file1,2,No,10,4,6,8,Nonspecific white matter lesion\n"
    + "file1,2,No,30,20,5,4,Mass\n"
    + "file1,7,No,1,1,2,2,Mass\n"
    + "file2,0,Yes,,,,,Normal for age\n"
    + '1000052,0,No,0,0,40,48,"Meniscus, all of it"\n'
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "brain.csv"
    path.write_text(TABLE)
    return path


def stored(origin: str) -> StoredVolume:
    """A volume of images 48 x 40, without its first slice."""
    slices = tuple(range(1, 10))
    return StoredVolume(
        name="v", who=Subject("s", "", ""), origin=origin, slices=slices, support=(48, 48), shape=(48, 40)
    )


def test_boxes_are_found_by_file_and_slice_and_turned_the_right_way_up(table: Path) -> None:
    boxes = read_boxes(table)
    found = boxes_of(stored("multicoil_val/file1.h5"), boxes, (48, 48))
    assert found == ((1, 36, 44, 14, 20), (1, 24, 28, 34, 39), (6, 45, 47, 5, 7)), "y is counted from the bottom"
    assert boxes_of(stored("file2.h5"), boxes, (48, 48)) == (), "a whole study has no box"
    assert boxes_of(stored("other/1000052.hdf5"), boxes, (48, 48)) == (), "its only box is on a slice without signal"


@pytest.mark.parametrize("matrix", [(48, 48), (96, 96), (24, 32), (64, 24)])
def test_a_box_lies_where_its_pixels_lie_at_any_matrix(table: Path, matrix: tuple[int, int]) -> None:
    """A bright block in the image, and what importing makes of it: most of its brightness is in the box."""
    image = np.zeros((1, 48, 40), np.float32)
    image[0, 36:44, 10:16] = 1
    shown = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace_at(square(image), matrix), axes=(1, 2)))))
    (box, *_) = boxes_of(stored("file1.h5"), read_boxes(table), matrix)
    region = region_of([box], 1, (1, *matrix))
    power = shown**2
    assert power[region].sum() > 0.6 * power.sum()
    assert region.mean() < 0.05


def test_at_the_scans_own_matrix_a_box_stays_in_the_middle_that_the_files_images_show(table: Path) -> None:
    """Images of 48 x 40 are the centre of scans of 48 x 56: eight columns more on either side."""
    volume = replace(stored("file1.h5"), support=(48, 56))
    assert boxes_of(volume, read_boxes(table), "native")[0] == (1, 36, 44, 18, 24)


def test_a_region_is_the_boxes_of_the_piece_that_is_scored() -> None:
    region = region_of([(3, 1, 3, 0, 2), (5, 0, 1, 0, 1), (9, 0, 4, 0, 4)], 3, (4, 4, 4))
    assert region.sum((1, 2)).tolist() == [4, 0, 1, 0]
    assert region[0, 1:3, 0:2].all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("", "is not a table"),
        ("file,slice,x,y,width\n", "has no column height; it needs file, slice, x, y, width and height"),
        (HEAD + "f,0,No,1,1,wide,2,Mass\n", "line 2: "),
        (HEAD + "f,0,No,1,1,0,2,Mass\n", "line 2: slice must be 0 or more, width and height above 0"),
        (HEAD + "f,0,No,1,1,2,2,Mass\nf,1.5,No,1,1,2,2,Mass\n", "line 3: slice must be 0 or more"),
        (HEAD + "f,0,No,1,,2,2,Mass\n", "line 2: "),
    ],
)
def test_a_table_that_is_none_is_refused_in_a_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "boxes.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"metrics\.boxes: ") as refused:
        read_boxes(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_box_outside_its_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(HEAD + "file1,2,No,39,4,2,8,Mass\n")
    said = r"file1.h5: a box \(slice 2, x 39, y 4, 2 x 8\) lies outside its image of 48 x 40"
    with pytest.raises(InputError, match=said):
        boxes_of(stored("file1.h5"), read_boxes(tmp_path / "b.csv"), (48, 48))
