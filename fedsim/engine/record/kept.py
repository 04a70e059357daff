"""What a run keeps of what its workload names: the files of a user's own classes, a start, and a trace."""

import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Any

from fedsim.core.errors import InputError
from fedsim.core.extension import package_of
from fedsim.core.files import replacing, write_text
from fedsim.core.own import file_of, is_own
from fedsim.workload.reading import with_other_files
from fedsim.workload.schema import Workload

_INIT, _TRACE = "training.init", "time.available.trace"
_COPIES = {_INIT: ("init.safetensors",), _TRACE: ("trace.csv", "trace.parquet")}
"""Names of the copies of these keys' files."""


def keep_own(path: Path, workload: Workload) -> None:
    """Keep the files of a user's own classes with the run, where they are found first when the run is opened again.

    A tracker's may be another than the run began with.
    """
    lasting = own_files(_without_trackers(workload))
    for source in own_files(workload):
        if source not in lasting or not (path / source.name).exists():
            write_text(path / source.name, source.read_text(encoding="utf-8"))


def own_files(workload: Workload) -> list[Path]:
    """The files of the user's own classes, those of single modules."""
    return list(dict.fromkeys(file for name in own_names(workload) if (file := file_of(name))))


def own_names(workload: Workload) -> list[str]:
    """The user's own classes that a workload names, module:Class."""
    names = [one.label for one in workload.extensions()] + workload.federation.own_datasets()
    return list(dict.fromkeys(name for name in names if is_own(name)))


def _without_trackers(workload: Workload) -> Workload:
    """What can change a result."""
    return workload.model_copy(update={"trackers": ()})


def versions_of(workload: Workload) -> dict[str, str]:
    """What identifies the packages of a user's own classes, and the file that the networks start from."""
    packages = {name: at for one in _without_trackers(workload).extensions() for name, at in package_of(one)}
    init = workload.training.init
    return packages | ({"init": f"sha256 {hashlib.sha256(init.read_bytes()).hexdigest()}"} if init else {})


def files_of(workload: Workload) -> dict[str, Path | None]:
    """The files that a run keeps a copy of, by key: what the networks start from, and a trace."""
    time = workload.time
    return {_INIT: workload.training.init, _TRACE: time.available.trace if time else None}


def keep_files(path: Path, workload: Workload) -> Workload:
    """Keep the files that the workload names with the run; the workload, naming the copies."""
    for key, file in files_of(workload).items():
        if file is not None and not (kept := _kept(path, key, file)).exists():
            with replacing(kept) as temporary:
                temporary.write_bytes(file.read_bytes())
    init, time = workload.training.init, workload.time
    training = workload.training.model_copy(update={"init": init and Path(_kept(path, _INIT, init).name)})
    if time and (trace := time.available.trace):
        time = time.with_trace(Path(_kept(path, _TRACE, trace).name))
    return workload.model_copy(update={"training": training, "time": time})


def _kept(path: Path, key: str, file: Path | None) -> Path:
    """The copy of a key's file in a run directory, there or to be made."""
    copies = [path / name for name in _COPIES[key]]
    alike = (copy for copy in copies if file and copy.suffix == file.suffix.lower())
    return next((copy for copy in copies if copy.exists()), None) or next(alike, copies[0])


def with_copies(settings: Any, folder: Path, most: float = math.inf) -> Any:  # noqa: ANN401 - any YAML value
    """The settings of a workload or a study, with the names of copies of the files that they name, made in a folder.

    Args:
        settings: With absolute paths.
        folder: For the copies.
        most: Bytes that the folder may hold; a file that is too large, or that does not exist, keeps its path.
    """
    return with_other_files(settings, partial(_copied, folder, most))


def _copied(folder: Path, most: float, file: Path) -> Path:
    if not file.is_file() or file.stat().st_size > most:
        return file
    copy = folder / copy_name(file)
    if not copy.exists():
        if sum(path.stat().st_size for path in folder.iterdir()) + file.stat().st_size > most:
            return file
        with replacing(copy) as temporary:
            temporary.write_bytes(file.read_bytes())
    return Path(copy.name)


def copy_name(file: Path) -> str:
    """The name of a copy, which says what is in it."""
    with file.open("rb") as opened:
        return f"{hashlib.file_digest(opened, 'sha256').hexdigest()[:10]}{file.suffix.lower()}"


def check_kept(path: Path, workload: Workload) -> None:
    """Refuse to resume a run if the code of a user's own classes, or a file that the run keeps, has changed.

    Raises:
        InputError: naming the file.
    """
    for source in own_files(_without_trackers(workload)):
        kept = path / source.name
        if kept.exists() and kept.read_bytes() != source.read_bytes():
            raise InputError(
                f"{source}: is not what it was when {path} began ({kept}); a resumed run must keep its own code"
            )
    for key, file in files_of(workload).items():
        copy = _kept(path, key, file)
        if copy.exists() and (file is None or not file.is_file() or file.read_bytes() != copy.read_bytes()):
            raise InputError(f"{key}: is not what it was when {path} began; set it to {copy}")
        if file is not None and not copy.exists() and (path / "manifest.parquet").exists():
            raise InputError(f"{key}: {path} began without it; leave the key out to resume the run")
