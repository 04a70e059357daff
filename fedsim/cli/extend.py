"""fedsim list and fedsim new: what there is to choose from, and starting points for one's own."""

import ast
import keyword
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedsim.core.errors import InputError

if TYPE_CHECKING:
    from fedsim.core.extension import Catalogue

_CATALOGUES = {
    "methods": "fedsim.algorithms.catalogue:METHODS",
    "networks": "fedsim.models.catalogue:NETWORKS",
    "masks": "fedsim.data.masks:MASKS",
    "formats": "fedsim.data.sources:SOURCES",
    "losses": "fedsim.algorithms.losses:LOSSES",
    "samplers": "fedsim.algorithms.sampling:SAMPLERS",
    "trackers": "fedsim.trackers.catalogue:TRACKERS",
}
_TEMPLATES = Path(__file__).parent / "templates"


def list_(
    what: Annotated[
        Literal["methods", "networks", "masks", "formats", "losses", "samplers", "trackers"],
        typer.Argument(help="What to list.", metavar="methods|networks|masks|formats|losses|samplers|trackers"),
    ],
) -> None:
    """List methods, networks, masks, formats, losses, samplers or trackers, those of installed packages included."""
    lines = list(_catalogue(what).described())
    width = max(len(name) for name, _ in lines)
    for name, line in lines:
        typer.echo(f"{name:{width}}  {line}")


def new(
    kind: Annotated[
        Literal["method", "network", "importer"],
        typer.Argument(help="What to begin.", metavar="method|network|importer"),
    ],
    name: Annotated[str, typer.Argument(help="Name of the file, without .py.", metavar="NAME")],
) -> None:
    """Write a commented example of a method, network or importer, NAME.py, and its test, test_NAME.py."""
    _check_name(name)
    names = {"module": name, "Class": "".join(part[:1].upper() + part[1:] for part in name.split("_"))}
    texts = {
        Path(f"{file}.py"): _filled(template, names)
        for file, template in ((name, kind), (f"test_{name}", f"test_{kind}"))
    }
    _check_class(name, names["Class"], texts[Path(f"{name}.py")])
    for file in texts:
        if file.exists():
            raise InputError(f"{file}: exists; choose another name, or remove it")
    for file, text in texts.items():
        _write(file, text)
        typer.echo(file)


def _catalogue(what: str) -> "Catalogue[Any]":
    module, _, name = _CATALOGUES[what].partition(":")
    catalogue: Catalogue[Any] = getattr(import_module(module), name)
    return catalogue


def _filled(template: str, names: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8")).substitute(names)


def _check_name(name: str) -> None:
    """Refuse a name that a workload cannot give, or that would hide another module."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise InputError(
            f"NAME: {name!r:.80} must be a letter, then letters, digits and '_', at most 64 in all, "
            "and no keyword of Python"
        )
    if not Path(f"{name}.py").exists() and find_spec(name) is not None:
        raise InputError(f"NAME: {name} is the name of an installed module; choose another")


def _check_class(name: str, kind: str, text: str) -> None:
    """Refuse a class that would hide one that its file needs."""
    imports = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    if kind in (one.name for node in imports for one in node.names):
        raise InputError(f"NAME: {name} would hide the class {kind} that the file uses; choose another")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); go to a folder of your own") from error
