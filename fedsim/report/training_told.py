"""What training itself did, in words: whether curves were flat, terms oscillated, and discriminators learnt."""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from fedsim.analysis.curves import ACCURACY, FLAT, by_run, late_gains
from fedsim.analysis.oscillation import oscillations
from fedsim.core.text import counted
from fedsim.engine.record.term import NEAR
from fedsim.report.wording import Row

_MOST_NAMED = 8
_LATE = "in the last fifth of the rounds"


def training_told(curves: pd.DataFrame, reference: str) -> list[str]:
    """Everything that learning curves say, in sentences.

    Args:
        curves: Rows of curves.parquet.
        reference: The method that the size of oscillations is compared with.
    """
    return [*flatness(curves), *oscillation(curves, reference), *discriminators(curves)]


def flatness(curves: pd.DataFrame) -> Iterator[str]:
    """Whether training was over: where the last fifth of the rounds still raised the best validation PSNR."""
    table = late_gains(curves)
    known, unknown = table.dropna(subset="gain"), int(table["gain"].isna().sum())
    rising = known[known["gain"] >= FLAT].sort_values("gain", ascending=False, kind="stable")
    judged = f"{_LATE} the best validation PSNR rises by"
    if len(known) and rising.empty:
        yield f"curves are flat at the end: {judged} less than {FLAT:g} dB everywhere (most: {_gain(_most(known))})"
    elif len(rising):
        named = [f"{_where(row, table)} ({_gain(row['gain'])})" for row in rising.head(_MOST_NAMED).to_dict("records")]
        more = f" and {len(rising) - len(named)} others" * (len(rising) > len(named))
        many = f"{len(rising)} of {len(known)}"
        yield f"curves are NOT flat at the end in {many}: {judged} {FLAT:g} dB or more in {', '.join(named)}{more}"
    if unknown:
        yield f"whether curves are flat is not known in {unknown} of {len(table)}: too few rounds were scored"


def _most(known: pd.DataFrame) -> float:
    return float(known["gain"].max())


def _gain(value: float) -> str:
    return f"{value:+.2f} dB"


def _where(row: Row, table: pd.DataFrame) -> str:
    """A method, with its regime if there are several."""
    return f"{row['regime']}/{row['method']}" if table["regime"].nunique() > 1 else str(row["method"])


def oscillation(curves: pd.DataFrame, reference: str) -> Iterator[str]:
    """Whether the contrastive term of each method oscillates, and validation PSNR with it."""
    table = oscillations(curves)
    kinks = table[table["method"] == reference].set_index("regime")["kink"]
    for row in table.dropna(subset="alternating").to_dict("records"):
        ratio = f"the ratio alternates in {row['alternating']:.0f} of {counted(row['runs'], 'run')}"
        ends = f"lies above {NEAR:g} of its bound in {row['saturated']:.1f} of {row['rounds']:.0f} rounds"
        parts = [f"{_where(row, table)}: the term {_verdict(row)}: {ratio} and {ends}"]
        if np.isfinite(row["kink"]):
            beside = float(kinks.get(row["regime"], np.nan)) if row["method"] != reference else np.nan
            other = f" ({reference}: {beside:.2f} dB)" if np.isfinite(beside) else ""
            parts.append(f"validation PSNR lies {row['kink']:.2f} dB off the mean of its neighbouring rounds{other}")
        if np.isfinite(row["correlation"]):
            parts.append(f"these deviations correlate with those of the ratio by {row['correlation']:+.2f}")
        yield "; ".join(parts)


def _verdict(row: Row) -> str:
    if not row["alternating"]:
        return "does not oscillate"
    return "oscillates" if row["alternating"] == row["runs"] else "oscillates in some runs"


def discriminators(curves: pd.DataFrame) -> Iterator[str]:
    """The accuracy of each method's discriminators, at first, at best and at last: mean over runs."""
    if ACCURACY not in curves:
        return
    known = curves.dropna(subset=ACCURACY)
    for (_, _), own in known.groupby(["regime", "method"], sort=False):
        by_round = own.groupby("round")[ACCURACY].mean()
        row: dict[Hashable, Any] = {key: own[key].iloc[0] for key in ("regime", "method")}
        runs = len(own[by_run(own)].drop_duplicates())
        first, last = (f"{by_round.iloc[at]:.2f} in round {by_round.index[at]}" for at in (0, -1))
        most = f"{by_round.max():.2f} in round {by_round.idxmax()}"
        yield (
            f"{_where(row, known)}: discriminators tell sites apart with accuracy {first}, at most {most}, {last} "
            f"(chance 0.50; mean over clients and {counted(runs, 'run')})"
        )
