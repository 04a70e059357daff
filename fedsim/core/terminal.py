"""Tables on a terminal."""

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000  # [letters]; measuring at the console's own width finds no more than that


def print_whole(table: Table, console: Console) -> None:
    """Print a table whose cells need more columns than there are with longer lines; rich would cut them off."""
    least = console.measure(table, options=console.options.update(width=_WIDEST)).minimum
    if least > console.width:
        table.width = least
    console.print(table, crop=False)
