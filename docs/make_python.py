"""Writes docs/python.md from the docstrings of the public functions and classes: python docs/make_python.py."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import jinja2

import fedsim
from fedsim.algorithms import base, fedmri, learner, losses, sampling
from fedsim.data import source
from fedsim.models import base as models
from fedsim.mri import masks
from fedsim.study.study import load_study

DOCS = Path(__file__).parent
PUBLIC: dict[str, dict[str, Callable[..., object]]] = {
    "run": {
        "fedsim.load_workload": fedsim.load_workload, "fedsim.run": fedsim.run, "fedsim.Run": fedsim.Run,
        "fedsim.study.study.load_study": load_study,
        "fedsim.algorithms.fedmri.contrastive_ratio": fedmri.contrastive_ratio,
    },
    "submit": {"fedsim.submit": fedsim.submit, "fedsim.wait": fedsim.wait, "fedsim.collect": fedsim.collect},
    "own": {
        f"{kind.__module__}.{kind.__name__}": kind
        for kind in (
            base.Algorithm, base.Upload, base.Phase, base.Received, learner.Learner, losses.Loss,
            sampling.Sampler, sampling.Registered, models.Model, models.Network, source.FileSource, source.Volume,
            masks.Mask,
        )
    },
}  # fmt: skip
"""What scripts and classes of your own may rely on; public methods and properties of classes follow by themselves."""


def section(name: str) -> str:
    """The functions and classes of one part of the page."""
    return "\n\n".join(part for path, thing in PUBLIC[name].items() for part in _entry(path, thing))


def _entry(path: str, thing: Callable[..., object]) -> Iterator[str]:
    yield f"### {path}"
    if not (inspect.isclass(thing) and thing in PUBLIC["own"].values()):
        yield f"```python\n{path.rpartition('.')[2]}{_signature(thing)}\n```"
    yield from _prose(inspect.getdoc(thing) or "")
    if inspect.isclass(thing):
        members = [*_fields(thing), *_members(thing)]
        yield "\n".join(f"* `{member}`: {said}" for member, said in members)


def _prose(docstring: str) -> Iterator[str]:
    """Paragraphs as they are; the items of Args, Returns and Raises as lists."""
    for paragraph in docstring.split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if head not in {"Args:", "Returns:", "Raises:"}:
            yield " ".join(paragraph.split())
            continue
        items = re.split(r"\n(?! )", textwrap.dedent(rest))
        yield f"{head.removesuffix(':').replace('Args', 'Arguments')}:"
        yield "\n".join("* " + re.sub(r"^(\w+): ", r"`\1`: ", " ".join(item.split())) for item in items)


def _signature(thing: Callable[..., object]) -> str:
    """A signature as it is written, without the modules of its types; a function as default is left out."""
    signature = inspect.signature(thing)
    given = [p.replace(default=...) if inspect.isfunction(p.default) else p for p in signature.parameters.values()]
    text = str(signature.replace(parameters=given)).replace("Ellipsis", "...")
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _fields(kind: type) -> Iterator[tuple[str, str]]:
    """Fields of a class's body that have a docstring."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            name, said = ast.unparse(node.target), inspect.cleandoc(str(after.value.value))
            if not name.startswith("_"):
                yield name, " ".join(said.split("\n\n")[0].split())


def _members(kind: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties, with the first paragraph about each."""
    for name, member in vars(kind).items():
        said = " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())
        if name.startswith("_") or not said:
            continue
        if isinstance(member, property):
            yield name, said
        elif inspect.isfunction(member):
            given = [p.name for p in inspect.signature(member).parameters.values() if p.name != "self"]
            yield f"{name}({', '.join(given)})", said


def render() -> str:
    """The text of docs/python.md."""
    loader = jinja2.FileSystemLoader(DOCS)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.get_template("python.md.j2").render(section=section)


if __name__ == "__main__":
    (DOCS / "python.md").write_text(render() + "\n", encoding="utf-8")
