"""The clients of a run as cells of a grid, a letter each."""

import numpy as np

from fedsim.analysis.cohorts import TURNS, Cohorts
from fedsim.cli.live.subject import Section

_NOW = "tdlu"  # of TURNS: how the turn in the newest round ended
_EARLIER = "bfbb"  # how an earlier turn ended
_NEVER = "n"


def cells(cohorts: Cohorts) -> tuple[Section, Section]:
    """The names of the clients that are shown, and how their last turns ended.

    Shown are all clients, or those of the newest round where they are too many.
    """
    if not cohorts.placed:
        return _newest(cohorts)
    letters = np.array(list(_EARLIER + _NEVER))[cohorts.turn]  # -1 is the last: never
    now = (cohorts.round == cohorts.newest) & (cohorts.turn >= 0)
    letters[now] = np.array(list(_NOW))[cohorts.turn[now]]
    return cohorts.names, {"states": "".join(letters), "round": cohorts.newest, "clients": cohorts.clients}


def _newest(cohorts: Cohorts) -> tuple[Section, Section]:
    letters = dict(zip(TURNS, _NOW, strict=True))
    rows = [(name, letters[how]) for name, how in zip(cohorts.last["client"], cohorts.last["outcome"], strict=True)
            if how in letters]  # fmt: skip
    states = {"states": "".join(letter for _, letter in rows), "round": cohorts.newest, "clients": cohorts.clients}
    return [name for name, _ in rows], states
