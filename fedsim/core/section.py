"""The base of every section of a workload file: frozen, typed, and closed to unknown keys.

A section is also the thing it describes: a mask section samples masks, an algorithm section is the algorithm. So a new
method, network, importer, mask or loss is one new file, with its keys next to the code that uses them.
"""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

T = TypeVar("T")


class Section(BaseModel):
    """One section of a workload; its fields are the keys, their descriptions the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        made = validate(given)
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if _became_a_number(value, getattr(made, key)):
                refuse(cls, key, "must be a number, not true or false")
        return made

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for key, value in self:
            if isinstance(value, int) and abs(value) >= 2**63:
                refuse(type(self), key, f"{value:.3g} is out of range; it must be below 2^63")
        return self


def refuse(kind: type[Section], key: str, message: str) -> NoReturn:
    """Refuse a key of a section, for pydantic to add where the section stands.

    Raises:
        ValidationError: always.
    """
    error = InitErrorDetails(
        type=PydanticCustomError("value_error", "{said}", {"said": message}), loc=(key,), input=None
    )
    raise ValidationError.from_exception_data(kind.__name__, [error])


def _became_a_number(given: object, made: object) -> bool:
    """Whether pydantic took true for 1 or false for 0."""
    if isinstance(given, list) and isinstance(made, list | tuple):
        return any(map(_became_a_number, given, made))
    return isinstance(given, bool) and isinstance(made, int | float) and not isinstance(made, bool)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""An id that may become part of a file name: letters, digits, '_' and '-', at most 64, not starting with '_' or '-'."""


def _plain(text: str) -> str:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise ValueError(f"must be text without control characters, not {text!r:.60}")
    return text


Text = Annotated[str, AfterValidator(_plain)]
"""Text that is safe to show in messages."""


def distinct(values: Sequence[T]) -> Sequence[T]:
    """The values of a list, none of which may be there twice.

    Raises:
        ValueError: one is.
    """
    twice = next((value for at, value in enumerate(values) if value in values[:at]), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice; list each once")
    return values


def _tag(text: str) -> str:
    if not 1 <= len(_plain(text)) <= 64 or text != text.strip():
        raise ValueError(f"a tag is 1 to 64 characters without a space at either end, not {text!r:.80}")
    return text


Tag = Annotated[str, AfterValidator(_tag)]
"""A short label that the user gives a run, to find it again."""


def _possible(path: str) -> str:
    parts = _plain(path).split("/")
    if len(os.fsencode(path)) > 1000 or any(len(os.fsencode(part)) > 255 for part in parts):
        raise ValueError(f"no file can have a path of {len(path)} characters like this one")
    return path


def expanded(path: str) -> str:
    """A path with environment variables, $NAME or ${NAME}, replaced by their values.

    Raises:
        ValueError: a variable is not set; names it.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise ValueError(f"{found[0]}: the environment has no variable {name}; export it, or write the folder")
        return os.environ[name]

    return re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value, path, flags=re.ASCII)


def _somewhere(path: Path) -> Path:
    path = Path(expanded(str(path)))
    try:
        path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{_possible(str(path))}: there is no such user; write the folder instead of ~") from error
    return Path(_possible(str(path)))


FolderPath = Annotated[Path, AfterValidator(_somewhere)]
"""A possible path anywhere, with environment variables replaced by their values."""


def _inside(path: str) -> str:
    path = expanded(path)
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "~")) or ".." in parts or ":" in parts[0] or "\0" in path:
        raise ValueError("must be a path inside federation.root: relative, without '..'; set federation.root instead")
    return _possible(path)


InsidePath = Annotated[str, AfterValidator(_inside)]
"""A path relative to federation.root that cannot leave it."""
