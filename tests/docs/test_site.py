"""The documentation as a site: every link leads somewhere, and nothing is loaded from elsewhere."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import site_pages
from markdown_it import MarkdownIt
from mkdocs.commands.build import build
from mkdocs.config import load_config

from .blocks import DOCS, ROOT

pytestmark = pytest.mark.slow
STRUCTURE = {"h1", "h2", "h3", "h4", "table", "ul", "ol", "li", "blockquote"}
WIDTHS = (1400, 390)


@dataclass
class Html(HTMLParser):
    """What a page of the site has in it."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    """Those of the text, without what the theme puts around it."""

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside |= tag == "article"
        self.elements += [tag] if self._inside and tag in STRUCTURE else []
        self.ids.add(given.get("id") or "")
        if tag == "a" and "href" in given:
            self.links.append(given["href"] or "")
        else:
            self.loaded += filter(None, (given.get(name) for name in ("src", "srcset", "href", "poster", "data")))

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    """Every page of the site, read."""
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Html()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def within(page: Path, link: str) -> tuple[Path, str]:
    """The file and the anchor that a link of a page leads to."""
    parts = urlsplit(link)
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page, unquote(parts.fragment)


def test_every_internal_link_and_anchor_is_alive(site: Path, pages: dict[Path, Html]) -> None:
    dead, checked = [], 0
    for page, html in pages.items():
        for link in html.links:
            if page.name == "404.html" or urlsplit(link).scheme:
                continue
            target, anchor = within(page, link)
            checked += 1
            known = pages[target].ids if target in pages else {""}
            if not target.is_file() or anchor not in {"", *known}:
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []
    assert checked > 1000


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Html]) -> None:
    """Scripts, styles, pictures and fonts are files of the site; what a reader may click is another matter."""
    loaded = [(page, link) for page, html in pages.items() for link in html.loaded]
    for sheet in site.rglob("*.css"):
        found = re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", sheet.read_text(encoding="utf-8"))
        loaded += [(sheet, one or other) for one, other in found]
    outside = [(page, link) for page, link in loaded if urlsplit(link).scheme not in {"", "data"} or "//" in link[:2]]
    assert outside == []
    assert all(
        within(page, link)[0].exists()
        for page, link in loaded
        if page.name != "404.html" and not link.startswith(("data:", "#"))
    )
    assert len(loaded) > 100


@pytest.mark.parametrize("name", sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
def test_a_page_has_the_same_parts_as_on_a_code_host(name: str, site: Path, pages: dict[Path, Html]) -> None:
    """Headings, lists and tables: the site reads another dialect of Markdown than code hosts do."""
    tokens = MarkdownIt("commonmark").enable("table").parse((DOCS / name).read_text(encoding="utf-8"))
    wanted = [token.tag for token in tokens if token.nesting == 1 and token.tag in STRUCTURE]
    assert pages[site / name.replace(".md", ".html")].elements == wanted


@pytest.mark.long
def test_a_page_asks_for_files_of_the_site_only_and_fits_its_window(browser: Any, site: Path) -> None:
    """In a browser: what scripts ask for counts too. Wide tables and code scroll in their own boxes."""
    asked: list[str] = []
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "reference", "results", "methods"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width} px"
        page.close()
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith(site.as_uri())] == []


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site's address while a server shows it; a browser lets no page search that it opens from a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Prints no requests."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "page"), [("clients_per_actor", "reference.html"), ("walltime", "howto-cluster.html")]
)
def test_a_search_finds_the_page(browser: Any, served: str, words: str, page: str) -> None:
    asked: list[str] = []
    window = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    window.on("request", lambda request: asked.append(request.url))
    window.goto(f"{served}index.html")
    window.locator("[data-md-component=search-query]").press_sequentially(words)
    window.locator(f"a.md-search-result__link[href*='{page}']").first.wait_for()
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    window.close()


def test_links_in_code_are_left_alone_and_those_to_other_files_get_a_page() -> None:
    text = (
        "[a](../workloads/x.yaml#b)\n```yaml x.yaml\n[a](../workloads/x.yaml)\n```\n[h](https://example.org) [i](#j)\n"
    )
    changed = site_pages.outside_code(text, lambda part: part.replace("../workloads/", "files/"))
    assert changed == text.replace("../workloads/x.yaml#b", "files/x.yaml#b")
    assert site_pages.page_of("README.md") == "index.md"
    for path in ("README.md", "docs/methods.md", "clusters/README.md", "workloads/quickstart.yaml"):
        assert site_pages.file_of(site_pages.page_of(path)) == path
