"""A folder that is made beside its place appears whole or not at all."""

import subprocess
from pathlib import Path

import pytest

from fedsim.core.errors import InputError, WriteError
from fedsim.core.files import making, replacing
from fedsim.jobs.common import fetch_shared


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_its_block_ends_well(tmp_path: Path) -> None:
    with making(tmp_path / "new" / "folder") as part:
        part.mkdir()
        assert names(tmp_path / "new") == [part.name]
    assert names(tmp_path / "new") == ["folder"]


def test_nothing_is_left_of_a_block_that_fails(tmp_path: Path) -> None:
    def begun() -> None:
        with making(tmp_path / "folder") as part:
            part.mkdir()
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        begun()
    assert names(tmp_path) == []


def test_what_came_in_the_meantime_is_kept(tmp_path: Path) -> None:
    def both() -> None:
        with making(tmp_path / "folder") as part:
            part.mkdir()
            (tmp_path / "folder" / "other").mkdir(parents=True)

    with pytest.raises(WriteError, match="folder: cannot be written"):
        both()
    assert names(tmp_path / "folder") == ["other"]


def test_two_writers_in_one_process_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as one, replacing(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "one")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with making(tmp_path / "folder") as part:
        _, _, rest = part.name.rpartition("@")
        left = tmp_path / f".folder.{ended.pid}@{rest}"
        left.mkdir()
        part.mkdir()
    (tmp_path / "folder").rmdir()
    with making(tmp_path / "folder") as part:
        part.mkdir()
        assert not left.exists()


def test_a_fetch_removes_no_folder_of_anybody_else(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / ".copy.part").mkdir()
    (tmp_path / ".copy.part" / "mine").write_text("")
    fetch_shared(tmp_path / "run", tmp_path / "copy", "is not here")
    assert names(tmp_path) == [".copy.part", "copy", "run"]
