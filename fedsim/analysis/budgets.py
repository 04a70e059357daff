"""Numbers of slices that an unseen site gives, read before torch is loaded."""

import re
from typing import Literal

from fedsim.core.errors import InputError

Budget = int | Literal["all"]
"""Number K of the new site's slices to learn from."""


def parse_budgets(text: str) -> list[Budget]:
    """The numbers of slices in a text such as `0,4,all`.

    Raises:
        InputError: the text has anything else.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word != "all" and not re.fullmatch("[0-9]{1,9}", word)]
    if wrong:
        raise InputError(f"--slices {text}: {wrong[0]!r} must be a number of slices from 0 up, or all")
    return list(dict.fromkeys("all" if word == "all" else int(word) for word in words))
