"""A run's figures and its report: one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.curves import accuracy_by_round
from fedsim.analysis.timeline import Timeline, engine_facts, overlapping, spans, sum_levels, timeline_of
from fedsim.analysis.virtual_time import has_virtual_time
from fedsim.core.errors import InputError
from fedsim.core.text import bytes_text, precise_duration
from fedsim.data.split import PARTS
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.ending import stopped_early
from fedsim.engine.record.failures import Failures
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.record.term import ratio_by_round, term_warning
from fedsim.report import figures
from fedsim.report.alignment import discriminator_accuracy
from fedsim.report.gantt import gantt
from fedsim.report.headline import headline_rows
from fedsim.report.introduction import kernels, settings, times, training
from fedsim.report.page import Picture, picture, write_page
from fedsim.report.panels import contrast_of, panels_of
from fedsim.report.quality_figure import quality
from fedsim.report.time_section import time_section
from fedsim.report.viewer import Stack, stacks_of
from fedsim.report.wording import range_text
from fedsim.workload.metrics import FEW
from fedsim.workload.sites import Site, matrix_text

_ALL_PANELS_UP_TO, _SOME_PANELS = 24, 12
_MOST_CLIENT_ROWS = 60
_MOST_FAILURES = 50


def write_report(run: str | Path, *, trust: bool | None = False) -> Path:
    """Draw a run's figures into RUN/figures and write RUN/report.html, which also says what the run lacks.

    Args:
        run: Run directory.
        trust: Whose code may be executed to show images and count parameters, as in `Run`; default none.

    Raises:
        InputError: the folder is not a run.
    """
    opened = Run(run, trust=trust)
    report = _Report(opened)
    path = opened.path / "report.html"
    write_page(path, "report.html.j2", report.content(), {"duration": precise_duration, "size": bytes_text})
    return path


class _Report:
    """The content of one run's report; collects in `missing` what the run lacks."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.workload = run.workload
        self.missing: list[str] = []
        self.manifest = self._table("manifest", "the sites' slices")
        self.rounds = self._table("rounds", "a finished round")
        self.clients = self._table("clients", "a client's round")
        self.evaluation = self._table("evaluation", "an evaluation: use `fedsim evaluate`")
        self.round = self._checkpoint()
        validated = "psnr" in self.rounds and self.rounds["psnr"].notna().any()
        self.best = self.round if validated else None

    def content(self) -> dict[str, Any]:
        """Everything the template uses."""
        self._note_progress()
        headline = self._headline()
        pictures = {"panels": list(self._panels()), "plots": list(self._plots(headline))}
        return {
            "workload": self.workload,
            "model": self._model(),
            "training": training(self.workload) + (f"; {times(self.run)}" if len(self.rounds) else ""),
            "settings": {"model": settings(self.workload.model), "algorithm": settings(self.workload.algorithm)},
            "sites": self._site_rows(self._all_sites()),
            "site_count": len(self.workload.federation.expanded_sites()) + len(self.workload.federation.unseen_sites()),
            "clients": self._client_count(),
            "done": len(self.rounds),
            "round": self.round,
            "best": self.best,
            "headline": headline_rows(headline),
            "engine": self._engine(),
            "time": self._time(),
            "failures": self._failures(),
            "stacks": self._stacks(pictures["panels"]),
            "missing": self.missing,
            "yaml": (self.run.path / "workload.yaml").read_text(encoding="utf-8"),
            **pictures,
        }

    def _table(self, name: str, what: str) -> pd.DataFrame:
        """A table of the run; empty, and noted as missing, if there is none yet."""
        if (self.run.path / f"{name}.parquet").exists():
            table: pd.DataFrame = getattr(self.run, name)
            return table
        self.missing.append(f"{name}.parquet does not exist yet: the run has not written {what}.")
        return pd.DataFrame()

    def _checkpoint(self) -> int | None:
        try:
            return self.run.round("best")
        except InputError as error:
            self.missing.append(f"No reconstructions can be shown: {error}")
            return None

    def _note_progress(self) -> None:
        done, planned = len(self.rounds), self.workload.training.rounds
        early = stopped_early(self.workload, self.rounds)
        if early:
            self.missing.append(f"{early[0].upper()}{early[1:]}; {planned} rounds were planned.")
        elif done < planned:
            self.missing.append(f"The run is not finished: {done} of {planned} rounds are done.")
        warning = term_warning(ratio_by_round(self.clients)) if len(self.clients) else None
        if warning:
            self.missing.append(f"{warning[0].upper()}{warning[1:]}.")
        if done and self.best is None:
            self.missing.append("No round was validated (metrics.every), so the last checkpoint is shown.")

    def _all_sites(self) -> list[Site]:
        federation = self.workload.federation
        if not self.workload.by_rule:
            return [*federation.expanded_sites(), *federation.unseen_sites()]
        sites, there = federation.expanded_sites(), list(self.manifest["site"].unique()) if len(self.manifest) else []
        self.missing.append(
            f"Sites that have taken part are listed, {_MOST_CLIENT_ROWS} at most; "
            f"{len(there):,} of {len(sites):,} sites have."
        )
        places = (sites.place(str(name)) for name in there[:_MOST_CLIENT_ROWS])
        return [*(sites[place] for place in places if place is not None), *federation.unseen_sites()]

    def _client_count(self) -> int:
        """Number of clients; up to 256 of them the ledger has all, a user's pooling method included."""
        names = self.workload.client_names()
        return int(self.clients["client"].nunique()) if len(self.clients) and len(names) <= FEW else len(names)

    def _model(self) -> dict[str, Any]:
        try:
            learner = make_learner(setup_of(self.run.runnable))
        except InputError:
            return {}
        shared, local = learner.shared.numel(), learner.local.numel()
        return {"parameters": shared + local, "shared": shared, "percent": 100 * shared / (shared + local)}

    def _headline(self) -> pd.DataFrame:
        """Rows of one round and split: the best round's test split, if there is one."""
        frame = self.evaluation
        if frame.empty:
            return frame
        part = next(part for part in reversed(PARTS) if (frame["split"] == part).any()) if "split" in frame else "test"
        if part != "test":
            self.missing.append(f"The test split was not evaluated; the {part} split is shown.")
        frame = frame[frame["split"] == part]
        shown = self.round if (frame["round"] == self.round).any() else frame["round"].max()
        if shown != self.round:
            self.missing.append(f"Round {self.round} was not evaluated; the table shows round {shown}.")
        frame, clients = frame[frame["round"] == shown], self._client_count()
        scored = frame["client"].nunique()
        if scored < clients and self.workload.metrics.scores_all(clients):
            self.missing.append(f"{clients - scored:,} of {clients:,} clients have no {part} data and are in no mean.")
        elif scored < clients:
            self.missing.append(f"Scores are those of {scored:,} of {clients:,} clients, as metrics.clients says.")
        return frame

    def _panels(self) -> Iterator[Picture]:
        if self.round is None:
            return
        sites = len(self.workload.federation.expanded_sites())
        most = sites if sites <= _ALL_PANELS_UP_TO else _SOME_PANELS
        try:
            for panel in panels_of(self.run, most):
                yield self._picture(f"panel-{panel.site}", figures.site_panel(panel), f"Site {panel.site}", "")
        except InputError as error:
            self.missing.append(f"Reconstructions cannot be shown: {error}")

    def _stacks(self, panels: list[Picture]) -> list[Stack]:
        """The image viewer's stacks; none if some reconstructions could not be drawn, for the same reason."""
        with suppress(InputError):
            return stacks_of({self.workload.algorithm.name: self.run}) if panels else []
        return []

    def _plots(self, headline: pd.DataFrame) -> Iterator[Picture]:
        if len(self.rounds):
            names = list(dict.fromkeys([*self.clients["client"], *headline.get("client", ())]))
            yield self._picture(
                "curves", figures.learning_curves(self.clients, self.best), "Learning curves",
                "Validation follows aggregation: the shared parameters with each client's own, mean over its volumes."
                + self._within(),
            )  # fmt: skip
            if len(headline):
                yield self._picture(
                    "quality", quality(headline, names), "Reconstructed, and without training",
                    f"Mean over volumes of the {headline['split'].iloc[0]} split, round {headline['round'].iloc[0]}; "
                    "whiskers, where drawn: standard deviation over volumes.",
                )  # fmt: skip
            if len(ratios := ratio_by_round(self.clients)):
                yield self._picture(
                    "contrastive", figures.contrastive_ratio(ratios), "Contrastive term: ratio by round",
                    "P / N, mean over clients and steps. Its bound is the largest weight in the mean (1 / S for S "
                    "clients of equal weight); at the bound the term's gradient vanishes.",
                )  # fmt: skip
            if len(accuracy := accuracy_by_round(self.clients)):
                yield self._picture(
                    "discriminators", discriminator_accuracy(accuracy), "Discriminators of latent features",
                    "Mean over clients and steps, before each step: above chance they tell source from target; at "
                    "chance features are aligned, or the discriminators have not learnt to tell them apart.",
                )  # fmt: skip
            yield self._picture(
                "rounds", figures.time_and_bytes(self.rounds, self.clients), "Time and bytes",
                "Bytes are the float32 parameters that the method itself sends between server and clients, "
                "not what Ray transports to simulate it.",
            )  # fmt: skip

    def _engine(self) -> dict[str, Any] | None:
        """Where the rounds' time went; None if the ledger does not say."""
        timeline = timeline_of(self.rounds, self.clients)
        if timeline is None:
            return None
        told = kernels(self.workload, set(self.clients["device"]))
        return {
            **engine_facts(timeline),
            "kernels": told,
            "sums": sum_levels(self.rounds),
            "picture": self._timeline(timeline),
        }

    def _time(self) -> dict[str, Any] | None:
        """What simulated time says; None for a run without it."""
        if not has_virtual_time(self.rounds):
            return None
        return time_section(self.rounds, self.clients, self._client_count(), self.best, self._picture)

    def _failures(self) -> dict[str, Any] | None:
        """Counts of failures, and the first of them; None without failures."""
        noted = Failures(self.run.path).noted
        if not noted:
            return None
        dropped = sum(failure.action == "dropped" for failure in noted)
        return {"rows": noted[:_MOST_FAILURES], "all": len(noted), "dropped": dropped}

    def _timeline(self, timeline: Timeline) -> Picture:
        shown = timeline.shown
        done = spans(timeline.turns[timeline.turns["round"] == shown])
        caption = f"Round {shown}, one row per actor (node:pid)."
        if overlapping(done, timeline.rounds["seconds"][shown]):
            caption += " Spans overlap: a client's work in several phases of the round is drawn as one."
        return self._picture("timeline", gantt(timeline, shown), f"Round {shown} as its actors spent it", caption)

    def _within(self) -> str:
        """A sentence that lists the within-subject sites; empty if there are none."""
        if self.manifest.empty:
            return ""
        sites = self.manifest.loc[self.manifest["within_subject"], "site"].unique()
        return f" Within subject: {', '.join(sites[:12])}{', …' if len(sites) > 12 else ''}." if len(sites) else ""

    def _picture(self, name: str, figure: Figure, title: str, caption: str) -> Picture:
        return picture(figures.save_figure(figure, self.run.path / "figures" / f"{name}.png"), title, caption)

    def _site_rows(self, sites: Sequence[Site]) -> list[dict[str, Any]]:
        """Rows of the table of sites; of a million sites, the manifest is not grouped by all."""
        shown = self.manifest
        if len(shown):
            shown = shown[shown["site"].isin([site.name for site in sites])]
        slices_of = dict(iter(shown.groupby("site"))) if len(shown) else {}
        return [self._site_row(site, slices_of.get(site.name, shown[:0])) for site in sites]

    def _site_row(self, site: Site, slices: pd.DataFrame) -> dict[str, Any]:
        parts = {part: slices[slices["split"] == part] if len(slices) else slices for part in PARTS}
        return {
            "name": site.name,
            "unseen": site.unseen,
            "format": site.source.format,
            "contrast": contrast_of(site.source.resolve(self.workload.seed, site.name)),
            "mask": site.mask.kind,
            "nominal": site.mask.nominal,
            "measured": _accelerations(slices) if len(slices) else "?",
            "matrix": matrix_text(site.matrix or self.workload.federation.matrix),
            "parts": {part: _counts(rows) for part, rows in parts.items()},
            "within_subject": bool(len(slices) and slices["within_subject"].any()),
        }


def _counts(slices: pd.DataFrame) -> tuple[int, int] | None:
    """Subjects and slices, if there are any."""
    return (slices["subject"].nunique(), len(slices)) if len(slices) else None


def _accelerations(slices: pd.DataFrame) -> str:
    """Measured, and effective where conjugate partners count."""
    measured = range_text(slices["acceleration"], ".2f")
    known = range_text(slices.get("effective_acceleration", slices["acceleration"]), ".2f")
    return measured + (f" (effective {known})" if known != measured else "")
