"""What a client noted in its training: its means, refused if not finite, with where to look for the cause."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import DivergedError, MethodError
from fedsim.data.samples import Slices
from fedsim.data.soundness import unsound

COLUMNS = frozenset({
    "round", "client", "site", "samples", "outcome", "node", "pid", "memory_bytes", "device", "private_bytes", "weight",
    "steps", "begin_seconds", "wait_seconds", "load_seconds", "train_seconds", "send_seconds", "uplink_bytes",
    "downlink_bytes", "evaluate_begin_seconds", "evaluate_seconds", "nmse", "psnr", "ssim", "virtual_begin_s",
    "virtual_end_s", "staleness", "region",
})  # fmt: skip
"""The columns of clients.parquet that no method may write; the loss, which a method may note itself, is another."""


Noted = Mapping[str, NDArray[np.float64]]
"""What a client noted, by name, one value a step (S,)."""


def means(notes: Noted, data: Slices, round_: int, who: str, own: str, loss: str) -> dict[str, float]:
    """The means of a client's metrics over its steps.

    Args:
        notes: The metrics, the loss among them.
        data: The client's.
        round_: Counted from 1.
        who: Client and round.
        own: The name of the method if it is a user's, else empty.
        loss: The name of the loss if it is a user's, else empty.

    Raises:
        MethodError: one has the name of another column of the ledger.
        DivergedError: one is not finite; names the client, and the slice that caused it if one did.
    """
    if taken := sorted(notes.keys() & COLUMNS):
        what = f"{taken[0]!r}, which is a column of the ledger already; choose another name"
        raise MethodError(f"{who}: train of {own} noted {what}")
    noted = {key: float(np.mean(values)) for key, values in notes.items() if values.size}
    wrong = [key for key, value in noted.items() if not np.isfinite(value)]
    if wrong:
        advice = _suspects(notes["loss"], data, round_, own, loss)
        raise DivergedError(f"{who}: the {wrong[0]} is not finite; {advice}")
    return {**noted, "steps": len(notes["loss"])}


def _suspects(losses: NDArray[np.float64], data: Slices, round_: int, own: str, loss: str) -> str:
    """Advice on a loss that is not finite: to lower the learning rate only if the data are sound."""
    if slice_ := unsound(data):
        return f"{slice_} has values unlike those of other images: leave it out"
    if round_ > 1 or np.isfinite(losses[:1]).all():
        theirs = " and ".join(filter(None, (own, loss)))
        return "its data are sound, so " + (f"look at {theirs}, then " if theirs else "") + "lower its learning rate"
    what = f"{loss} and " if loss else ""
    return (
        f"it was so before the first step, and its data are sound: check {what}the network's initial values, not the lr"
    )
