"""What the site has besides the files of docs/: README.md as its home, every file that a page links to, and notebooks.

MkDocs calls the functions whose names begin with `on_` (mkdocs.yml names this file under `hooks`). The Markdown files
stay as a code host shows them; what the site needs otherwise is changed here, as they are read.
"""

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.append(str(Path(__file__).parent))

from make_notebooks import CHAPTERS, notebook  # noqa: E402 - MkDocs runs this file by its path

LANGUAGES = {".yaml": "yaml", ".py": "python", ".sh": "bash", ".sbatch": "bash"}
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home, the files that pages link to, and the notebooks."""
    for chapter in CHAPTERS:
        files.append(File.generated(config, f"tutorial/{chapter.stem}.ipynb", content=notebook(chapter)))
    waiting = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(File.generated(config, page_of(path), content=shown(path)))
        if path.endswith(".md"):
            new = linked(path) - seen
            waiting += [other for other in new if not other.startswith("docs/")]
            seen |= new
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside docs/ lead to their pages, and show the names of files above their text."""
    here = page.file.src_uri
    path = file_of(here)
    if not path.endswith(".md"):
        return markdown
    changed = outside_code(markdown, lambda text: _LINK.sub(lambda found: _relative(path, here, found[1]), text))
    changed = re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', changed, flags=re.MULTILINE)
    if ROOT / path in CHAPTERS:
        changed += f"\n[This chapter as a notebook]({Path(path).stem}.ipynb)\n"
    return changed


def linked(path: str) -> set[str]:
    """The files of the project that one of its Markdown files links to, as paths from its root."""
    text = _FENCED.sub("", (ROOT / path).read_text(encoding="utf-8"))
    return {_target(path, link) for link in _LINK.findall(text)}


def shown(path: str) -> str:
    """A file of the project as a Markdown page; its links are still those of the file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path == "README.md":
        return f"---\nhide: [navigation]\n---\n{text}"
    if path.endswith(".md"):
        return text
    fence = f"````{LANGUAGES.get(Path(path).suffix, 'text')}"
    return f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n# {path}\n\n{fence}\n{text}\n````\n"


def page_of(path: str) -> str:
    """Where the site has a file of the project."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path.removesuffix('.md')}.md"


def file_of(page: str) -> str:
    """Which file of the project a page of the site shows; the inverse of `page_of`."""
    if page == "index.md":
        return "README.md"
    if not page.startswith("files/"):
        return f"docs/{page}"
    path = page.removeprefix("files/")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """The text with a change to all but its blocks of code."""
    blocks = [*_FENCED.findall(markdown), ""]
    return "".join(change(text) + block for text, block in zip(_FENCED.split(markdown), blocks, strict=True))


def _target(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _relative(path: str, page: str, link: str) -> str:
    return posixpath.relpath(page_of(_target(path, link)), posixpath.dirname(page) or ".")
