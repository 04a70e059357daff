"""Which channels or volumes of a file to read: by number from 0, or by a name that the workload defines."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from fedsim.core.errors import InputError
from fedsim.core.section import Text, distinct

_Index = Annotated[int, Field(ge=0)]
One = _Index | Text


def _apart(names: dict[int, str]) -> dict[int, str]:
    if len({name.lower() for name in names.values()}) < len(names):
        raise ValueError(f"{names} gives two entries the same name")
    return names


Choice = One | Annotated[list[One], Field(min_length=1), AfterValidator(distinct)] | None
"""One, several, or None for the only one."""
Names = Annotated[dict[_Index, Text], AfterValidator(_apart)]
"""Names by number."""


def numbers(choice: Choice, names: Mapping[int, str]) -> list[int]:
    """The chosen numbers; empty if nothing is chosen.

    Raises:
        ValueError: a name is not in `names`, or two entries are the same one.
    """
    wanted = [] if choice is None else choice if isinstance(choice, list) else [choice]
    by_name = {name.lower(): number for number, name in names.items()}
    unknown = [one for one in wanted if isinstance(one, str) and one.lower() not in by_name]
    if unknown:
        given = ", ".join(f"{number}: {name}" for number, name in names.items()) or "no names"
        raise ValueError(f"{unknown[0]!r} is neither a number nor one of the given names ({given})")
    return [*distinct([by_name[one.lower()] if isinstance(one, str) else one for one in wanted])]


def label(what: str, number: int | None, names: Mapping[int, str]) -> str:
    """Its name, or a text such as channel 1; empty for the only one."""
    return "" if number is None else names.get(number, f"{what} {number}")


def check_number(number: int, there: int, what: str) -> None:
    """Refuse a number that the file does not have.

    Raises:
        InputError: the file has no such channel or volume.
    """
    if number >= there:
        raise InputError(f"has {there} {what}s; {what} {number} counts from 0 and is missing")
