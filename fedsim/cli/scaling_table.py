"""A round on a cluster that is not there, as a table for the terminal."""

from dataclasses import asdict

from rich import box
from rich.table import Table

from fedsim.core.text import bytes_text
from fedsim.engine.plan.scaling import Prediction, Rates

_PARTS = {
    "training": "training", "broadcast": "sending the broadcast", "calls": "the driver's calls",
    "nodes": "adding sums on nodes", "groups": "adding sums for groups of nodes", "link": "the driver's link",
    "driver": "adding sums in the driver", "ledger": "the ledger",
    "reports": "the driver's other work for hosts",
}  # fmt: skip


def scaling_table(made: Prediction, rates: Rates) -> Table:
    """What a round would take on another cluster, and what the prediction rests on."""
    table = Table(box=box.SIMPLE, show_header=False, title=f"a round on {made.cluster}, predicted")
    table.add_column(no_wrap=True)
    table.add_column()
    for name, seconds in asdict(made.parts).items():
        if seconds:
            table.add_row(_PARTS[name], f"{seconds:.2g} s")
    table.add_row("a round", f"[bold]{made.seconds:.3g} s, efficiency {made.efficiency:.2f}")
    table.add_row("bottleneck", _PARTS[made.bottleneck])
    calls = f"calls a host in {1e3 * rates.launch:.2g} ms, hears its end in {1e3 * rates.end:.2g} ms"
    driver, adder = bytes_text(rates.driver), bytes_text(rates.adder)
    adding = f"; it adds {driver} of sums a second, an adder {adder}" if made.parts.driver else ""  # as of `single`
    rows = f"writes {1 / rates.row:,.0f} rows a second"
    table.add_row("measured here", f"the driver {calls}{adding}; it {rows}")
    return table
