"""Names of files, volumes and contrasts: sorting, choosing, and making them safe."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from fedsim.core.errors import InputError
from fedsim.core.section import Text
from fedsim.data.reading import one_line

T = TypeVar("T")

Contrast = Text | Annotated[list[Text], Field(min_length=1)] | None
"""One contrast, several, or None for all; each format defines what a name matches."""


def pick(labels: Mapping[T, str], contrast: Contrast, fits: Callable[[str, str], bool], where: Path) -> list[T]:
    """The keys of `labels` with a label that `fits(label, wanted)` one of the wanted contrasts, in their order.

    Raises:
        InputError: none does; the message lists the labels.
    """
    if contrast is None:
        return list(labels)
    wanted = [contrast] if isinstance(contrast, str) else contrast
    picked = [key for key, label in labels.items() if any(fits(label.lower(), one.lower()) for one in wanted)]
    if not picked:
        there = sorted({one_line(label)[:60] for label in labels.values()}, key=natural)
        more = f" and {len(there) - 8} more" if len(there) > 8 else ""
        raise InputError(f"{where}: holds no contrast {' or '.join(wanted)}; it holds {', '.join(there[:8])}{more}")
    return picked


def stem(file: Path) -> str:
    """The file's name without its suffix; .nii.gz counts as one suffix."""
    return re.sub(r"(?i)(\.nii)?\.[a-z]\w*$", "", file.name)


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts slice_9 before slice_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,300})", text)]


def safe_name(text: str) -> str:
    """`text` with everything but letters, digits, '_' and '-' replaced; usable as a file name, at most 100 characters.

    Raises:
        InputError: nothing is left.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    if not name:
        raise InputError(f"{text!r:.60}: cannot be turned into a name of letters, digits, '_' and '-'")
    return name if len(name) <= 100 else f"{name[:91]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
