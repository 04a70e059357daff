"""Files that a shared file system shows late."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from fedsim.core import shared_disk
from fedsim.core.errors import DamagedError
from fedsim.core.shared_disk import awaited, is_shared
from fedsim.engine.state.client_files import FilePart, read_clients

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /home rw - nfs4 server:/home rw
31 30 0:27 / /home/a\040b rw - tmpfs none rw
32 22 0:28 / /scratch rw shared:1 - lustre server:/scratch rw
33 22 0:29 / /bucket rw - fuse.gcsfuse runs rw
34 22 0:30 / /über rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "shared"),
    [("/home/me/run", True), ("/home/a b/run", False), ("/homeless", False), ("/scratch", True), ("/bucket/x", True),
     ("/über/x", False), ("/", False)],
)  # fmt: skip
def test_shared_file_systems_are_known_by_their_type(tmp_path: Path, path: str, shared: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_shared(Path(path), tmp_path / "mounts") == shared
    assert not is_shared(Path(path), tmp_path / "none")


def test_a_file_that_is_shown_late_is_waited_for(tmp_path: Path) -> None:
    late = tmp_path / "late"
    writer = threading.Timer(0.3, late.touch)
    writer.start()
    assert awaited(late, within=30).exists()
    writer.join()
    assert not awaited(tmp_path / "never", within=0.1).exists()


def test_one_that_is_missing_on_a_disk_of_this_machine_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_disk.time, "sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(DamagedError, match="is missing"):
        next(read_clients(FilePart(tmp_path / "A.safetensors", "", {}), None))  # type: ignore[arg-type]


def test_on_a_file_system_that_remembers_what_was_absent(tmp_path: Path) -> None:
    """As NFS and FUSE do: this machine sees a file only a second after it was written elsewhere."""
    if not shutil.which("bindfs"):
        pytest.skip("a file system that shows files late needs bindfs")
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir(), here.mkdir()
    mount = ["bindfs", "-o", "negative_timeout=1,entry_timeout=1,attr_timeout=1", there, here]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no FUSE file systems")
    try:
        assert not (here / "new").exists()
        (there / "new").touch()
        assert not (here / "new").exists()
        assert awaited(here / "new").exists()
    finally:
        subprocess.run(["umount", "--lazy", here], check=True)
