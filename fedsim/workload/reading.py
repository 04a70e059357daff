"""Reading a workload file: YAML, `--set` overrides, validation, and one clear line when something is wrong."""

import logging
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from fedsim.algorithms.catalogue import ALGORITHMS, Unread, own_method
from fedsim.core.errors import InputError, hint
from fedsim.core.own import find_own, is_own
from fedsim.core.section import Section
from fedsim.core.yaml import load_yaml, read_yaml
from fedsim.workload.explaining import explained, shown
from fedsim.workload.schema import MODELS, Workload

log = logging.getLogger("fedsim")

S = TypeVar("S", bound=Section)


def load_workload(path: str | Path, overrides: Sequence[str] = (), *, code: bool = True) -> Workload:
    """The workload of a YAML file, with `KEY=VALUE` overrides (values are YAML) applied and paths resolved.

    Args:
        path: The file.
        overrides: Applied in turn.
        code: Whether the file of a user's own method may be run; without it, the method has its keys alone.

    Raises:
        InputError: the file, a key or a value is wrong; the message names it and what would be right.
    """
    path = Path(path)
    content = read_yaml(path)
    for override in overrides:
        _override(content, override)
    if code or not _has_own_method(content):
        _set_aside(content, "algorithm", [*ALGORITHMS, *_own_methods(content, path.parent)])
    _set_aside(content, "model", MODELS)
    workload = read_content(content, f"{path}: ", code=code)
    federation = workload.federation
    for name in federation.own_datasets():
        find_own(name, (path.parent, Path.cwd()))
    where = {"root": _find(federation.root, path.parent), "cache": federation.cache.expanduser().absolute()}
    scratch = workload.engine.scratch and workload.engine.scratch.expanduser().absolute()
    engine = workload.engine.model_copy(update={"scratch": scratch})
    return workload.model_copy(update={"federation": federation.model_copy(update=where), "engine": engine})


def read_content(content: Mapping[str, Any], where: str, *, code: bool = False) -> Workload:
    """A workload from its keys; the file of a user's own method is run with `code` alone.

    Raises:
        InputError: a key or a value is wrong; the message begins with `where`.
    """
    if _has_own_method(content) and not code:
        content = {**content, "algorithm": parse_section(Unread, content["algorithm"], where)}
    return parse_section(Workload, content, where)


def read_section(kind: type[S], settings: Sequence[str]) -> S:
    """A section from `KEY=VALUE` settings alone.

    Raises:
        InputError: a key or a value is wrong.
    """
    content: dict[str, Any] = {}
    for setting in settings:
        _override(content, setting)
    return parse_section(kind, content, "--set ")


def parse_section(kind: type[S], content: Mapping[str, Any], where: str) -> S:
    """A section from its keys.

    Raises:
        InputError: a key or a value is wrong; the message begins with `where`.
    """
    try:
        return kind.model_validate(content)
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
    """The place in a list of an item that is named by it, or by its key `name`."""
    if index in map(str, range(len(node))):
        return int(index)
    names = [str(item["name"]) for item in node if isinstance(item, dict) and "name" in item]
    if index in names:
        return next(at for at, item in enumerate(node) if isinstance(item, dict) and str(item.get("name")) == index)
    named = f", or a name; {hint(index, names)}" if names else ""
    raise InputError(
        f"--set {key}: {shown(index)!r} must be a number from 0 to {len(node) - 1}, the place in the list{named}"
    )


def _has_own_method(content: Mapping[str, Any]) -> bool:
    given = content.get("algorithm")
    return isinstance(given, dict) and is_own(given.get("name"))


def _own_methods(content: Mapping[str, Any], beside: Path) -> list[type[Section]]:
    """The user's own method, if the workload names one: from a file beside it, the working directory, or installed."""
    given = content.get("algorithm")
    name = given.get("name") if isinstance(given, dict) else None
    return [own_method(str(name), (beside, Path.cwd()))] if is_own(name) else []


def _set_aside(content: dict[str, Any], section: str, known: Sequence[type[Section]]) -> None:
    """Name the default kind where none is named, and drop the keys that only other kinds of the section have."""
    given = content.get(section)
    if not isinstance(given, dict):
        return
    default = known[0].model_fields["name"].default
    own = is_own(given.get("name"))
    chosen = known[-1:] if own else [k for k in known if k.model_fields["name"].default == given.get("name", default)]
    if not chosen:
        return
    others = {key for kind in known for key in kind.model_fields} - set(chosen[0].model_fields)
    for key in sorted(others & set(given)):
        log.warning("%s.%s is not a key of %s: unused", section, key, given.get("name", default))
    content[section] = {"name": default, **{key: value for key, value in given.items() if key not in others}}


def _find(root: Path, beside: Path) -> Path:
    root = root.expanduser()
    found = [base / root for base in (Path.cwd(), beside.absolute()) if (base / root).is_dir()]
    return (found or [Path.cwd() / root])[0].resolve()
