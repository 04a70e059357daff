from io import StringIO
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from fedsim.core.errors import InputError
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.phantom_files import write_phantoms
from fedsim.mri.fft import fft2c
from fedsim.report.inspect import inspect_path
from fedsim.workload.reading import read_section

SOURCE = PhantomSource(subjects=2, slices=5, size=48, contrast=["t1", "flair"], field_t=(1.5, 3.0)).resolve(
    3, "phantom"
)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "new"
    assert len(list(write_phantoms(folder, SOURCE))) == 4
    return folder


def printed(shown: tuple[Table, list[str]]) -> str:
    table, notes = shown
    stream = StringIO()
    Console(width=200, file=stream).print(table)
    return " ".join([*stream.getvalue().split(), *notes])


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def write_volume(path: Path, images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = fft2c(torch.from_numpy(images.astype(np.complex64))).numpy()


def test_phantom_files_read_back_as_they_were(phantoms: Path) -> None:
    made = {volume.name: volume for volume in SOURCE.volumes(phantoms)}
    read = {volume.name: volume for volume in FastMRI(path="new").volumes(phantoms.parent)}
    assert read.keys() == made.keys()
    for name, volume in made.items():
        assert read[name].subject == volume.subject
        np.testing.assert_allclose(read[name].images, volume.images, atol=1e-6)


def test_phantom_files_follow_fastmri(phantoms: Path) -> None:
    with h5py.File(phantoms / "subject-001_flair.h5") as file:
        assert file["kspace"].dtype == np.complex64
        assert file["kspace"].shape == file["reconstruction_esc"].shape == (5, 48, 48)
        assert file.attrs["acquisition"] == "AXFLAIR"
        assert file.attrs["max"] == file["reconstruction_esc"][()].max()
        assert b"<reconSpace><matrixSize><x>48</x><y>48</y>" in file["ismrmrd_header"][()]
    assert len(list(FastMRI(path="new", contrast="AXT1").volumes(phantoms.parent))) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("subject=2", "--set subject: unknown key; did you mean 'subjects'"),
        ("zzz=2", "--set zzz: unknown key; known here: "),
        ("contrast=t9", "--set contrast: .*'t1', 't2', 'pd' or 'flair'"),
        ("te=9000", "te .* must be shorter than tr"),
        ("slices", "must be KEY=VALUE"),
        ("size=[", "not valid YAML"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_section(PhantomSource, [setting])
    assert "\n" not in str(refused.value)


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists; name a new folder"):
        next(write_phantoms(tmp_path, SOURCE))


@pytest.mark.slow
def test_inspect_names_what_is_there(phantoms: Path, tmp_path: Path) -> None:
    text = printed(inspect_path(phantoms, tmp_path / "look.png"))
    assert "fastmri, 4 volumes of 2 subjects, 20 slices" in text
    assert "complex" in text
    assert "48 x 48" in text
    width, height = size(tmp_path / "look.png")
    assert width > height > 400  # four magnitudes and four phases, four rows


@pytest.mark.slow
def test_inspect_says_what_else_is_there(tmp_path: Path) -> None:
    write_volume(tmp_path / "one.h5", np.ones((2, 16, 16)))
    write_volume(tmp_path / "two.h5", np.ones((2, 16, 16)))
    (tmp_path / "scan.dcm").write_bytes(b"not looked into")
    assert "not shown: 1 dicom file; inspect their folders" in printed(inspect_path(tmp_path, tmp_path / "look.png"))


@pytest.mark.slow
def test_inspect_points_out_what_is_odd(tmp_path: Path) -> None:
    images = np.ones((4, 16, 16))
    images[1] = 0
    write_volume(tmp_path / "empty.h5", images)
    write_volume(tmp_path / "broken.h5", images * np.nan)
    text = printed(inspect_path(tmp_path, tmp_path / "look.png"))
    assert "1 empty slice" in text
    assert "1,024 values NaN or infinite" in text


@pytest.mark.slow
def test_inspect_keeps_huge_folders_short(tmp_path: Path) -> None:
    for i in range(62):
        write_volume(tmp_path / f"v{i:03d}.h5", np.ones((1, 16, 16)))
    shown = inspect_path(tmp_path, tmp_path / "look.png")
    assert shown[0].row_count == 61
    assert "... and 2 more" in printed(shown)
    assert size(tmp_path / "look.png")[1] < 3000


def test_inspect_refuses_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no image"):
        inspect_path(tmp_path, tmp_path / "look.png")
    assert not (tmp_path / "look.png").exists()


@pytest.mark.slow
def test_channels_are_counted_and_each_is_shown(tmp_path: Path) -> None:
    for number in range(13):
        tifffile.imwrite(
            tmp_path / f"s{number}.tif", np.random.default_rng(number).integers(0, 255, (2, 8, 8, 3), np.uint8)
        )
    picture = tmp_path.parent / f"{tmp_path.name}.png"
    table, notes = inspect_path(tmp_path, picture)
    assert len(table.rows) == 39
    assert notes == [
        "subjects: 1 identified by the whole site",
        "3 channels, each shown as a volume; a workload must choose: channel: 0 to 2, or a list",
        "the picture shows the first 12 of 39 volumes; --all shows every one",
    ]
    before = size(picture)
    assert len(inspect_path(tmp_path, picture, everything=True)[1]) == 2
    assert size(picture)[1] > 3 * before[1]


@pytest.mark.slow
def test_every_volume_of_a_4d_file_is_shown(tmp_path: Path) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((4, 5, 3, 4), np.float32), np.eye(4)), tmp_path / "a.nii"
    )
    assert "a_v3" in printed(inspect_path(tmp_path / "a.nii", tmp_path / "p.png"))
