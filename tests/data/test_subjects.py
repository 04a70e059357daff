"""Who is who by names alone, labels by name and content, and what of a site's folder is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedsim.core.errors import InputError
from fedsim.data.discovery import data_files, fetched
from fedsim.data.labels import label_folder, looks_like_label, named_label
from fedsim.data.left_out import noting
from fedsim.data.subjects import SubjectPattern, apart, by_file, connected, told_by, unique_name


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("sub-01/ses-2/anat/sub-01_ses-2_T1w", "sub-01"),
        ("ses-2/sub-01_T1w", "sub-01"),
        ("PatientID_0003/Timepoint_1/brain_t1n", "PatientID_0003"),
        ("visit1/anna/T1", "anna"),
        ("anna_visit1/T1", "anna"),
        ("anna/2020-01-01/series1/IM1", "anna"),
        ("T1/anna/IM1", "anna"),
        ("train/P07/study/series1/IM1", "P07"),
        ("IXI002-Guys-0828-T1", "IXI002"),
        ("TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1", "TCGA_CS_4941"),
        ("BraTS-GLI-00005-001/x", "BraTS-GLI-00005"),
        ("BraTS-MEN-RT-0001-1/x", "BraTS-MEN-RT-0001"),
        ("HGG/Brats17_TCIA_101_1/x", "Brats17_TCIA_101"),
        ("OAS1_0001_MR2_T1", "OAS1_0001"),
        ("OAS30001_MR_d0129/x", "OAS30001"),
        ("UCSF-PDGM-0431_FU001d_nifti/x", "UCSF-PDGM-0431"),
        ("2022061003_T102", "2022061003"),
        ("imagesTr/hippocampus_001", "hippocampus_001"),
        ("anna/liver_01", "anna"),
        ("V01/x", "V01"),
        ("01-03-2011/anna/T1", "anna"),
        ("2011_03_01/anna/T1", "anna"),
        ("12-Mar-2011/anna/T1", "anna"),
        ("retest/P1/T1", "P1"),
        ("P1_rescan/T1", "P1"),
        ("9000001_LEFT/dess", "9000001"),
        ("101-2/T1", "101"),
        ("101b/T1", "101"),
        ("scan", "hospital"),
        ("T1/ses-1", "hospital"),
    ],
)
def test_a_person_is_named_by_what_names_a_person(path: str, subject: str) -> None:
    *folders, name = path.split("/")
    assert told_by(folders, name, "hospital").name == subject


def test_every_file_a_subject_but_not_every_visit_or_contrast() -> None:
    names = {
        "IXI002-Guys-0828-T1": "IXI002",
        "P1_V2_T1": "P1",
        "s2": "s2",
        "slice_3": "slice_3",
        "oasis_04": "oasis_04",
    }
    assert {name: by_file(name).name for name in names} == names


def test_what_the_file_records_counts_before_folders() -> None:
    assert told_by(["x"], "IM1", "hospital", "Anna_V2", "PatientID").name == "Anna"
    assert told_by(["sub-01"], "IM1", "hospital", "anything", "PatientID").name == "sub-01"


def test_files_with_two_parts_that_vary_are_told_apart_by_the_first() -> None:
    files = [Path(f"{who}_{scan}.h5") for who in ("anna", "bert") for scan in "ab"]
    assert set(apart(files).values()) == {"anna", "bert"}
    assert set(apart([Path(f"file_{i}.h5") for i in range(3)]).values()) == {"file_0", "file_1", "file_2"}
    assert set(apart([Path(f"c1_rep{i}.h5") for i in range(3)]).values()) == {"c1"}


def test_a_number_of_coils_is_nobody() -> None:
    files = [Path(f"{name}.cfl") for name in ("brain-8coil", "anna_12ch", "anna_32-channels_t1")]
    assert list(apart(files).values()) == ["brain-8coil", "anna", "anna"]
    assert by_file("brain-8coil").name == "brain-8coil"
    assert by_file("coil8_anna").name == "coil8_anna"


def test_two_texts_never_make_one_name() -> None:
    texts = ["患者甲", "患者乙", "Müller", "Muller", "a b", "a-b", "a.b", "a_b"]
    names = [unique_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(name.isascii() for name in names)
    assert [unique_name(text) for text in ("Muller", "a-b", "a_b")] == ["Muller", "a-b", "a_b"]
    assert unique_name("Mu\u0308ller") == unique_name("Müller"), "composed or not, it is one name"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("P(\\d+", "is not a regular expression"),
        ("P\\d+", "has 0 groups"),
        ("(P)(\\d)", "has 2 groups"),
        ("(?<=x)(a)", "is not a regular expression"),
    ],
)
def test_a_pattern_has_one_group(pattern: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SubjectPattern(pattern=pattern)


def test_a_pattern_finds_the_subject_in_any_time() -> None:
    assert SubjectPattern(pattern="^([^/]+)/").subject("anna/x.nii").name == "anna"
    with pytest.raises(InputError, match=r"does not match subject\.pattern"):
        SubjectPattern(pattern="^(a+)+b$".replace("+)+", "+)")).subject("x")
    with pytest.raises(InputError, match="does not match"):
        SubjectPattern(pattern="((?:a+)+)$").subject("a" * 200 + "b")


def test_groups_with_a_member_in_common_are_one() -> None:
    assert sorted(map(sorted, connected([[1, 2], [3], [4, 2], [5, 3]]))) == [[1, 2, 4], [3, 5]]


@pytest.mark.parametrize(
    "name",
    ["x_seg", "W39_1998.09.19_Segm", "P1_tumor_segmentation", "BraTS-1_gtv", "P1_tumorMask", "sub-01_dseg", "mask_3",
     "sub-01_label-GM_probseg", "lesion_roi", "p1_gt", "x-MSK", "brain_mask_2", "P1_wmparc", "P1_T1_pveseg",
     "gm_probability_map"],
)  # fmt: skip
def test_labels_by_name(name: str) -> None:
    assert named_label(name, "folder")


@pytest.mark.parametrize(
    "name",
    ["segovia_T1", "sub-mask01_T1w", "MSK_012_T2", "T1_masked", "ROI07_flair", "asl_label", "P1_T1", "mask01_T1"],
)
def test_names_that_are_no_labels(name: str) -> None:
    assert not named_label(name, "folder")


def test_a_number_like_a_label_in_the_folders_name_is_a_persons() -> None:
    assert not named_label("SEG-001_T1", "SEG-001")
    assert named_label("SEG-001_seg", "SEG-001")


def test_folders_of_labels() -> None:
    assert all(map(label_folder, ["labelsTr", "masks", "manual_segmentations", "gt"]))
    assert not any(map(label_folder, ["imagesTr", "images_and_masks", "SEG_001", "segovia", "MSK_001"]))


def smooth(size: int = 64) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[-1:1:complex(0, size), -1:1:complex(0, size)]  # fmt: skip
    image = np.where(x**2 + y**2 < 0.8, 400 + 500 * np.exp(-4 * ((x - 0.2) ** 2 + y**2)), 0)
    return np.stack([image, image[::-1]])


def test_labels_by_content_and_images_of_few_grey_levels() -> None:
    labels = np.zeros((2, 64, 64))
    for value, at in ((1, 5), (2, 20), (4, 35)):
        labels[:, at : at + 14, 10:50] = value
    assert looks_like_label(labels.astype(np.float32))
    assert looks_like_label((smooth() > 600).astype(np.float32))
    many = np.random.default_rng(0).permutation(np.arange(1, 31)).reshape(5, 6).repeat(10, 0).repeat(10, 1)
    assert looks_like_label(many[None].astype(np.float32))
    for levels in (6, 10, 16, 40):
        image = np.floor(smooth() / 1000 * levels)
        assert not looks_like_label(image.astype(np.float32)), levels
        noisy = smooth() + np.random.default_rng(levels).normal(0, 60, (2, 64, 64)) * (smooth() > 0)
        assert not looks_like_label(np.floor(np.clip(noisy, 0, 999) / 1000 * levels).astype(np.float32)), levels
    assert not looks_like_label(np.full((2, 64, 64), 7, np.float32))


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def test_what_is_read_and_what_is_left_out(tmp_path: Path) -> None:
    own = put(tmp_path / "A/p1/x.nii")
    for other in (".git/annex/y.nii", "derivatives/z.nii", "p1/x_seg.nii", "p1/notes.txt"):
        put(tmp_path / "A" / other)
    pool = put(tmp_path / "pool/p2/x.nii")
    (tmp_path / "A/p2").symlink_to("../pool/p2")
    (tmp_path / "A/p1/again.nii").symlink_to("x.nii")
    (tmp_path / "A/loop").symlink_to("..")
    (tmp_path / "A/p3.nii").symlink_to(".git/annex/y.nii")
    with noting(tmp_path) as left_out:
        found = data_files(tmp_path / "A", tmp_path, lambda file: file.suffix == ".nii")
    assert found == [own, tmp_path / "A/p2/x.nii", tmp_path / "A/p3.nii"]
    assert found[1].resolve() == pool
    assert {one.path: one.reason for one in left_out} == {
        "A/.git/": "hidden file or folder",
        "A/derivatives/": "folder of derivatives or copies",
        "A/loop/": "link to a folder that it lies in",
        "A/p1/again.nii": "file that is read already by another path",
        "A/p1/notes.txt": "file of another kind (.txt)",
        "A/p1/x_seg.nii": "label by its name",
    }


def test_a_link_to_nothing_or_out_of_the_root_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "outside/x.nii")
    root = tmp_path / "root"
    (root / "A").mkdir(parents=True)
    (root / "A/x.nii").symlink_to("missing.nii")
    with pytest.raises(InputError, match=r"x\.nii: is a link to a file that is not there; fetch it"):
        fetched(data_files(root / "A", root, lambda file: file.suffix == ".nii"))
    (root / "A/x.nii").unlink()
    (root / "A/out").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=r"out: leads outside federation\.root"):
        data_files(root / "A", root, lambda file: file.suffix == ".nii")
