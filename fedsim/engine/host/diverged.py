"""Non-finite numbers in a client's training, and where to look for the cause."""

import numpy as np

from fedsim.algorithms.learner import Learner
from fedsim.core.errors import DivergedError
from fedsim.data.samples import Slices, unsound


def means(learner: Learner, data: Slices, who: str, own: str) -> dict[str, float]:
    """The means of a client's metrics over its steps; `own` names the method if it is a user's.

    Raises:
        DivergedError: one is not finite; names the client, and the slice that caused it if one did.
    """
    noted = {key: float(np.mean(values)) for key, values in learner.noted().items() if values.size}
    wrong = [key for key, value in noted.items() if not np.isfinite(value)]
    if wrong:
        raise DivergedError(f"{who}: the {wrong[0]} is not finite; {_suspects(learner, data, own)}")
    return {**noted, "steps": len(learner.statistics["loss"])}


def _suspects(learner: Learner, data: Slices, own: str) -> str:
    """Advice on a loss that is not finite: to lower the learning rate only if the data are sound."""
    if slice_ := unsound(data):
        return f"{slice_} has values unlike those of other images: leave it out"
    if learner.round > 1 or np.isfinite(learner.noted()["loss"][:1]).all():
        return "its data are sound, so " + (f"look at {own}, then " if own else "") + "lower its learning rate"
    return "it was so before the first step, and its data are sound: check the network's initial values, not the lr"
