"""Writes docs/reference.md from the code: python docs/make_reference.py.

Keys, ranges and descriptions come from the schema, commands from the command line. The text between them, and the
meaning of tables' columns, are in reference.md.j2. What scripts use is on a page of its own: make_python.py.
"""

import ast
import inspect
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jinja2
from pydantic.fields import FieldInfo
from typer.main import get_command

from fedsim.cli import app as cli
from fedsim.core.section import Section
from fedsim.study import results
from fedsim.study.endpoint import Endpoint
from fedsim.study.kinds import KINDS, Study
from fedsim.study.tune import Tune
from fedsim.workload.schema import Workload

DOCS = Path(__file__).parent

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", Any: "any"}
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "of length ≥"}


# Keys


def workload_keys() -> str:
    """Every key of a workload, a section after the other, as they come in the file."""
    return "\n\n".join(_keys_of(Workload, "", seen=set()))


def study_keys() -> str:
    """What every kind of study has, what each has besides, the endpoint, and tuning."""
    common = set(Study.model_fields)
    parts = [f"### every study\n\n{_table(Study.model_fields)}"]
    for name, kind in KINDS.items():
        own = {key: field for key, field in kind.model_fields.items() if key not in common}
        parts.append(f"### kind: {name}\n\n{_first(kind)}\n\n{_table(own)}")
    parts.append(f"### endpoint\n\n{_first(Endpoint)}\n\n{_table(Endpoint.model_fields)}")
    _, *below = _keys_of(Tune, "tune", seen=set())
    return "\n\n".join([*parts, f"### tune\n\n{_first(Tune)}\n\n{_table(Tune.model_fields)}", *below])


def _keys_of(kind: type[Section], path: str, seen: set[type[Section]]) -> Iterator[str]:
    """The section's own table, then those of the sections below it, each once."""
    seen.add(kind)
    yield f"### {path or 'the file itself'}\n\n{_table(kind.model_fields)}"
    for key, field in kind.model_fields.items():
        below = list(dict.fromkeys(_sections_in(field.annotation)))
        where = f"{path}.{key}".lstrip(".") + ("[]" if get_origin(field.annotation) is tuple else "")
        if len(below) > 1:
            yield _alternatives(below, where)
            for inner in dict.fromkeys((key, section) for one in below for key, section in _within(one)):
                if inner[1] not in seen:
                    yield from _keys_of(inner[1], f"{where}.{inner[0]}", seen)
        elif below and below[0] not in seen:
            yield from _keys_of(below[0], where, seen)


def _alternatives(kinds: list[type[Section]], where: str) -> str:
    """Sections that may stand at one place: the keys that all have, then those of each."""
    tag = next(key for key in kinds[0].model_fields if len({tuple(_tags(kind, key)) for kind in kinds}) == len(kinds))
    alike = [key for key in kinds[0].model_fields if all(_same(key, kinds[0], kind) for kind in kinds)]
    tags = {" or ".join(_tags(kind, tag)): kind for kind in kinds}
    common = {key: kinds[0].model_fields[key] for key in alike}
    parts = [f"### {where}\n\n`{tag}` is one of {', '.join(tags)}." + (f"\n\n{_table(common)}" if common else "")]
    for name, kind in tags.items():
        own = {key: field for key, field in kind.model_fields.items() if key != tag and key not in alike}
        parts.append(f"#### {tag}: {name}\n\n{_first(kind)}" + (f"\n\n{_table(own)}" if own else ""))
    return "\n\n".join(parts)


def _same(key: str, one: type[Section], other: type[Section]) -> bool:
    return key in other.model_fields and _row(key, one.model_fields[key]) == _row(key, other.model_fields[key])


def _tags(kind: type[Section], key: str) -> list[str]:
    """The values of a key that tells kinds apart."""
    annotation = kind.model_fields[key].annotation if key in kind.model_fields else None
    return [f"`{value}`" for value in get_args(annotation)] if get_origin(annotation) is Literal else []


def _table(fields: Mapping[str, FieldInfo]) -> str:
    head = "| key | value | default | |\n|---|---|---|---|"
    return "\n".join([head, *(_row(key, field) for key, field in fields.items())])


def _row(key: str, field: FieldInfo) -> str:
    value = type_said(field.annotation, field.metadata)
    cells = (f"`{key}`", value, _default(field), " ".join((field.description or "").split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Section):
        return "its defaults"
    if isinstance(value, Path) and field.default_factory is not None:
        return "of the system"  # another one for every user
    return f"`{plain(value)}`"


def plain(value: object) -> str:
    """A value as YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value == "":
        return '""'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    return str(value)


def type_said(annotation: Any, metadata: Iterable[object] = ()) -> str:  # noqa: ANN401 - any type annotation
    """A type in words, with what a value must keep to."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_said(inner[0], [*metadata, *inner[1:]])
    if types.NoneType in inner:
        rest = [type_said(one, metadata) for one in inner if one is not types.NoneType]
        return " or ".join([*dict.fromkeys(rest), "null"])
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(type_said(one, metadata) for one in inner))
    return _simple(annotation, origin, inner) + bounds_said(metadata)


def _simple(annotation: Any, origin: Any, inner: tuple[Any, ...]) -> str:  # noqa: ANN401 - any type annotation
    if origin is Literal:
        return ", ".join(f"`{plain(value)}`" for value in inner)
    if origin is tuple and Ellipsis not in inner:
        return "[" + ", ".join(map(type_said, inner)) + "]"
    if origin in {tuple, list}:
        return f"list of {type_said(inner[0])}"
    return "mapping" if origin is dict else _PLAIN.get(annotation, "section")


def bounds_said(metadata: Iterable[object]) -> str:
    """What a value must keep to, to be put after its type."""
    flat = [one for item in metadata for one in (item.metadata if isinstance(item, FieldInfo) else [item])]
    bounds = {name: value for item in flat for name in _BOUNDS if (value := getattr(item, name, None)) is not None}
    if {"ge", "le"} <= bounds.keys():
        return f" from {_number(bounds['ge'])} to {_number(bounds['le'])}"
    said = " and ".join(f"{_BOUNDS[name]} {_number(value)}" for name, value in bounds.items())
    return f" {said}" if said else ""


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{int(value):,}" if value == int(value) else f"{value:g}"


def _within(kind: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """The keys of a section that hold sections, with those."""
    return ((key, section) for key, field in kind.model_fields.items() for section in _sections_in(field.annotation))


def _sections_in(annotation: Any) -> Iterator[type[Section]]:  # noqa: ANN401 - any type annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)


def _first(thing: object) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# Commands


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_commands_in(get_command(cli.app), "fedsim"))


def _commands_in(group: Any, prefix: str) -> Iterator[str]:  # noqa: ANN401 - of typer's own copy of click
    for name, command in sorted(group.commands.items()):
        if command.hidden:  # an old name
            continue
        if hasattr(command, "commands"):
            yield from _commands_in(command, f"{prefix} {name}")
        else:
            yield _command(command, f"{prefix} {name}")


def _command(command: Any, name: str) -> str:  # noqa: ANN401 - of typer's own copy of click
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    named = " ".join((a.metavar if a.required else f"[{a.metavar}]") + "..." * (a.nargs == -1) for a in arguments)
    lines = [
        f"### {name}",
        "",
        f"    {name} {named}".rstrip() + (" [options]" if options else ""),
        "",
        command.help,
        "",
    ]
    lines += ["| | | default |", "|---|---|---|"] if command.params else []
    lines += [_parameter(parameter) for parameter in (*arguments, *options)]
    lines += ["", command.epilog] if command.epilog else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


def _parameter(parameter: Any) -> str:  # noqa: ANN401 - of typer's own copy of click
    argument = parameter.param_type_name == "argument"
    value = "" if argument or parameter.is_flag else f" {parameter.metavar or _value(parameter)}"
    name = parameter.metavar if argument else ", ".join(parameter.opts)
    default = (
        "required" if parameter.required else "" if parameter.default in (None, False) else f"`{parameter.default}`"
    )
    cells = (f"`{name}{value}`", " ".join((parameter.help or "").split()), default)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(parameter: Any) -> str:  # noqa: ANN401 - of typer's own copy of click
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    return {Path: "PATH", int: "N", float: "X"}.get(annotation, "TEXT")


# Tables


def study_tables() -> str:
    """The tables of a study, as the constants that name their columns say."""
    source = ast.parse(inspect.getsource(results))
    parts = []
    for node, after in zip(source.body, source.body[1:], strict=False):
        name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        if name.endswith("_COLUMNS") and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said = " ".join(inspect.cleandoc(str(after.value.value)).split())
            file, _, text = said.partition(": ")
            columns = ", ".join(f"`{column}`" for column in getattr(results, name))
            parts.append(f"**{file}**: {text}\n\n{columns}")
    return "\n\n".join(parts)


def render() -> str:
    """The text of docs/reference.md."""
    loader = jinja2.FileSystemLoader(DOCS)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    makers = (workload_keys, study_keys, commands, study_tables)
    return environment.get_template("reference.md.j2").render({maker.__name__: maker() for maker in makers})


if __name__ == "__main__":
    (DOCS / "reference.md").write_text(render() + "\n", encoding="utf-8")
