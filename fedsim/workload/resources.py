"""What a client needs of a machine while it trains."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from fedsim.core.section import Section

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:(?=.{{1,253}}/){_DOMAIN}(?:\.{_DOMAIN})*/)?{_NAME}")
_SELECTOR = re.compile(rf"!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))")


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        what = "is not the key of a label: at most 63 of A-Z, a-z, 0-9, '-', '_', '.', first and last a letter or digit"
        raise ValueError(f"{text!r:.80} {what}; a domain and '/' may stand before it")
    return text


def _selector(text: str) -> str:
    if not _SELECTOR.fullmatch(text):
        raise ValueError(f"{text!r:.80} selects no labels; write H100, '!H100', in(H100,H200) or '!in(H100,H200)'")
    return text.replace(" ", "")  # Ray would compare labels with the blank


class Resources(Section):
    """What a client needs; unset keys take the engine's values."""

    cpus: float | None = Field(None, gt=0, le=1024, description="Cores it takes on its node; default engine.threads.")
    gpus: float | None = Field(
        None, ge=0, le=64, description="Share of a GPU, or number of GPUs, that its actor has, or more where memory "
        "needs more; default an equal share of those available.")  # fmt: skip
    memory: float | None = Field(
        None, gt=0, le=1e6, description="Memory [GB] that Ray reserves for its actor; default none."
    )
    labels: Mapping[Annotated[str, AfterValidator(_key)], Annotated[str, AfterValidator(_selector)]] | None = Field(
        None, min_length=1, description="Labels that a Ray node must carry for its actor to run there, each selected "
        "as Ray does: `{accelerator: H100}`, `'!H100'`, `in(H100,H200)` or `'!in(H100,H200)'`; default any node."
    )  # fmt: skip

    def __hash__(self) -> int:
        """Equal needs have equal hashes, whatever the order of their labels."""
        return hash((self.cpus, self.gpus, self.memory, frozenset((self.labels or {}).items())))
