"""What is not read is counted and named, from wherever it is noticed."""

from pathlib import Path

from fedsim.data.left_out import LeftOut, leave_out, lines, noting


def test_each_thing_is_noted_once_by_its_path_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    leave_out(tmp_path / "A", "nobody listens")
    with noting(tmp_path) as left_out:
        leave_out(tmp_path / "A", "hidden folder")
        leave_out(tmp_path / "A/x.nii", "label by its name")
        leave_out(tmp_path / "A/x.nii", "found again")
        with noting(tmp_path) as inner:
            leave_out(tmp_path / "A/y.nii", "empty slice", "slice 3")
    assert list(left_out) == [LeftOut("A/", "hidden folder"), LeftOut("A/x.nii", "label by its name")]
    assert list(inner) == [LeftOut("A/y.nii", "empty slice", "slice 3")]


def test_a_line_a_reason_names_the_first() -> None:
    several = [LeftOut(f"A/{i}_seg.nii", "label by its name") for i in range(5)]
    assert lines([*several, LeftOut("A/y.nii", "empty slice", "slice 3")]) == [
        "left out: 5 x label by its name: A/0_seg.nii, A/1_seg.nii, A/2_seg.nii and 2 more",
        "left out: 1 x empty slice: A/y.nii slice 3",
    ]
