"""Reading a workload file: YAML, `--set` overrides, validation, and errors in one clear line."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from fedsim.algorithms.catalogue import METHODS
from fedsim.core.errors import InputError, hint
from fedsim.core.extension import Catalogue
from fedsim.core.own import find_own
from fedsim.core.section import Section
from fedsim.core.yaml import load_yaml, read_yaml
from fedsim.models.catalogue import NETWORKS
from fedsim.workload.explaining import explained, shown
from fedsim.workload.old_keys import current_key, with_current_keys
from fedsim.workload.schema import Workload

log = logging.getLogger("fedsim")

S = TypeVar("S", bound=Section)
_FILES = (".training.init", ".time.available.trace")  # keys that name a file beside the workload


def load_workload(path: str | Path, overrides: Sequence[str] = (), *, code: bool = True) -> Workload:
    """The workload of a YAML file, with `KEY=VALUE` overrides (values are YAML) applied and paths resolved.

    Args:
        path: The file.
        overrides: Applied in order.
        code: Whether files of the user's own classes may be executed; if not, such a section has only its keys.

    Raises:
        InputError: the file, a key or a value is wrong; the message names it and what would be right.
    """
    path = Path(path)
    content = with_current_keys(read_yaml(path), f"{path}: ")
    for override in overrides:
        _override(content, override)
    content = with_found_files(content, path.parent)
    folders = (path.parent, Path.cwd())
    catalogues: dict[str, Catalogue[Any]] = {"algorithm": METHODS, "model": NETWORKS}
    for section, catalogue in catalogues.items():
        _set_aside(content, section, catalogue, folders if code else None)
    workload = read_content(content, f"{path}: ", code=code, folders=folders)
    federation = workload.federation
    for name in federation.own_datasets():
        find_own(name, folders)
    where = {"root": _find(federation.root, path.parent), "cache": federation.cache.expanduser().absolute()}
    scratch = workload.engine.scratch and workload.engine.scratch.expanduser().absolute()
    return workload.model_copy(update={
        "federation": federation.model_copy(update=where),
        "engine": workload.engine.model_copy(update={"scratch": scratch}),
    })  # fmt: skip


def read_content(
    content: Mapping[str, Any], where: str, *, code: bool = False, folders: Sequence[Path] = ()
) -> Workload:
    """A workload from its keys.

    Args:
        content: As a file has it.
        where: Beginning of messages.
        code: Whether files of the user's own classes may be executed; if not, such a section has only its keys.
        folders: Folders searched for these files.

    Raises:
        InputError: a key or a value is wrong.
    """
    return parse_section(Workload, with_current_keys(content, where), where, {"code": code, "folders": folders})


def read_section(kind: type[S], settings: Sequence[str]) -> S:
    """A section from `KEY=VALUE` settings alone.

    Raises:
        InputError: a key or a value is wrong.
    """
    content: dict[str, Any] = {}
    for setting in settings:
        _override(content, setting)
    return parse_section(kind, content, "--set ")


def parse_section(kind: type[S], content: Mapping[str, Any], where: str, context: Any = None) -> S:  # noqa: ANN401
    """A section from its keys; `context` is for its validators.

    Raises:
        InputError: a key or a value is wrong; the message begins with `where`.
    """
    try:
        return kind.model_validate(content, context=context)
    except ValidationError as error:
        raise InputError(f"{where}{explained(error, kind)}") from error


def parse_setting(setting: str) -> tuple[str, Any]:
    """The dotted key and the value (YAML) of `KEY=VALUE`.

    Raises:
        InputError: it has no key, or the value is not YAML.
    """
    key, separator, text = setting.partition("=")
    if not separator or key != shown(key):
        raise InputError(f"--set {shown(setting)}: must be KEY=VALUE, for example training.rounds=5")
    try:
        return key, load_yaml(text)
    except ValueError as error:
        raise InputError(f"--set {key}: the value is not valid YAML: {error}") from error


def write_yaml(content: Mapping[str, Any]) -> str:
    """`content` as YAML text, in its own order."""
    yaml, stream = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(content), stream)
    return stream.getvalue()


def _override(content: dict[str, Any], override: str) -> None:
    key, value = parse_setting(override)
    key = current_key(key)
    *parents, last = key.split(".")
    if parents[:1] == ["sites"]:
        parents.insert(0, "federation")
    node: Any = content
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else _item(node, parent, key)
        if node is None or not isinstance(node, dict | list):
            raise InputError(f"--set {key}: {parent} is not a section")
    if isinstance(node, list):
        node[_place(node, last, key)] = value
    else:
        node[last] = value


def _item(node: list[Any], index: str, key: str) -> Any:  # noqa: ANN401 - any YAML value
    return node[_place(node, index, key)]


def _place(node: list[Any], index: str, key: str) -> int:
    """The index of a list item that is given by number or by its key `name`."""
    if index in map(str, range(len(node))):
        return int(index)
    names = [str(item["name"]) for item in node if isinstance(item, dict) and "name" in item]
    if index in names:
        return next(at for at, item in enumerate(node) if isinstance(item, dict) and str(item.get("name")) == index)
    named = f", or a name; {hint(index, names)}" if names else ""
    raise InputError(
        f"--set {key}: {shown(index)!r} must be a number from 0 to {len(node) - 1}, the place in the list{named}"
    )


def _set_aside(
    content: dict[str, Any], section: str, catalogue: Catalogue[Any], folders: Sequence[Path] | None
) -> None:
    """Add the default kind if none is given, and drop keys that only other kinds of the section have.

    A user's own kind is searched for in the folders; without folders its keys are left unchanged.
    """
    given = content.get(section)
    if not isinstance(given, dict):
        return
    default, *_ = catalogue.names()
    name = given.get("name", default)
    if catalogue.has(name):
        chosen = [catalogue.find(name, folders)] if folders is not None else []
    else:
        chosen = [kind for kind in catalogue.known if kind.model_fields["name"].default == name]
    if not chosen:
        return
    others = {key for kind in catalogue.known for key in kind.model_fields} - set(chosen[0].model_fields)
    for key in sorted(others & set(given)):
        log.warning("%s.%s is not a key of %s: unused", section, key, name)
    content[section] = {"name": default, **{key: value for key, value in given.items() if key not in others}}


def _find(root: Path, beside: Path) -> Path:
    root = root.expanduser()
    found = [base / root for base in (Path.cwd(), beside.absolute()) if (base / root).is_dir()]
    return (found or [Path.cwd() / root])[0].resolve()


def with_found_files(settings: Any, folder: Path) -> Any:  # noqa: ANN401 - any YAML value
    """The settings of a workload or a study, with absolute paths of the files that they name.

    Args:
        settings: As a file has them.
        folder: The workload's, where such files are looked up; then in the working directory.
    """
    return with_other_files(settings, partial(_beside, folder))


def with_other_files(settings: Any, other: Callable[[Path], Path], at: str = "") -> Any:  # noqa: ANN401 - any YAML value
    """The settings at a dotted key of a workload or a study, with other paths of the files that they name.

    Args:
        settings: As a file has them.
        other: Gives the path that takes the place of one.
        at: Where the settings are, with a dot before each key.
    """
    if isinstance(settings, Mapping):
        return {key: with_other_files(value, other, f"{at}.{key}") for key, value in settings.items()}
    if isinstance(settings, list):
        return [with_other_files(value, other, at) for value in settings]
    return str(other(Path(settings))) if isinstance(settings, str) and at.endswith(_FILES) else settings


def _beside(folder: Path, file: Path) -> Path:
    """A file, looked up in a folder and then in the working directory."""
    found = folder.absolute() / file.expanduser()
    return found if found.exists() else Path.cwd() / file.expanduser()
