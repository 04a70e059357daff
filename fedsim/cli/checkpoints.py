"""fedsim checkpoints: which rounds of a run can be used, and what they take on disk."""

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from fedsim.cli.common import RunFolder, out
from fedsim.core.terminal import print_whole
from fedsim.core.text import bytes_text
from fedsim.engine.record.run_folder import check_run

if TYPE_CHECKING:
    from fedsim.engine.state.listing import Listed


def checkpoints(run_dir: RunFolder) -> None:
    """List the checkpoints of a run: their rounds and sizes, and what they share with earlier ones."""
    check_run(run_dir)
    from fedsim.engine.record.run_directory import Run
    from fedsim.engine.state.listing import list_checkpoints

    print_whole(_table(list_checkpoints(Run(run_dir).path), str(run_dir)), out)


def _table(listed: "list[Listed]", run: str) -> Table:
    size = bytes_text(sum(one.own for one in listed))
    caption = f"{size} on disk; above 256 clients, those that have not trained are not stored"
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"checkpoints of {run}"), caption=caption)
    for column in ("round", "clients", "files", "size", "in earlier files", "own files", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    for one in listed:
        clients = "state.json is damaged" if one.clients is None else f"{one.clients:,}"
        sizes = (bytes_text(size) for size in (one.size, one.shared, one.own))
        table.add_row(str(one.round), clients, f"{one.files:,}", *sizes, "best" if one.best else "")
    return table
