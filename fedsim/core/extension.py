"""Sections that may have a user's own class (methods, networks, sources, losses, ...): finding and blaming it."""

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import GetJsonSchemaHandler, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fedsim.core.errors import InputError, OwnCodeError, RunError, hint
from fedsim.core.own import file_of, is_own, own_class
from fedsim.core.section import Section, refuse

_PACKAGE = __name__.partition(".")[0]


class Extension(Section):
    """The base of every kind of section that users can extend."""

    tag: ClassVar[str] = "name"
    """The key that names the class."""
    around: ClassVar[frozenset[str]] = frozenset()
    """Methods of the base that only call hooks of the class; errors are never attributed to them."""

    @property
    def label(self) -> str:
        """Its name in the workload: a plain name, or module:Class."""
        return str(getattr(self, self.tag))

    @property
    def foreign(self) -> bool:
        """Whether its class is a user's own, not fedsim's."""
        return type(self).__module__.partition(".")[0] != _PACKAGE

    def code(self) -> str:
        """What identifies the version of a user's class: the text of its file, or the version of its package.

        Empty for fedsim's own.
        """
        if not self.foreign:
            return ""
        file = file_of(self.label) if is_own(self.label) else None
        return file.read_text(encoding="utf-8") if file else str(dict(package_of(self)))


E = TypeVar("E", bound=Extension)


@dataclass(frozen=True, kw_only=True)
class Catalogue(Generic[E]):
    """All classes of a kind: fedsim's, those of installed packages, and those of files beside a workload."""

    key: str
    """Key of the workload, for messages, such as algorithm.name."""
    base: type[E]
    unread: type[E]
    """Placeholder for a user's class from a file that must not be executed; accepts any keys."""
    known: tuple[type[E], ...]
    """fedsim's own classes, the default first; packages cannot take their names."""
    group: str
    """Group of the entry points by which installed packages register classes under plain names."""
    noun: str
    """Noun for one of them, for messages."""

    def find(self, name: str, folders: Sequence[Path] = ()) -> type[E]:
        """A user's class.

        Args:
            name: module:Class, or the name of an entry point.
            folders: Folders searched for a file module.py, before the installed modules.

        Raises:
            InputError: there is no such module or class, or it is not derived from the base.
        """
        if not is_own(name):
            return self._derived(self._installed(name), name, _offered(self.group)[name].module)
        module, found = own_class(name, self.key, f"a known {self.noun}, or module:Class for one of your own", folders)
        return self._derived(found, name.partition(":")[2], module)

    def has(self, name: object) -> bool:
        """Whether a name is a user's class: module:Class, or an entry point of an installed package."""
        return is_own(name) or (isinstance(name, str) and name in _offered(self.group) and name not in self.names())

    def names(self) -> list[str]:
        """The plain names of fedsim's own classes."""
        return [name for kind in self.known for name in get_args(kind.model_fields[self.base.tag].annotation)]

    def described(self) -> Iterator[tuple[str, str]]:
        """The plain names, fedsim's own and then those of installed packages, each with one line about it."""
        for kind in self.known:
            for name in get_args(kind.model_fields[self.base.tag].annotation):
                yield name, _first_line(kind)
        for name in self._packages():
            try:
                point = _offered(self.group)[name]
                yield name, f"{_first_line(self.find(name))} ({point.dist.name if point.dist else point.module})"
            except InputError as error:
                yield name, str(error)

    def read(self, value: Any, known: ValidatorFunctionWrapHandler, info: ValidationInfo) -> E:  # noqa: ANN401
        """A section from a file's content, for pydantic's WrapValidator; `known` reads fedsim's own classes.

        The validation's context may have `code`, False if no user's file may be executed, and `folders` for `find`.
        """
        if isinstance(value, self.base):
            return value
        name = value.get(self.base.tag) if isinstance(value, Mapping) else None
        if not self.has(name):
            if isinstance(value, Mapping) and name not in self.names():
                self._refuse_name(name)
            section: E = known(value)
            return section
        context = info.context or {}
        if is_own(name) and not context.get("code", True):
            return self.unread.model_validate(value)
        kind = self.find(str(name), context.get("folders", ()))
        _refuse_unknown_key(kind, value)
        return kind.model_validate(value, context=info.context)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, known: GetJsonSchemaHandler) -> JsonSchemaValue:
        """For editors: fedsim's own classes with their keys, users' by name alone."""
        users: list[JsonSchemaValue] = [{"pattern": ":"}]
        if installed := self._packages():
            users.append({"enum": installed})
        tag = self.base.tag
        return {"anyOf": [known(schema), {"type": "object", "properties": {tag: {"anyOf": users}}, "required": [tag]}]}

    def _packages(self) -> list[str]:
        """The plain names that installed packages offer."""
        return [name for name in _offered(self.group) if name not in self.names()]

    def _refuse_name(self, name: object) -> None:
        choices = [*self.names(), *self._packages(), "module:Class of your own"]
        missing = f"is required; one of {', '.join(choices)}"
        refuse(
            self.base,
            self.base.tag,
            missing if name is None else f"unknown {str(name)[:60]!r}; {hint(str(name), choices)}",
        )

    def _installed(self, name: str) -> object:
        point = _offered(self.group)[name]
        try:
            return point.load()
        except (Exception, SystemExit) as error:
            where = f"{point.value} of the package {point.dist.name if point.dist else '?'}"
            raise InputError(f"{self.key}: {where} cannot be imported ({_one_line(error)})") from error

    def _derived(self, found: object, kind: str, module: str) -> type[E]:
        if not (isinstance(found, type) and issubclass(found, self.base)):
            base = f"{self.base.__module__}.{self.base.__name__}"
            there = [name for name, one in vars(sys.modules[module]).items() if self._is_of(one, module)]
            others = f"; it has {', '.join(there)}" if there else ""
            raise InputError(f"{self.key}: {module} has no class {kind} derived from {base}{others}")
        if missing := sorted(found.__abstractmethods__):
            raise InputError(f"{self.key}: {kind} of {module} must define {' and '.join(missing)}")
        if uncalled := _uncalled(found):
            raise InputError(f"{self.key}: {kind} of {module} defines {uncalled} begin a helper's name with '_'")
        return found

    def _is_of(self, one: object, module: str) -> bool:
        return isinstance(one, type) and issubclass(one, self.base) and one.__module__ == module


def _first_line(kind: type[Extension]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _refuse_unknown_key(kind: type[Section], value: Mapping[str, object]) -> None:
    """Validate like pydantic, but with hints at the keys of this class, which the workload schema does not know."""
    for key in value:
        if isinstance(key, str) and key not in kind.model_fields:
            refuse(kind, key, f"unknown key; {hint(key, kind.model_fields, 'known here')}")


def _uncalled(kind: type[Extension]) -> str:
    """What a user's class defines without effect: a name close to a hook that it does not override, or only helpers."""
    mro = kind.__mro__
    parent = next(one for one in mro if issubclass(one, Extension) and one.__module__.partition(".")[0] == _PACKAGE)
    defined = {
        name: value
        for one in mro[: mro.index(parent)]
        for name, value in vars(one).items()
        if not name.startswith("__")
    }
    inherited = set(dir(parent))
    hooks = sorted(name for name in inherited - set(dir(Extension)) - parent.around if not name.startswith("_"))
    added = sorted(name for name in defined.keys() - inherited if not name.startswith("_"))
    for name in added:
        if near := get_close_matches(name, set(hooks) - defined.keys(), n=1, cutoff=0.8):
            return f"{name}, which overrides nothing; did you mean {near[0]!r}? Otherwise"
    methods = {name for name, value in defined.items() if hasattr(value, "__get__")}
    decorators = kind.__pydantic_decorators__
    called = {name for one in fields(decorators) for name in getattr(decorators, one.name)}
    idle = [name for name in added if name in methods - called]
    if idle and not methods & inherited:
        return f"{', '.join(idle)}, but nothing that fedsim calls; known: {', '.join(hooks)};"
    return ""


@cache
def _offered(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


GROUPS = (
    "fedsim.methods", "fedsim.networks", "fedsim.sources", "fedsim.masks", "fedsim.losses", "fedsim.samplers",
    "fedsim.trackers",
)  # fmt: skip
"""Entry points of a group."""


def package_of(section: Extension) -> Iterator[tuple[str, str]]:
    """Name and version of the package whose entry point a section is, if it is one."""
    if section.foreign and not is_own(section.label):
        for group in GROUPS:
            point = _offered(group).get(section.label)
            if point is not None and point.dist is not None and point.module == type(section).__module__:
                yield point.dist.name, point.dist.version


def own_modules(sections: Iterable[Extension]) -> set[str]:
    """Names of the modules of those sections' classes that are of a file beside the workload, or named as such."""
    return {type(section).__module__ for section in sections if is_own(section.label)}


@contextmanager
def blamed(section: Extension, where: str, hook: str = "") -> Iterator[None]:
    """Turn any exception of a user's class into an error that names the class; exceptions of fedsim's own pass through.

    Args:
        section: Section with the user's class.
        where: Key, site or client, for the message.
        hook: The method called, named if the traceback shows no method of the class.

    Raises:
        InputError: the class raised.
    """
    try:
        yield
    except (KeyboardInterrupt, InputError, RunError):
        raise
    except BaseException as error:
        if not section.foreign:
            raise
        raise InputError(f"{where}: {error_text(section, error, hook)}; --debug shows where") from error


@contextmanager
def traced(label: str, hook: str, kind: type[OwnCodeError] = OwnCodeError) -> Iterator[None]:
    """Turn any exception of a user's class in a client's step into an error that names the class and has the traceback.

    Args:
        label: Name of the class in the workload.
        hook: The method called.
        kind: Of the error.

    Raises:
        OwnCodeError: the class raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        raise kind(f"{_one_line(error)} (in {hook} of {label})", traceback.format_exc()) from error


def error_text(section: Extension, error: BaseException, hook: str = "") -> str:
    """The exception of a class, and the method: the innermost in the traceback, else `hook`."""
    kinds = {kind.__name__ for kind in type(section).__mro__ if issubclass(kind, Extension) and kind is not Extension}
    frames = [frame.f_code.co_qualname.split(".") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [parts[1] for parts in frames if len(parts) > 1 and parts[0] in kinds and parts[1] not in section.around]
    called = (inside or [hook])[-1]
    return _one_line(error) + (f" (in {called} of {section.label})" if called else "")


def _one_line(error: BaseException) -> str:
    return f"{' '.join(f'{type(error).__name__}: {error}'.split()):.400}"
