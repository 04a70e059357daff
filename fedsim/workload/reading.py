"""Reading a workload file: YAML, `--set` overrides, validation, and one clear line when something is wrong."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from fedsim.algorithms.catalogue import ALGORITHMS, Unread, own_method
from fedsim.core.errors import InputError, hint, nearest, same_thing
from fedsim.core.own import find_own, is_own
from fedsim.core.section import Section
from fedsim.core.yaml import load_yaml, read_yaml
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
        raise InputError(f"{where}{_explain(error, kind)}") from error


def parse_setting(setting: str) -> tuple[str, Any]:
    """The dotted key and the value (YAML) of `KEY=VALUE`.

    Raises:
        InputError: it has no key, or the value is not YAML.
    """
    key, separator, text = setting.partition("=")
    if not separator or key != _shown(key):
        raise InputError(f"--set {_shown(setting)}: must be KEY=VALUE, for example training.rounds=5")
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
        f"--set {key}: {_shown(index)!r} must be a number from 0 to {len(node) - 1}, the place in the list{named}"
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


def _explain(error: ValidationError, root: type[Section] = Workload) -> str:
    """The first thing that is wrong, in one line."""
    listed = error.errors(include_url=False)
    # pydantic counts the bad items of a list once more, as missing from it
    errors = [e for e in listed if not any(o["loc"][:-1][: len(e["loc"])] == e["loc"] for o in listed if o is not e)]
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    first = (unknown or errors)[0]
    places = {tuple(_user_location(e["loc"], root)) for e in errors}
    return _describe(first, root) + ("; more is wrong in other keys" if len(places) > 1 else "")


def _describe(error: ErrorDetails, root: type[Section]) -> str:
    where = ".".join(_shown(part) for part in _user_location(error["loc"], root))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        *_, key = error["loc"]
        known = _keys_at(error["loc"][:-1], root)
        elsewhere = None if nearest(str(key), known) else _elsewhere(str(key), root)
        there = f"did you mean {elsewhere!r}?" if elsewhere else hint(_shown(key), known, "known here")
        message = f"unknown key; {there}"
    elif error["type"] == "union_tag_invalid":
        tag, known = (
            str(error["ctx"]["tag"])[:60],
            [name.strip(" '") for name in error["ctx"]["expected_tags"].split(",")],
        )
        where += "." + error["ctx"]["discriminator"].strip("'")
        message = f"unknown {tag!r}; {hint(tag, known)}"
    elif error["type"] == "string_pattern_mismatch":
        message = f"must be letters, digits, '_' and '-', at most 64, not {error['input']!r:.60}"
    elif error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        message = f"must be text, and YAML takes this for {_taken_for(error['input'])}; put it between quotation marks"
    elif error["type"] == "missing":
        message = "is required"
    elif error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message = f"must have keys, as in {{key: value}}, not {error['input']!r:.60}"
    elif error["type"] not in {"value_error", "union_tag_not_found"}:
        message += f", got {error['input']!r:.60}"
    return f"{where}: {message}" if where else message


def _taken_for(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"the number {value}"


def _elsewhere(key: str, root: type[Section]) -> str | None:
    """The key of another section that is probably meant."""
    sections = {name: _keys_at((name,), root) for name in root.model_fields}
    return next((f"{name}.{near}" for name, keys in sections.items() if (near := same_thing(key, keys))), None)


def _shown(key: object) -> str:
    """A key as it is, where that is one short line to read; else what tells it best."""
    text = str(key)
    return text if text and text.isprintable() and len(text) <= 200 else f"{text[:50]!r}"


def _user_location(location: tuple[int | str, ...], root: type[Section]) -> Iterator[int | str]:
    """The keys as the user wrote them: without the tags that pydantic adds for the members of a union."""
    for index, part in enumerate(location):
        if str(part).startswith("literal["):
            continue
        sections = _sections_at(location[:index], root)
        is_key = isinstance(part, int) or any(part in kind.model_fields for kind in sections)
        is_unknown_key = sections and not any(_tagged(kind, str(part)) for kind in sections)
        if is_key or is_unknown_key:
            yield part


def _tagged(kind: type[Section], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in kind.model_fields.values())


def _keys_at(location: tuple[int | str, ...], root: type[Section]) -> list[str]:
    return list(dict.fromkeys(key for kind in _sections_at(location, root) for key in kind.model_fields))


def _sections_at(location: tuple[int | str, ...], root: type[Section]) -> list[type[Section]]:
    """The sections that may stand at a location of the schema."""
    kinds: list[type[Section]] = [root]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [kind.model_fields[part].annotation for kind in kinds if part in kind.model_fields]
        kinds = [k for f in fields for k in _sections_in(f)] if fields else [k for k in kinds if _tagged(k, part)]
    return kinds


def _sections_in(annotation: Any) -> Iterator[type[Section]]:  # noqa: ANN401 - any type annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
