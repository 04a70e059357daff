"""Damaged and odd files of raw data are refused in one line that names them, and leave nothing behind."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fedsim.core.errors import InputError
from fedsim.data.shard import ensure_shard
from fedsim.data.sources import AnySource

from .bad_raw_files import Bad, bad_files

BAD = [*bad_files()]


def test_there_are_many_and_none_twice() -> None:
    assert len({(bad.format, bad.what) for bad in BAD}) == len(BAD) > 120
    assert all(bad.says for bad in BAD), "of each the reason is known"


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.format}: {bad.what}")
def test_one_line_says_which_file_and_why(bad: Bad, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    bad.make(tmp_path / "site" / bad.name)
    source = TypeAdapter(AnySource).validate_python({"format": bad.format, "path": "site", **bad.keys})
    with pytest.raises(InputError) as caught:
        ensure_shard(source, tmp_path, tmp_path / "cache", (32, 32))
    message = str(caught.value)
    assert message.isprintable()
    assert bad.folder or message.partition(": ")[0].endswith(f"site/{bad.name}")
    assert message.count(str(tmp_path)) <= 1
    assert re.search(bad.says, message)
    assert not [*tmp_path.glob("cache/*.h5*")]
