"""How many slices an unseen site gives: what --slices may say."""

import pytest

from fedsim.analysis.budgets import parse_budgets
from fedsim.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "budgets"), [("0,4, 16", [0, 4, 16]), ("all", ["all"]), ("4,4", [4]), ("0,all,2", [0, "all", 2])]
)
def test_slices_are_read(text: str, budgets: list[object]) -> None:
    assert parse_budgets(text) == budgets


@pytest.mark.parametrize("text", ["-1", "four", "", "1,,2", "1.5", "ALL"])
def test_odd_slices_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be a number of slices from 0 up, or all"):
        parse_budgets(text)
