"""One self-contained HTML page: it includes style and script, and may load nothing."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fedsim.core.files import write_text

Picture = dict[str, str]
"""An image for a template: `source` (a data: URI), `title` and `caption`."""


def write_page(
    path: Path, template: str, content: Mapping[str, object], filters: Mapping[str, Callable[..., Any]]
) -> None:
    """Write a page from a template of this package; all content is shown as text, never as markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedsim", "report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(filters)
    write_text(path, environment.get_template(template).render(page=_own_files(), **content))


def picture(png: Path, title: str, caption: str) -> Picture:
    """A PNG file as an image of a page."""
    code = base64.b64encode(png.read_bytes()).decode()
    return {"source": f"data:image/png;base64,{code}", "title": title, "caption": caption}


def _own_files() -> dict[str, str]:
    """Style, script, and the policy that lets a browser run that script only, and load nothing from anywhere."""
    style, script = (
        files("fedsim.report").joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return {"style": Markup(style), "script": Markup(script), "policy": policy}  # both are files of this package
