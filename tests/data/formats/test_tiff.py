"""Folders of TIFF and PNG slices, TIFF stacks, channels."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.left_out import noting


def coloured(value: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8"""
    return (np.arange(4 * 5 * 3).reshape(4, 5, 3) + 10 * value).astype(np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:  # tifffile's own
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        PIL.Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_slices_follow_the_last_number_and_folders_are_subjects(tmp_path: Path, kind: str) -> None:
    for folder in ("TCGA_CS_4942_19970222", "TCGA_CS_4941_19960909"):
        for number in (10, 9, 11):
            write(tmp_path / "CS" / folder / f"{folder}_{number}.{kind[:4].replace('tiff', 'tif')}", coloured(number))
            write(tmp_path / "CS" / folder / f"{folder}_{number}_mask.tif", coloured(0)[..., 0])
    source = ImageFolder(format=kind, path="CS", channel=1)
    volumes = list(source.volumes(tmp_path))
    assert [v.subject for v in volumes] == ["TCGA_CS_4941", "TCGA_CS_4942"]
    assert (volumes[0].name, volumes[0].origin) == ("TCGA_CS_4941_19960909", "CS/TCGA_CS_4941_19960909")
    assert volumes[0].images.dtype == np.float32
    np.testing.assert_array_equal(volumes[0].images, [coloured(number)[..., 1] for number in (9, 10, 11)])


def test_a_list_of_channels_makes_a_volume_of_each(tmp_path: Path) -> None:
    write(tmp_path / "s" / "1.tif", coloured(1))
    two, zero = ImageFolder(format="tiff", path="s", channel=[2, 0], subject="site").volumes(tmp_path)
    assert [(v.subject, v.name) for v in (two, zero)] == [("site", "s_ch2"), ("site", "s_ch0")]
    np.testing.assert_array_equal(two.images[0], coloured(1)[..., 2])
    with pytest.raises(InputError, match=r"1\.tif: has 3 channels; channel 3 counts from 0"):
        list(ImageFolder(format="tiff", path="s", channel=3).volumes(tmp_path))


@pytest.mark.parametrize("channel", [-1, [], [0, 0], [0, -1]])
def test_channels_that_make_no_sense(channel: object) -> None:
    with pytest.raises(ValidationError, match="channel"):
        ImageFolder.model_validate({"format": "tiff", "path": ".", "channel": channel})


def test_stacks_are_volumes_by_themselves(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)
    write(tmp_path / "p" / "stack.tif", stack, photometric="minisblack")
    write(tmp_path / "p" / "colours.tiff", np.stack([coloured(1), coloured(2)]), photometric="rgb")
    write(tmp_path / "p" / "1.tif", coloured(3))
    colours, alone, single = ImageFolder(format="tiff", path=".", channel=0).volumes(tmp_path)
    assert [v.name for v in (colours, alone, single)] == ["colours", "stack", "p"]
    assert [v.origin for v in (colours, alone, single)] == ["p/colours.tiff", "p/stack.tif", "p/1.tif"]
    assert {v.subject for v in (colours, alone, single)} == {"p"}
    np.testing.assert_array_equal(alone.images, stack)
    np.testing.assert_array_equal(colours.images, [coloured(1)[..., 0], coloured(2)[..., 0]])


def test_planar_and_sixteen_bit_pixels(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.moveaxis(coloured(1), -1, 0), photometric="rgb", planarconfig="separate")
    (planar,) = ImageFolder(format="tiff", path="a.tif", channel=2).volumes(tmp_path)
    np.testing.assert_array_equal(planar.images[0], coloured(1)[..., 2])
    grey = np.array([[0, 40000], [65535, 3]], np.uint16)
    write(tmp_path / "g" / "1.png", grey)
    (volume,) = ImageFolder(format="png", path="g").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, [grey])
    with pytest.raises(InputError, match="has 1 channels; channel 1"):
        list(ImageFolder(format="png", path="g", channel=1).volumes(tmp_path))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    PIL.Image.fromarray(coloured(1)).quantize(64).save(tmp_path / "1.png")
    (volume,) = ImageFolder(format="png", path=".", channel=2).volumes(tmp_path)
    np.testing.assert_allclose(volume.images[0], coloured(1)[..., 2], atol=8)


def test_every_file_a_subject(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"s{number}.png", coloured(number))
    volumes = list(ImageFolder(format="png", path=".", subject="file", channel=0).volumes(tmp_path))
    assert [(v.subject, v.name, len(v.images)) for v in volumes] == [("s1", "s1", 1), ("s2", "s2", 1)]


def test_mixed_sizes_damaged_files_missing_folders(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.tif", coloured(1))
    write(tmp_path / "a" / "2.tif", coloured(1)[:3])
    with pytest.raises(InputError, match=r"2\.tif: is \(3, 5\), but its folder began with \(4, 5\)"):
        list(ImageFolder(format="tiff", path="a", channel=0).volumes(tmp_path))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    for kind, name in (("tiff", "1.tif"), ("png", "1.png")):
        path = write(tmp_path / "b" / name, noise)
        for damaged in (path.read_bytes()[:1500], b"no image at all"):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"1\.\w+: cannot be read .*; expected a TIFF or PNG image") as caught:
                list(ImageFolder(format=kind, path="b").volumes(tmp_path))
            assert "\n" not in str(caught.value)
    for folder in ("c", "a"):
        with pytest.raises(InputError, match=r"no such file|holds no image file with the suffix \.png"):
            ImageFolder(format="png", path=folder).files(tmp_path)


def test_channels_that_differ_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "c" / "1.tif", coloured(1))
    with pytest.raises(InputError, match=r"1\.tif: has 3 channels that differ; set channel"):
        list(ImageFolder(format="tiff", path="c").volumes(tmp_path))
    assert ImageFolder(format="tiff", path="c").channels_at(tmp_path) == 3
    grey = np.repeat(coloured(1)[..., :1], 3, axis=-1)
    write(tmp_path / "g" / "1.tif", grey)
    opaque = np.full((4, 5, 1), 255, np.uint8)
    write(tmp_path / "a" / "1.png", np.concatenate([grey, opaque], axis=-1))
    for folder, kind in (("g", "tiff"), ("a", "png")):
        (volume,) = ImageFolder(format=kind, path=folder).volumes(tmp_path)
        np.testing.assert_array_equal(volume.images[0], grey[..., 0])


def test_channels_have_names(tmp_path: Path) -> None:
    write(tmp_path / "1.tif", coloured(1))
    named = {"format": "tiff", "path": ".", "channels": {0: "T1", 1: "FLAIR"}}
    source = ImageFolder.model_validate({**named, "channel": "flair"})
    (volume,) = source.volumes(tmp_path)
    np.testing.assert_array_equal(volume.images[0], coloured(1)[..., 1])
    assert volume.contrast == "FLAIR"
    assert ImageFolder.model_validate(source.model_dump(mode="json")) == source
    several = ImageFolder.model_validate({**named, "channel": ["FLAIR", 2], "subject": "site"})
    volumes = list(several.volumes(tmp_path))
    assert [volume.name.rpartition("_")[2] for volume in volumes] == ["FLAIR", "ch2"]
    assert [volume.contrast for volume in volumes] == ["FLAIR", "channel 2"]
    for wrong in ({**named, "channel": "T2"}, {**named, "channels": {0: "T1", 1: "t1"}}):
        with pytest.raises(ValidationError, match=r"T2|the same name"):
            ImageFolder.model_validate(wrong)


def test_a_colour_map_of_greys_is_looked_up(tmp_path: Path) -> None:
    shown = np.roll(np.arange(256), 100)
    image = coloured(1)[..., 0]
    stored = np.argsort(shown).astype(np.uint8)[image]
    write(tmp_path / "1.tif", stored, photometric="palette", colormap=np.stack([shown.astype(np.uint16) * 257] * 3))
    (volume,) = ImageFolder(format="tiff", path=".").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, [image])


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_white_minima_and_compression(tmp_path: Path, compression: str | None) -> None:
    pixels = np.arange(60, dtype=np.uint16).reshape(6, 10)
    write(
        tmp_path / "1.tif",
        65535 - pixels,
        photometric="miniswhite",
        compression=compression,
        predictor=bool(compression),
    )
    (volume,) = ImageFolder(format="tiff", path=".").volumes(tmp_path)
    np.testing.assert_array_equal(volume.images, [pixels])


def test_masks_among_the_slices_are_told_by_content(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    for number in range(3):
        write(tmp_path / f"p/{number}.png", image)
        write(tmp_path / f"p/{number}b.png", (image > 128) * np.uint8(255))
    with noting(tmp_path) as left_out:
        (volume,) = ImageFolder(format="png", path=".").volumes(tmp_path)
    assert (len(volume.images), [one.path for one in left_out]) == (3, [f"p/{n}b.png" for n in range(3)])


def test_a_pattern_divides_the_slices_of_one_folder(tmp_path: Path) -> None:
    for name in ("p1_1", "p1_2", "p2_1"):
        write(tmp_path / f"{name}.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    source = ImageFolder(format="png", path=".", subject={"pattern": "(p[0-9])"})
    assert [(v.subject, len(v.images)) for v in source.volumes(tmp_path)] == [("p1", 2), ("p2", 1)]
