"""The union of sources, and the guess of a format from what a folder holds."""

from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile
from pydantic import BaseModel, TypeAdapter, ValidationError

from fedsim.core.errors import InputError
from fedsim.data.formats.dicom import Dicom
from fedsim.data.formats.fastmri import FastMRI
from fedsim.data.formats.matlab import Matlab
from fedsim.data.formats.nifti import Nifti
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.formats.tiff import ImageFolder
from fedsim.data.sources import AnySource, detect

SOURCE: TypeAdapter[BaseModel] = TypeAdapter(AnySource)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("fastmri", FastMRI), ("nifti", Nifti), ("dicom", Dicom), ("matlab", Matlab)),
        *(("tiff", ImageFolder), ("png", ImageFolder)),
    ],
)
def test_the_format_names_the_importer(name: str, kind: type[BaseModel]) -> None:
    source = SOURCE.validate_python({"format": name, "path": "site"})
    assert type(source) is kind
    assert SOURCE.validate_python(source.model_dump(mode="json")) == source


def test_phantoms_need_no_path_and_unknown_formats_or_keys_are_refused() -> None:
    assert type(SOURCE.validate_python({"format": "phantom"})) is PhantomSource
    for wrong in ({"format": "jpeg", "path": "a"}, {"format": "nifti", "path": "a", "channel": 1}):
        with pytest.raises(ValidationError):
            SOURCE.validate_python(wrong)


@pytest.mark.parametrize("kind", [FastMRI, Nifti, Dicom, Matlab, ImageFolder])
def test_every_key_is_described(kind: type[BaseModel]) -> None:
    assert all(field.description for field in kind.model_fields.values())


def test_detect_takes_the_format_of_most_files(tmp_path: Path) -> None:
    for number in range(3):
        nibabel.save(nibabel.Nifti1Image(np.eye(4)[..., None], np.eye(4)), tmp_path / f"{number}.nii")
    (tmp_path / "figures").mkdir()
    PIL.Image.new("L", (4, 4)).save(tmp_path / "figures" / "preview.png")
    tifffile.imwrite(tmp_path / "figures" / "1.tif", np.eye(4, dtype=np.uint8))
    source = detect(tmp_path)
    assert isinstance(source, Nifti)
    assert len(list(source.volumes(tmp_path.parent))) == 3
    for name, kind in (("preview.png", "png"), ("1.tif", "tiff")):
        assert detect(tmp_path / "figures" / name).model_dump()["format"] == kind


def test_detect_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("text")
    with pytest.raises(InputError, match=r"holds no image; looked for names in .*\.nii\.gz.* and for DICOM"):
        detect(tmp_path)
    with pytest.raises(InputError, match=r"missing: no such file or folder; \S+ holds README$"):
        detect(tmp_path / "missing")


def test_what_is_missing_is_told_by_what_is_there(tmp_path: Path) -> None:
    for name in ("CS", "DU", "FG"):
        (tmp_path / "tcga-lgg" / name).mkdir(parents=True)
    for path, end in {
        "tcga-lgg/ZZ": f"{tmp_path}/tcga-lgg holds CS, DU, FG",
        "tcga-lgg/cs/1.tif": f"{tmp_path}/tcga-lgg holds CS, DU, FG; did you mean '{tmp_path}/tcga-lgg/CS'?",
        "tcga_lgg/CS": f"{tmp_path} holds tcga-lgg; did you mean '{tmp_path}/tcga-lgg'?; "
                       "or set federation.root to what holds 'tcga_lgg/CS'",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as caught:
            ImageFolder(format="tiff", path=path).matching(tmp_path)
        assert str(caught.value) == f"{tmp_path / path}: no such file or folder; {end}"
