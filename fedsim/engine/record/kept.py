"""What a run keeps of what its workload names: the files of a user's own classes, and the network it starts from."""

import hashlib
from pathlib import Path

from fedsim.core.errors import InputError
from fedsim.core.extension import package_of
from fedsim.core.files import replacing, write_text
from fedsim.core.own import file_of, is_own
from fedsim.workload.schema import Workload

_INIT = "init.safetensors"


def keep_own(path: Path, workload: Workload) -> None:
    """Keep the files of a user's own classes with the run, where they are found first when the run is opened again."""
    for source in own_files(workload):
        if not (path / source.name).exists():
            write_text(path / source.name, source.read_text(encoding="utf-8"))


def own_files(workload: Workload) -> list[Path]:
    """The files of the user's own classes, those of single modules."""
    return list(dict.fromkeys(file for name in own_names(workload) if (file := file_of(name))))


def own_names(workload: Workload) -> list[str]:
    """The user's own classes that a workload names, module:Class."""
    names = [one.label for one in workload.extensions()] + workload.federation.own_datasets()
    return list(dict.fromkeys(name for name in names if is_own(name)))


def versions_of(workload: Workload) -> dict[str, str]:
    """What identifies the packages of a user's own classes, and the file that the networks start from."""
    packages = {name: at for one in workload.extensions() for name, at in package_of(one)}
    init = workload.training.init
    return packages | ({"init": f"sha256 {hashlib.sha256(init.read_bytes()).hexdigest()}"} if init else {})


def keep_init(path: Path, workload: Workload) -> Workload:
    """Keep the file that the networks start from with the run; the workload, naming the copy."""
    init = workload.training.init
    if init is None:
        return workload
    if not (path / _INIT).exists():
        with replacing(path / _INIT) as temporary:
            temporary.write_bytes(init.read_bytes())
    return workload.model_copy(update={"training": workload.training.model_copy(update={"init": Path(_INIT)})})


def check_kept(path: Path, workload: Workload) -> None:
    """Refuse to resume a run if the code of a user's own classes, or what the networks start from, has changed.

    Raises:
        InputError: naming the file.
    """
    for source in own_files(workload):
        kept = path / source.name
        if kept.exists() and kept.read_bytes() != source.read_bytes():
            raise InputError(
                f"{source}: is not what it was when {path} began ({kept}); a resumed run must keep its own code"
            )
    init, kept = workload.training.init, path / _INIT
    if kept.exists() and (init is None or init.read_bytes() != kept.read_bytes()):
        raise InputError(f"training.init: is not what it was when {path} began; set it to {kept}")
    if init is not None and not kept.exists() and (path / "manifest.parquet").exists():
        raise InputError(f"training.init: {path} began without it; a run that has begun keeps its start")
