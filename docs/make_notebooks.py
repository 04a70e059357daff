"""Writes the chapters of the tutorial as Jupyter notebooks: python docs/make_notebooks.py FOLDER.

A file that a chapter shows whole becomes a cell that writes it; each command and each block of Python becomes
a cell that runs it. The notebooks use files of the folder in which they are: a checkout, or what `fedsim init` wrote.
"""

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CHAPTERS = tuple(
    Path(__file__).parent / "tutorial" / f"{name}.md" for name in ("first-run", "own-data", "comparing", "cluster")
)
_FENCED = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!\w+:)[^)]*\)")
_PICTURE = re.compile(r"!\[([^]]*)\]\(([^)]*)\)")


def notebook(chapter: Path) -> str:
    """A chapter as the JSON text of a notebook, the same every time."""
    text, *rest = _FENCED.split(chapter.read_text(encoding="utf-8"))
    cells = [*_words(text, chapter)]
    for language, name, body, words in zip(*(rest[i::4] for i in range(4)), strict=True):
        cells += [*_code(language, name, body), *_words(words, chapter)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return str(nbformat.writes(new_notebook(cells=cells, metadata=kernel))) + "\n"


def _code(language: str, name: str, body: str) -> Iterator[nbformat.NotebookNode]:
    """The cells of one block; what is shown only stays text."""
    if name:
        yield new_code_cell(f"%%writefile {name}\n{body}".rstrip())
    elif language == "console":
        for entry in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            yield new_code_cell("%%bash\n" + entry.replace("\\\n", " ").splitlines()[0])
    elif language == "python":
        yield new_code_cell(body.rstrip())
    else:
        yield new_markdown_cell(f"```{language}\n{body}```")


def _words(text: str, chapter: Path) -> Iterator[nbformat.NotebookNode]:
    """A cell of text with its pictures inside; links to other pages lead nowhere from a notebook and become words."""
    pictures = {Path(path).name: (chapter.parent / path).read_bytes() for _, path in _PICTURE.findall(text)}
    text = _PICTURE.sub(lambda found: f"![{found[1]}](attachment:{Path(found[2]).name})", _LINK.sub(r"\1", text))
    if text.strip():
        inside = {name: {"image/png": base64.b64encode(data).decode()} for name, data in pictures.items()}
        yield new_markdown_cell(text.strip(), **({"attachments": inside} if inside else {}))


if __name__ == "__main__":
    for page in CHAPTERS:
        Path(sys.argv[1], page.name).with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8")
