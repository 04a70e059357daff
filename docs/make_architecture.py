"""Draws docs/images/architecture.svg from the imports of fedsim's files: python docs/make_architecture.py."""

import ast
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

import grimp

import fedsim

PACKAGE = Path(fedsim.__file__).parent
PICTURE = Path(__file__).parent / "images" / "architecture.svg"

# Rooms from the ground up: a room may import only rooms that stand before it.
ROOMS = (
    "core",
    "mri",
    "data",
    "models",
    "algorithms",
    "trackers",
    "workload",
    "engine",
    "analysis",
    "study",
    "report",
    "jobs",
    "cli",
)
Import = tuple[str, str]
Box = tuple[float, float, float, float]


def imports() -> set[Import]:
    """Every import of one of fedsim's files by another, wherever in the file it stands: (importer, imported)."""
    graph = grimp.build_graph("fedsim", cache_dir=None)
    return {(file, other) for file in graph.modules for other in graph.find_modules_directly_imported_by(file)}


def room(file: str) -> str:
    """The room of a file; fedsim/__init__.py and __main__.py, the doors, have none."""
    return file.split(".")[1] if "." in file.removesuffix(".__main__") else ""


def upward(found: Iterable[Import]) -> set[Import]:
    """Imports of a room that stands later, or of a door, which may import everything."""
    height = {name: number for number, name in enumerate(ROOMS)} | {"": len(ROOMS)}
    return {(a, b) for a, b in found if height[room(b)] > height[room(a)]}


def circle(found: Iterable[Import]) -> list[str]:
    """A circle of files that import each other, or nothing."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for importer, imported in found:
        sorter.add(importer, imported)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def needs(found: Iterable[Import]) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    pairs = {(room(a), room(b)) for a, b in found}
    return {name: {b for a, b in pairs if a == name and b not in {name, ""}} for name in ROOMS}


def levels(needed: dict[str, set[str]]) -> dict[str, int]:
    """The row of each room, 0 at the ground: one above the highest room that it needs."""
    rows: dict[str, int] = {}
    for name in TopologicalSorter(needed).static_order():
        rows[name] = max((rows[other] + 1 for other in needed[name]), default=0)
    return rows


def arrows(needed: dict[str, set[str]]) -> list[Import]:
    """The direct imports between rooms that no other path of imports implies."""
    reach: dict[str, set[str]] = {}
    for name in TopologicalSorter(needed).static_order():
        reach[name] = needed[name].union(*(reach[other] for other in needed[name]))
    return [(a, b) for a in ROOMS for b in ROOMS if b in needed[a] and not any(b in reach[c] for c in needed[a])]


# Pixels.
WIDTH, MARGIN, BOX, GAP, INNER = 860, 20, 50, 26, 46
STYLE = """
  .page { fill: #ffffff } .box { fill: #eef3f8; stroke: #4a6fa5 } .inner { fill: #ffffff; stroke: #9db4d0 }
  text { font-family: system-ui, sans-serif; fill: #1c2733 } .name { font-weight: 600; font-size: 15px }
  .small { font-size: 11.5px } .arrow { stroke: #4a6fa5; stroke-width: 1.6; fill: none } .head { fill: #4a6fa5 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .box { fill: #1b2530; stroke: #7fa6dc } .inner { fill: #0d1117; stroke: #46607f }
    text { fill: #e6edf3 } .arrow { stroke: #7fa6dc } .head { fill: #7fa6dc }
  }"""


def draw() -> str:
    """The picture: rooms as boxes, each above those that it imports, with arrows to them."""
    found = imports()
    needed = needs(found - upward(found))
    rows = levels(needed)
    boxes, height = layout(rows)
    lines = [_arrow(boxes[a], boxes[b]) for a, b in arrows(needed)]
    rooms = [_room(name, *boxes[name]) for name in ROOMS]
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<title>The rooms of fedsim; arrows point to what a room imports</title><style>{STYLE}</style>",
        f'<defs>{head}<path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="10"/>',
        *lines,
        *rooms,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def layout(rows: dict[str, int]) -> tuple[dict[str, Box], int]:
    """Left, top, width and height of each room's box, highest row first; and the height of the picture."""
    boxes: dict[str, Box] = {}
    top = MARGIN
    for row in range(max(rows.values()), -1, -1):
        names = [name for name in ROOMS if rows[name] == row]
        width = (WIDTH - 2 * MARGIN - GAP * (len(names) - 1)) / len(names)
        height = max(BOX + (INNER if inner(name) and len(names) == 1 else 0) for name in names)
        boxes |= {name: (MARGIN + i * (width + GAP), top, width, height) for i, name in enumerate(names)}
        top += height + GAP
    return boxes, top - GAP + MARGIN


def inner(name: str) -> list[str]:
    """The rooms within a room."""
    return sorted(folder.parent.name for folder in PACKAGE.glob(f"{name}/*/__init__.py"))


def _arrow(start: Box, end: Box) -> str:
    """A line from one box's bottom to the top of a lower one, as upright as both allow."""
    left, right = max(start[0], end[0]), min(start[0] + start[2], end[0] + end[2])
    x, y = (left + right) / 2, start[1] + start[3]
    return f'<path class="arrow" marker-end="url(#head)" d="M{x:g},{y:g} L{x:g},{end[1]:g}"/>'


def _room(name: str, left: float, top: float, width: float, height: float) -> str:
    parts = [
        f'<rect class="box" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6"/>',
        _text("name", left + 12, top + 20, f"{name}/"),
        _text("small", left + width - 12, top + 20, _files(name), "end"),
        _text("small", left + 12, top + 39, _purpose(name)),
    ]
    inside = inner(name) if height > BOX else []
    for i, other in enumerate(inside):
        step = (width - 16) / len(inside)
        x, y = left + 12 + i * step, top + BOX + 2
        parts += [
            f'<rect class="inner" x="{x:g}" y="{y:g}" width="{step - 8:g}" height="36" rx="4"/>',
            _text("small", x + 8, y + 15, f"{other}/"),
            _text("small", x + 8, y + 29, _files(f"{name}/{other}")),
        ]
    return "\n".join(parts)


def _text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def _files(folder: str) -> str:
    """How many files a folder and those below it have, without __init__.py."""
    return f"{sum(path.name != '__init__.py' for path in (PACKAGE / folder).rglob('*.py'))} files"


def _purpose(name: str) -> str:
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
