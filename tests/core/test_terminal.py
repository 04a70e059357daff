"""Tables are printed with all that is in them."""

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from fedsim.core.terminal import print_whole


@pytest.mark.parametrize("columns", [3, 20])
def test_no_cell_is_cut_off_where_a_table_is_wider_than_the_terminal(columns: int) -> None:
    table, text = Table(title="wide"), StringIO()
    cells = [f"{number / 7:.6f}" for number in range(columns)]
    for number in range(columns):
        table.add_column(f"site-{number}")
    table.add_row(*cells)
    print_whole(table, Console(file=text, width=80))
    assert all(cell in text.getvalue() for cell in cells)


def test_a_long_path_is_folded_where_its_column_may_fold() -> None:
    table, text = Table("", "where"), StringIO()
    table.columns[1].overflow = "fold"
    path = "/scratch/" + "/".join(f"folder{number}" for number in range(20))
    table.add_row("disk: private state beyond memory", path)
    print_whole(table, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert path in "".join(line.split("│")[2].strip() for line in lines if "│" in line)
