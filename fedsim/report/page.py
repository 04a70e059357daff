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
    environment = _environment()
    environment.filters.update(filters)
    write_text(path, environment.get_template(template).render(page=_own_files("report"), **content))


def live_page(**content: object) -> tuple[str, str]:
    """The page that follows a run, and its policy for the header: it may also listen to its own server."""
    files_, listens = _own_files("report", "live"), "; connect-src 'self'; base-uri 'none'; form-action 'none'"
    policy = files_["policy"].replace("'unsafe-inline'", f"'{_digest(files_['style'])}'") + listens
    text = _environment().get_template("live.html.j2").render(page={**files_, "policy": policy}, **content)
    return text, f"{policy}; frame-ancestors 'none'"


def part(name: str, *arguments: object) -> str:
    """The markup of a macro of parts.html.j2."""
    return str(getattr(_environment().get_template("parts.html.j2").module, name)(*arguments))


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fedsim", "report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def picture(png: Path, title: str, caption: str) -> Picture:
    """A PNG file as an image of a page."""
    code = base64.b64encode(png.read_bytes()).decode()
    return {"source": f"data:image/png;base64,{code}", "title": title, "caption": caption}


def _own_files(*names: str) -> dict[str, str]:
    """Style, script, and the policy that lets a browser run that script only, and load nothing from anywhere."""
    style, script = (
        "\n".join(files("fedsim.report").joinpath(f"{name}.{kind}").read_text(encoding="utf-8") for name in names)
        for kind in ("css", "js")
    )
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_digest(script)}'"
    return {"style": Markup(style), "script": Markup(script), "policy": policy}  # all are files of this package


def _digest(text: str) -> str:
    """The digest by which a policy names a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
