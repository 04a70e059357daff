"""Turning pydantic's errors about a section into one clear line."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fedsim.core.errors import hint, nearest, same_thing
from fedsim.core.section import Section

_WHOLE, _NUMBER, _TRUTH = "a whole number", "a number", "true or false"
_MUST_BE = {
    "int_parsing": _WHOLE, "int_type": _WHOLE, "int_from_float": _WHOLE, "float_parsing": _NUMBER,
    "float_type": _NUMBER, "bool_parsing": _TRUTH, "bool_type": _TRUTH,
}  # fmt: skip
"""What pydantic says in its own terms, by type of error."""
_LIMITS = {
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "greater_than": "a number above {gt}",
    "less_than": "a number below {lt}",
}


def explained(error: ValidationError, root: type[Section]) -> str:
    """The first error in one line."""
    listed = error.errors(include_url=False)
    # pydantic counts the bad items of a list once more, as missing from it
    errors = [e for e in listed if not any(o["loc"][:-1][: len(e["loc"])] == e["loc"] for o in listed if o is not e)]
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    first = (unknown or errors)[0]
    places = [tuple(_user_location(e["loc"], root)) for e in errors]
    here = [e for e, place in zip(errors, places, strict=True) if place == tuple(_user_location(first["loc"], root))]
    more = "; more is wrong in other keys" if len(set(places)) > 1 else ""
    return (_word_or_number(here, root) or _describe(first, root)) + more


def _describe(error: ErrorDetails, root: type[Section]) -> str:
    where = ".".join(shown(part) for part in _user_location(error["loc"], root))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        *_, key = error["loc"]
        known = _keys_at(error["loc"][:-1], root)
        elsewhere = None if nearest(str(key), known) else _elsewhere(str(key), root)
        there = f"did you mean {elsewhere!r}?" if elsewhere else hint(shown(key), known, "known here")
        message = f"unknown key; {there}"
    elif error["type"] == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])[:60]
        known = [name.strip(" '") for name in error["ctx"]["expected_tags"].split(",")]
        where += "." + error["ctx"]["discriminator"].strip("'")
        message = f"unknown {tag!r}; {hint(tag, known)}"
    elif error["type"] == "union_tag_not_found":
        key = error["ctx"]["discriminator"].strip("'")
        where = f"{where}.{key}" if where else key
        message = f"is required; one of {', '.join(_tags_at(error['loc'], key, root))}"
    elif error["type"] == "string_pattern_mismatch":
        message = f"must be letters, digits, '_' and '-', at most 64, not {error['input']!r:.60}"
    elif error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        message = f"must be text, and YAML takes this for {_taken_for(error['input'])}; put it between quotation marks"
    elif error["type"] == "missing":
        message = "is required"
    elif error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message = f"must have keys, as in {{key: value}}, not {error['input']!r:.60}"
    elif error["type"] in _MUST_BE:
        message = f"must be {_MUST_BE[error['type']]}, not {_given(error['input'])}"
    elif error["type"] != "value_error":
        message += f", got {_given(error['input'])}"
    return f"{where}: {message}" if where else message


def _word_or_number(errors: Sequence[ErrorDetails], root: type[Section]) -> str:
    """What is wrong with a key that takes some words or a number; empty if it is another kind of key."""
    words = next((e["ctx"]["expected"] for e in errors if e["type"] == "literal_error"), "")
    numbers = [_MUST_BE.get(e["type"]) or _LIMITS.get(e["type"], "").format(**e.get("ctx", {})) for e in errors]
    if not (words and any(numbers)):
        return ""
    where = ".".join(shown(part) for part in _user_location(errors[0]["loc"], root))
    return f"{where}: must be {words}, or {next(filter(None, numbers))}, not {_given(errors[0]['input'])}"


def _given(value: object) -> str:
    """A value as YAML writes it."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else f"{value!r:.60}"


def _tags_at(location: tuple[int | str, ...], key: str, root: type[Section]) -> list[str]:
    """The values of the key that selects between the sections allowed at a location."""
    fields = [kind.model_fields[key].annotation for kind in _sections_at(location, root) if key in kind.model_fields]
    return list(dict.fromkeys(str(tag) for field in fields for tag in get_args(field)))


def _taken_for(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"the number {value}"


def _elsewhere(key: str, root: type[Section]) -> str | None:
    """The key of another section that is probably meant, if any."""
    sections = {name: _keys_at((name,), root) for name in root.model_fields}
    return next((f"{name}.{near}" for name, keys in sections.items() if (near := same_thing(key, keys))), None)


def shown(key: object) -> str:
    """A key as it is if that is one short line; otherwise a readable form of it."""
    text = str(key)
    return text if text and text.isprintable() and len(text) <= 200 else f"{text[:50]!r}"


def _user_location(location: tuple[int | str, ...], root: type[Section]) -> Iterator[int | str]:
    """The keys as the user wrote them, without the tags that pydantic adds for the members of a union."""
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
    """The sections allowed at a location of the schema."""
    kinds: list[type[Section]] = [root]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [kind.model_fields[part].annotation for kind in kinds if part in kind.model_fields]
        tagged = [k for k in kinds if _tagged(k, part)] or kinds  # a key of a mapping leads to the same sections
        kinds = [k for f in fields for k in _sections_in(f)] if fields else tagged
    return kinds


def _sections_in(annotation: Any) -> Iterator[type[Section]]:  # noqa: ANN401 - any type annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
