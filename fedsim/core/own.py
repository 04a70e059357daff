"""Classes of the user's own, named `module:Class`, from a file beside the workload or installed."""

import importlib.util
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from types import ModuleType

from fedsim.core.errors import InputError

log = logging.getLogger("fedsim")

_FILES: dict[str, Path] = {}
"""Folders of this process's user modules; Ray actors receive what they need of them by value."""

_OWN = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_own(name: object) -> bool:
    """Whether a name is that of a user's class."""
    return isinstance(name, str) and ":" in name


def own_class(name: str, key: str, wanted: str, folders: Sequence[Path] = ()) -> tuple[str, type | None]:
    """The module of a user's class, and the class; None if the module does not define it.

    Args:
        name: module:Class.
        key: Key of the workload, for messages.
        wanted: The allowed values in words, for messages.
        folders: Folders searched for a file module.py, before the installed modules.

    Raises:
        InputError: the name is malformed, or there is no such module.
    """
    match = _OWN.fullmatch(name)
    if match is None:
        raise InputError(f"{key}: {name!r:.80} must be {wanted}")
    module, kind = match.groups()
    if module.endswith(".py"):
        raise InputError(f"{key}: {name!r:.80} must be module:Class without '.py': {module.removesuffix('.py')}:{kind}")
    find_own(name, folders)
    found = getattr(_import(module, key), kind, None)
    return module, found if isinstance(found, type) else None


def find_own(name: str, folders: Sequence[Path]) -> None:
    """Record which of the folders has the file of a user's class, without executing it; the first counts."""
    module = name.partition(":")[0]
    files = [path for folder in folders if (path := folder.absolute() / f"{module}.py").is_file()]
    if files:
        _FILES[module] = files[0]


def file_of(name: str) -> Path | None:
    """The file of a user's class, if its module is a single file that was found or imported; does not execute it."""
    module = name.partition(":")[0]
    loaded = getattr(sys.modules.get(module), "__file__", None)
    file = _FILES.get(module) or (Path(loaded) if loaded else None)
    return None if "." in module else file


def check_owner(folder: Path, names: Sequence[str], trust: bool | None) -> None:
    """Say whose code is about to be executed for a run directory, and refuse code that must not be.

    Args:
        folder: A run directory.
        names: The classes that it names, module:Class.
        trust: True: execute it, regardless of its owner; None: if folder, workload.yaml and code belong to this user;
            False: never.

    Raises:
        InputError: the code must not be executed.
    """
    modules = dict.fromkeys(name.partition(":")[0] for name in names)
    places = [[at / f"{module}.py" for at in (folder, Path.cwd())] for module in modules]
    files = [next(path for path in paths if path.is_file()) for paths in places if any(p.is_file() for p in paths)]
    code = ", ".join(map(str, files or modules))
    if trust is False:
        raise InputError(f"{folder}: its own code ({code}) would have to be run for that, which --trust allows")
    theirs = [path for path in (folder, folder / "workload.yaml", *files) if path.stat().st_uid != os.getuid()]
    if theirs and not trust:
        raise InputError(
            f"{theirs[0]}: belongs to {_owner(theirs[0])}, not to you, and {code} would be run; read it, then repeat "
            "with --trust"
        )
    log.info("runs the code in %s, which belongs to %s", code, _owner((files or [folder])[0]))


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def _import(module: str, key: str) -> ModuleType:
    file, loaded = _FILES.get(module), sys.modules.get(module)
    try:
        if file is None or (loaded is not None and loaded.__file__ == str(file)):
            return importlib.import_module(module)
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None and spec.loader is not None  # noqa: PT018 - it is a file that exists
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module, None)
        where = file or module
        what = shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise InputError(f"{key}: {where} cannot be imported ({what})") from error
    return loaded
