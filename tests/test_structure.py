"""The house: imports point one way, files and functions are short, everything public is typed and documented."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_architecture import ROOMS, Import, circle, imports, upward

PACKAGE = Path(__file__).parents[1] / "fedsim"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture(scope="module")
def found() -> set[Import]:
    return imports()


def test_rooms_are_the_packages_folders() -> None:
    assert set(ROOMS) == {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}


def test_no_import_points_up(found: set[Import]) -> None:
    """Imports in functions and for type checking count too: they are knowledge all the same."""
    assert upward(found) == set()


def test_no_files_import_each_other_in_a_circle(found: set[Import]) -> None:
    """Every import counts: a late import hides a circle from Python, not from the reader."""
    assert circle(found) == []


def test_a_circle_and_an_arrow_up_are_seen() -> None:
    a, b, door = "fedsim.core.a", "fedsim.mri.b", "fedsim"
    assert set(circle({(a, b), (b, door), (door, a)})) == {a, b, door}
    assert circle({(door, b), (door, a), (b, a)}) == []
    assert upward({(a, b), (b, a), (b, door), (door, a)}) == {(a, b), (b, door)}


def files() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of every file, with where it stands."""
    return [(name, node) for name, text in files() for node in ast.walk(ast.parse(text))]


@pytest.mark.parametrize("folder", [PACKAGE, Path(__file__).parent], ids=lambda folder: folder.name)
def test_every_file_is_under_300_lines(folder: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length >= 300} == {}


def test_the_engine_folder_itself_has_at_most_ten_files() -> None:
    assert len([path for path in (PACKAGE / "engine").glob("*.py") if path.name != "__init__.py"]) <= 10


def test_nine_bodies_in_ten_are_under_15_lines(nodes: list[tuple[str, ast.AST]]) -> None:
    lengths = sorted(_body_lines(node) for _, node in nodes if isinstance(node, Function))
    assert lengths[len(lengths) * 9 // 10] < 15


def _body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[ast.get_docstring(function) is not None :]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_every_function_is_annotated(nodes: list[tuple[str, ast.AST]]) -> None:
    assert [
        f"{name}:{node.lineno}" for name, node in nodes if isinstance(node, Function) and not _annotated(node)
    ] == []


def _annotated(function: Function) -> bool:
    a = function.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    typed = all(argument.annotation for argument in arguments if argument.arg not in {"self", "cls"})
    return typed and function.returns is not None


def test_public_names_are_documented(nodes: list[tuple[str, ast.AST]]) -> None:
    """All but two in a hundred: a method that overrides a documented one may go without."""
    public = [
        (name, member)
        for name, node in nodes
        if isinstance(node, ast.Module | ast.ClassDef)
        for member in node.body
        if isinstance(member, Function | ast.ClassDef) and not member.name.startswith("_")
    ]
    bare = [f"{name}:{member.name}" for name, member in public if ast.get_docstring(member) is None]
    assert len(bare) <= 0.02 * len(public), bare


@pytest.fixture(scope="module")
def classes() -> list[tuple[str, ast.ClassDef]]:
    return [
        (f"{name}:{node.name}", node)
        for name, text in files()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    ]


def test_dataclasses_with_more_than_three_fields_take_them_by_name(classes: list[tuple[str, ast.ClassDef]]) -> None:
    """All of them, or those behind KW_ONLY: users write Upload("shared", ...) and Volume(who, name, images, origin)."""
    many = [(name, node) for name, node in classes if _dataclass(node) is not None and len(_fields(node)) > 3]
    assert {name for name, node in many if not _by_name(node)} == set()
    assert {name for name, node in many if _KW_ONLY in map(_annotation, _fields(node))} == {
        "algorithms/base.py:Upload", "data/source.py:Volume",
    }  # fmt: skip


def test_numeric_fields_say_their_unit_or_shape(classes: list[tuple[str, ast.ClassDef]]) -> None:
    """In a docstring or a comment of their own: a name and `int` tell neither seconds from rounds, nor (H, W)."""
    lines = {name: text.splitlines() for name, text in files()}
    bare = [
        f"{name}.{ast.unparse(field.target)}"
        for name, node in classes
        if _dataclass(node) is not None
        for field, after in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign) and _NUMERIC.search(_annotation(field))
        if not isinstance(after, ast.Expr) and "#" not in lines[name.partition(":")[0]][(field.end_lineno or 0) - 1]
    ]
    assert bare == []


def test_attributes_are_born_in_init(classes: list[tuple[str, ast.ClassDef]]) -> None:
    """Or declared in the body of the class or of a base: no method assigns one that its class does not show."""
    by_name: dict[str, list[ast.ClassDef]] = {}
    for _, node in classes:
        by_name.setdefault(node.name, []).append(node)
    late = {
        f"{name}.{method.name}: {attribute}"
        for name, node in classes
        for method in _methods(node)
        for attribute in _assigned(method) - _declared(node, by_name)
    }
    assert late == set()


def test_a_late_attribute_is_seen() -> None:
    late = ast.parse(
        "class A:\n a: int\n def __init__(self): self.b = 0\n"
        "class B(A):\n def f(self): self.a, self.b = 1, 2; self.c = 3\n def g(self): self.d.e = self.c[0] = 4\n"
    )
    a, b = (node for node in late.body if isinstance(node, ast.ClassDef))
    assert {name for f in _methods(b) for name in _assigned(f)} - _declared(b, {"A": [a]}) == {"c"}


_KW_ONLY = "KW_ONLY"
_NUMERIC = re.compile(r"\b(int|float|Tensor|NDArray|BoolArray|DataFrame|Vector)\b")


def _dataclass(node: ast.ClassDef) -> ast.expr | None:
    """The decorator that makes a class a dataclass."""
    names = {id(one): one.func if isinstance(one, ast.Call) else one for one in node.decorator_list}
    return next((one for one in node.decorator_list if getattr(names[id(one)], "id", "") == "dataclass"), None)


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [one for one in node.body if isinstance(one, ast.AnnAssign)]


def _annotation(field: ast.AnnAssign) -> str:
    return ast.unparse(field.annotation)


def _by_name(node: ast.ClassDef) -> bool:
    made = _dataclass(node)
    keywords = {keyword.arg for keyword in made.keywords} if isinstance(made, ast.Call) else set()
    return "kw_only" in keywords or _KW_ONLY in map(_annotation, _fields(node))


def _methods(node: ast.ClassDef) -> list[Function]:
    return [one for one in node.body if isinstance(one, Function)]


def _assigned(method: Function) -> set[str]:
    """Attributes that a method assigns to its first argument."""
    own = method.args.args[0].arg if method.args.args else ""
    return {
        one.attr
        for one in ast.walk(method)
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)
        if isinstance(one.value, ast.Name) and one.value.id == own
    }


def _declared(node: ast.ClassDef, by_name: dict[str, list[ast.ClassDef]]) -> set[str]:
    """Names in a class's body and attributes of its __init__, with those of its bases."""
    names = {one.id for part in node.body for one in ast.walk(part) if isinstance(part, ast.AnnAssign | ast.Assign)
             if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}  # fmt: skip
    names |= {method.name for method in _methods(node)}  # a property with a setter
    names |= {name for method in _methods(node) if method.name == "__init__" for name in _assigned(method)}
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    known = [base for one in bases for base in by_name.get(ast.unparse(one).rpartition(".")[2], ()) if base is not node]
    return names.union(*(_declared(base, by_name) for base in known))
