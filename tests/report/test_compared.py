"""Text is told without the drawing library, whose start takes longer than the comparison."""

from pathlib import Path

from make_architecture import imports

ROOT = Path(__file__).parents[2]


def draws(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return any(line.startswith(("import matplotlib", "from matplotlib")) for line in file.read_text().splitlines())


def reached(start: str) -> set[str]:
    """The modules of the package that a module loads."""
    found, left, arrows = {start}, [start], imports()
    while left:
        module = left.pop()
        new = {to for origin, to in arrows if origin == module} - found
        found |= new
        left += new
    return found


def test_comparing_runs_loads_no_drawing_library() -> None:
    loaded = reached("fedsim.report.compared")
    assert "fedsim.report.tables" in loaded
    assert [module for module in loaded if draws(module)] == []
    assert draws("fedsim.report.drawing"), "what the check would see"
