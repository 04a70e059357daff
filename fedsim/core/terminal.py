"""Tables on a terminal."""

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000  # [letters]; measuring at the console's own width finds no more than that
_FOLDED = 16  # [letters]; columns that fold, those of paths, need no more, whatever their longest word


def print_whole(table: Table, console: Console) -> None:
    """Print a table whose cells need more columns than there are with longer lines; rich would cut them off."""
    folding = [column for column in table.columns if column.overflow == "fold" and not column.no_wrap]
    for column in folding:
        column.max_width = max(_FOLDED, column.min_width or 0)
    least = console.measure(table, options=console.options.update(width=_WIDEST)).minimum
    for column in folding:
        column.max_width = None
    if least > console.width:
        table.width = least
    console.print(table, crop=False)
