"""FL-MRCM's discriminators in a report: whether they can tell sites apart, and whether the alignment stops them."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsim.report.drawing import grid, legend
from fedsim.report.figures import PALETTE, marker_of

_CHANCE = 0.5


def discriminator_accuracy(by_round: "pd.Series[float]") -> Figure:
    """The mean accuracy of the discriminators against the round, with chance.

    Args:
        by_round: Between 0 and 1, by round.
    """
    figure, ((axis,),) = grid(1, 1, 6.4, 2.7)
    marker = marker_of(by_round)
    axis.plot(by_round.index, by_round, color=PALETTE[0], lw=1.6, marker=marker, ms=3.5, label="discriminators")
    axis.axhline(_CHANCE, color=PALETTE[1], ls="--", lw=1.2, label="chance")
    axis.set(xlabel="round", ylabel="accuracy", ylim=(0, 1.05))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    legend(figure, axis)
    return figure
