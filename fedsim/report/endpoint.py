"""A study's endpoint in words and tables: what is shown of each method, and nothing that is not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import MEAN
from fedsim.analysis.endpoint import Outcome
from fedsim.analysis.patients import FEWEST_SUBJECTS
from fedsim.core.text import counted
from fedsim.report.overview import Cell, Column
from fedsim.report.wording import AXIS_LABELS, CI, WILCOXON, Row, chance, confidence, number, with_unit

TOST = "two one-sided t tests"

_VERDICTS = {
    "helps": {Outcome.BETTER}, "harms": {Outcome.WORSE},
    "within the margin": {Outcome.BETTER_WITHIN, Outcome.WORSE_WITHIN, Outcome.EQUIVALENT},
    "not shown": {Outcome.NOT_SHOWN, Outcome.TOO_FEW},
}  # fmt: skip
"""What an outcome means for the question whether to use a method instead of the reference."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a study's endpoint shows."""

    metric: str
    margin: float  # in the metric's unit
    reference: str
    """Method that differences refer to."""
    table: pd.DataFrame
    """From `judged`; may be empty."""
    floors: pd.DataFrame
    """From `worse_than_alone`; empty without a method that trains alone."""
    alone: str
    """The label of that method; may be empty."""

    @property
    def told(self) -> str:
        """The endpoint itself."""
        return f"{AXIS_LABELS[self.metric]} of test volumes, patient by patient; margin {self._margin}"

    @property
    def _margin(self) -> str:
        return f"{self.margin:g}" + with_unit(0.0, self.metric).removeprefix(number(0.0, self.metric))

    def sentences(self) -> list[str]:
        """A sentence for each method and regime; of training alone, the sites where it served most patients better."""
        several = self.table["regime"].nunique() > 1 if len(self.table) else False
        lines = [
            (f"{row['regime']}: " if several else "") + _SENTENCES[row["outcome"]](self, row)
            for row in self.table.to_dict("records")
        ]
        return [*self.verdicts(), *lines, *self._floors_told()]

    def verdicts(self) -> Iterator[str]:
        """Of several regimes: a sentence for each method on where it helps, harms, or is shown to do neither."""
        regimes = self.table["regime"].nunique() if len(self.table) else 0
        for method, rows in self.table.groupby("method", sort=False) if regimes > 1 else ():
            found = {word: list(rows.loc[rows["outcome"].isin(of), "regime"]) for word, of in _VERDICTS.items()}
            parts = [f"{word} {_in_regimes(where, len(rows))}" for word, where in found.items()]
            yield f"{method} against {self.reference} (margin {self._margin}): {'; '.join(parts)}"

    def _floors_told(self) -> Iterator[str]:
        several = self.floors["regime"].nunique() > 1 if len(self.floors) else False
        for row in self.floors.to_dict("records"):
            if row["site"] != MEAN and 2 * row["worse"] > row["patients"]:
                begin = f"{row['regime']}: " if several else ""
                share = f"{row['worse']} of {counted(row['patients'], 'patient')}"
                yield f"{begin}{row['method']} serves {share} of {row['site']} worse than training alone ({self.alone})"

    def better(self, row: Row) -> str:
        """A method that is shown to be better or worse."""
        word = "better" if row["outcome"] in {Outcome.BETTER, Outcome.BETTER_WITHIN} else "worse"
        return f"{row['method']} is {word} than {self.reference} by {self._by(row)}, {self._tested(row)}"

    def within(self, row: Row) -> str:
        """A method that is shown to be better or worse, and by less than the margin."""
        return f"{self.better(row)}; but by less than the margin of {self._margin} ({self._equivalent(row)})"

    def equivalent(self, row: Row) -> str:
        """A method that is shown to differ by less than the margin."""
        what = f"equivalent within the margin of {self._margin}"
        found = f"{self._signed(row)}, {row['patients']} patients, {self._equivalent(row)}"
        return f"{row['method']} and {self.reference} are {what}: {found}"

    def not_shown(self, row: Row) -> str:
        """A method of which neither is shown."""
        what = f"neither a difference from {self.reference} nor equivalence within {self._margin} is shown"
        found = f"{self._signed(row)}, {self._tested(row)}; {self._equivalent(row)}"
        return f"{row['method']}: {what} ({found})"

    def too_few(self, row: Row) -> str:
        """A method that too few patients have in common with the reference."""
        there = f"{counted(row['patients'], 'patient')} at {counted(row['sites'], 'site')}"
        needed = f"at least {FEWEST_SUBJECTS} are needed, and more than sites"
        return f"{row['method']}: nothing can be shown against {self.reference}: too few patients ({there}; {needed})"

    def _by(self, row: Row) -> str:
        low, high = sorted((abs(row["low"]), abs(row["high"])))
        ends = f"[{number(low, self.metric)}, {number(high, self.metric)}]"
        return f"{with_unit(abs(row['mean']), self.metric)}, {CI} {ends}"

    def _signed(self, row: Row) -> str:
        ends = confidence(row["low"], row["high"], self.metric)
        return f"{with_unit(row['mean'], self.metric, '+')}, {CI} {ends}"

    @staticmethod
    def _tested(row: Row) -> str:
        p = chance(row["p_holm"]).removesuffix(" *")
        corrected = f"after Holm's correction for {counted(row['tests'], 'comparison')}"
        return f"{row['patients']} patients, p {p} {corrected} ({WILCOXON})"

    @staticmethod
    def _equivalent(row: Row) -> str:
        p = chance(row["equivalent_p_holm"]).removesuffix(" *")
        return f"p {p} of equivalence, corrected likewise ({TOST})"

    def columns(self) -> list[Column]:
        """The table to show, a row per regime and method."""
        table = self.table
        keys = [key for key in ("regime", "method") if key == "method" or table["regime"].nunique() > 1]
        texts = [Column(key, tuple(Cell(str(value), str(value)) for value in table[key])) for key in keys]
        counts = Column("patients", tuple(Cell(str(count), float(count)) for count in table["patients"]))
        rows = table.to_dict("records")
        apart = tuple(
            Cell(f"{number(row['mean'], self.metric, '+')} {confidence(row['low'], row['high'], self.metric)}".strip(),
                 row["mean"]) for row in rows
        )  # fmt: skip
        medians = tuple(Cell(number(row["median"], self.metric, "+"), row["median"]) for row in rows)
        chances = [
            Column(head, tuple(Cell(chance(row[key]), row[key]) for row in rows))
            for head, key in (("p (Holm)", "p_holm"), ("p, equivalence", "equivalent_p_holm"))
        ]
        said = Column("shown", tuple(Cell(str(row["outcome"]), str(row["outcome"])) for row in rows))
        return [
            *texts, counts, Column(f"{AXIS_LABELS[self.metric]} − {self.reference} [{CI}]", apart),
            Column("median", medians), *chances, said,
        ]  # fmt: skip

    def floor_columns(self) -> list[Column]:
        """Patients worse than training alone: a row per regime and method, a column per site and for all of them."""
        table = self.floors.assign(told=self.floors["worse"].astype(str) + " of " + self.floors["patients"].astype(str))
        table = table.assign(share=table["worse"] / table["patients"])
        keys = ["regime", "method"] if table["regime"].nunique() > 1 else ["method"]
        sites = list(dict.fromkeys(table["site"]))
        order = list(dict.fromkeys(zip(table["regime"], table["method"], strict=True)))
        wide = table.pivot(index=["regime", "method"], columns="site").reindex(order)
        labels = [dict(zip(("regime", "method"), label, strict=True)) for label in order]
        shown = [Column(key, tuple(Cell(label[key], label[key]) for label in labels)) for key in keys]
        for site in sites:
            told, share = wide["told", site], wide["share", site]
            cells = (Cell(t, s) if np.isfinite(s) else Cell("", np.nan) for t, s in zip(told, share, strict=True))
            shown.append(Column("all sites" if site == MEAN else site, tuple(cells)))
        return shown


_SENTENCES: dict[str, Callable[[Judgement, Row], str]] = {
    Outcome.BETTER: Judgement.better,
    Outcome.WORSE: Judgement.better,
    Outcome.BETTER_WITHIN: Judgement.within,
    Outcome.WORSE_WITHIN: Judgement.within,
    Outcome.EQUIVALENT: Judgement.equivalent,
    Outcome.NOT_SHOWN: Judgement.not_shown,
    Outcome.TOO_FEW: Judgement.too_few,
}


def _in_regimes(regimes: list[str], of: int) -> str:
    """How many regimes, and which."""
    return f"in {len(regimes)} of {of} ({', '.join(regimes)})" if regimes else f"in none of {of}"
