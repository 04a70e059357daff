import errno
import fcntl
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedsim.core.errors import DamagedError, InputError
from fedsim.core.files import replacing, sweep
from fedsim.data.cache import clean, entries, note_use
from fedsim.data.shard import Shard, ensure_shard
from fedsim.mri.geometry import kspace_at

from .arrays import Arrays


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    return tmp_path


def put(root: Path, name: str, images: np.ndarray) -> Path:
    np.save(root / "site" / f"{name}.npy", images)
    return root / "site" / f"{name}.npy"


def images(slices: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((slices, side, side)).astype(np.float32) + 1


def shard(root: Path, matrix: tuple[int, int] = (16, 16)) -> Path:
    return ensure_shard(Arrays(path="site"), root, root / "cache", matrix)


def test_holds_the_kspace_of_every_volume(root: Path) -> None:
    put(root, "b", images(seed=1)), put(root, "a", images(2, seed=2))
    with Shard(shard(root)) as opened:
        assert [(v.name, v.subject, v.slices, v.support) for v in opened.volumes()] == [
            ("a", "a", (0, 1), (16, 16)), ("b", "b", (0, 1, 2), (16, 16))]  # fmt: skip
        np.testing.assert_array_equal(opened.kspace("b", [1]), kspace_at(images(seed=1), (16, 16))[1:2])


def test_slices_without_signal_are_left_out(root: Path) -> None:
    stack = images(4)
    stack[[0, 2]] = 0
    put(root, "a", stack)
    with Shard(shard(root)) as opened:
        assert opened.volumes()[0].slices == (1, 3)
        assert opened.kspace("a", slice(0, 9)).shape == (2, 16, 16)


def test_padding_is_not_support(root: Path) -> None:
    put(root, "a", images())
    with Shard(shard(root, (64, 16))) as opened:
        assert opened.volumes()[0].support == (32, 16)
        assert not opened.kspace("a", [0])[0, :16].any()


def test_is_imported_once_and_again_when_a_file_changes(root: Path) -> None:
    file = put(root, "a", images())
    first = shard(root)
    written = first.stat().st_mtime_ns
    assert shard(root) == first
    assert first.stat().st_mtime_ns == written
    assert shard(root, (32, 32)) != first
    np.save(file, images(5))
    assert shard(root) != first


def test_concurrent_imports_agree(root: Path) -> None:
    put(root, "a", images(20))
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: shard(root), range(4)))
    assert len(paths) == 1
    with Shard(paths.pop()) as opened:
        assert len(opened.volumes()) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_names_the_file_and_leaves_nothing(root: Path, bad: float) -> None:
    stack = images()
    stack[1, 2, 3] = bad
    put(root, "a", images()), put(root, "worse", stack)
    with pytest.raises(InputError, match=r"worse\.npy: has NaN or infinite values"):
        shard(root)
    assert [p for p in (root / "cache").iterdir() if p.suffix != ".lock"] == []


def test_a_site_without_signal_is_empty(root: Path) -> None:
    put(root, "a", np.zeros((2, 8, 8), np.float32))
    with pytest.raises(InputError, match="site: holds no image with any signal"):
        shard(root)


def test_a_damaged_shard_is_named(root: Path) -> None:
    put(root, "a", images())
    path = shard(root)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="delete it, and it will be made again"):
        Shard(path)
    path.unlink()
    assert h5py.is_hdf5(shard(root))


def read_all(path: Path) -> None:
    with Shard(path) as opened:
        for volume in opened.volumes():
            opened.kspace(volume.name, slice(None))


def test_a_flipped_byte_is_refused_with_the_remedy(root: Path) -> None:
    put(root, "a", images())
    path = shard(root)
    content = path.read_bytes()
    with Shard(path) as opened:
        (described,), data = opened.volumes(), opened.kspace("a", [1]).tobytes()
    for at in (content.index(data), content.index(data) + len(data) - 1, content.index(described.subject.encode())):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedError, match=rf"{path.name}: is damaged, .*; delete it, and it will be made again"):
            read_all(path)
    path.unlink()
    assert shard(root).read_bytes() == content


def test_the_digest_is_of_the_images_whatever_the_matrix(root: Path) -> None:
    def digest(matrix: tuple[int, int]) -> str:
        with Shard(shard(root, matrix)) as opened:
            return opened.volumes()[0].digest

    file = put(root, "a", images())
    before = digest((16, 16))
    assert digest((32, 32)) == before != ""
    np.save(file, images(seed=1))
    assert digest((16, 16)) != before


def test_what_a_killed_import_left_is_swept_by_the_next(root: Path) -> None:
    """A process that dies in mid-import, as an out-of-memory killer would have it."""
    program = (
        "import os, sys; from pathlib import Path; from fedsim.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary: temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    cache = root / "cache"
    cache.mkdir()
    subprocess.run([sys.executable, "-c", program, cache / "x.h5"], check=False)
    assert len(list(cache.glob(".x.h5.*.part"))) == 1
    with replacing(cache / "mine.h5") as mine:
        mine.write_bytes(b"half")
        sweep(cache)
        assert list(cache.iterdir()) == [mine], "the dead one's is gone, a living one's stays"


def test_the_cache_is_listed_and_what_is_long_unused_deleted(root: Path) -> None:
    put(root, "a", images())
    old, new = shard(root), shard(root, (32, 32))
    os.utime(old, (time.time() - 40 * 86400, time.time() - 50 * 86400))
    listed = [(e.path, e.source, e.volumes, round(e.made_days), round(e.used_days)) for e in entries(root / "cache")]
    assert listed == [(old, f"{root}/site", 1, 50, 40), (new, f"{root}/site", 1, 0, 0)]
    assert [entry.path for entry in clean(root / "cache", 30)] == [old]
    assert list((root / "cache").glob("*.h5")) == [new]
    note_use(old)  # gone: nothing happens


def test_asks_the_file_system_for_no_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock says ENOLCK, as on some network's disks."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks), monkeypatch.setattr(fcntl, "lockf", no_locks)
    put(root, "a", images())
    with Shard(shard(root)) as opened:
        assert len(opened.volumes()) == 1
