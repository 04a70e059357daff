"""A study's tables for its figures and its report: collected from its runs, or read as stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fedsim.analysis.comparable import check_comparable, terms_of
from fedsim.analysis.comparison import compare
from fedsim.analysis.endpoint import judged, worse_than_alone
from fedsim.analysis.scores import qualities_in
from fedsim.core.errors import InputError
from fedsim.engine.record.ledger import read_table
from fedsim.engine.record.run_directory import Run
from fedsim.report.budget_table import budgets
from fedsim.report.endpoint import Judgement
from fedsim.report.kinds.base import Found, StudyKind
from fedsim.report.kinds.catalogue import KINDS
from fedsim.report.overview import overview
from fedsim.report.patient_figures import patient_differences
from fedsim.report.tables import Tables
from fedsim.report.time_figures import quality_by_time
from fedsim.report.time_table import Times, times_of
from fedsim.report.training_told import training_told
from fedsim.report.tuning_table import tuning_costs
from fedsim.study.beta import beta_told
from fedsim.study.ended import read_failures
from fedsim.study.frozen import open_study
from fedsim.study.results import collect, finished_points
from fedsim.study.study import Point, StudyPlan

SHARED = "points shared the machine, one on each core: times are upper bounds"
"""Caveat for a study whose points ran in parallel."""


@dataclass(frozen=True, kw_only=True)
class StudyTables:
    """A study and its tables."""

    plan: StudyPlan
    folder: Path
    points: pd.DataFrame  # rows of results.parquet
    volumes: pd.DataFrame  # rows of volumes.parquet
    curves: pd.DataFrame  # rows of curves.parquet

    @property
    def kind(self) -> StudyKind:
        """What this kind of study shows."""
        return KINDS[self.plan.study.kind]

    @property
    def reference(self) -> str:
        """The method that differences refer to."""
        return self.plan.study.against

    @property
    def alone(self) -> str:
        """The method that trains each site alone; empty if there is none."""
        methods = self.points.loc[self.points["algorithm"] == "single", "method"]
        return str(methods.iloc[0]) if len(methods) else ""

    @property
    def planned(self) -> int:
        """Number of points of the complete study."""
        return len(self.plan.cases) * len(self.plan.study.seeds)

    @property
    def shared_machine(self) -> bool:
        """Whether points ran in parallel, so that their times are those of a busy machine."""
        return self.planned > 1 and any(point.workload.engine.backend == "serial" for point in self.plan.examples())

    @cached_property
    def by_quality(self) -> Tables:
        """Differences by quality, from `compare`."""
        return {quality: compare(self.volumes, quality, self.reference) for quality in qualities_in(self.volumes)}

    @cached_property
    def found(self) -> Found:
        """The tables as the study's kind needs them."""
        return Found(
            points=self.points, volumes=self.volumes, curves=self.curves, by_quality=self.by_quality,
            reference=self.reference, note=SHARED if self.shared_machine else "", base=self.plan.study.base,
            alone=self.alone,
        )  # fmt: skip

    @cached_property
    def overview(self) -> pd.DataFrame:
        """One row per regime and method."""
        return overview(self.points, self.by_quality, self.kind)

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """What tuning chose and cost, from `tuning_costs`; empty for a study without tuning."""
        return tuning_costs(self._tried) if len(self._tried) else pd.DataFrame()

    @cached_property
    def _tried(self) -> pd.DataFrame:
        """Rows of tuning.parquet; none in a folder without it."""
        path = self.folder / "tuning.parquet"
        return read_table(path) if path.exists() else pd.DataFrame()

    @cached_property
    def budgets(self) -> pd.DataFrame:
        """What each method was given, from `budgets`."""
        return budgets(self.points, self.curves, self._tried)

    @cached_property
    def judgement(self) -> Judgement | None:
        """What the study's endpoint shows; None without an endpoint.

        Raises:
            InputError: the volumes lack its metric.
        """
        endpoint = self.plan.study.endpoint
        if endpoint is None:
            return None
        metric = endpoint.metric
        if metric not in qualities_in(self.volumes):
            raise InputError(
                f"endpoint.metric: no volume of the study has {metric}; known: {', '.join(self.by_quality)}"
            )
        return Judgement(
            metric=metric, margin=endpoint.margin, reference=self.reference, alone=self.alone,
            table=judged(self.volumes, metric, self.reference, endpoint.margin),
            floors=worse_than_alone(self.volumes, metric, self.alone) if self.alone else pd.DataFrame(),
        )  # fmt: skip

    @cached_property
    def times(self) -> Times:
        """The time to quality in simulated time."""
        curves = self.curves if "fold" not in self.curves else self.curves[:0]  # a fold is no repetition
        axes = {regime: self.plan.study.axes_of(regime) for regime in self.plan.regimes}
        return times_of(curves, axes, self.reference)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Every figure that the tables allow, with its name."""
        yield from self.kind.figures(self.found)
        if self.kind.shows_patients:
            metric = self.judgement.metric if self.judgement else "psnr"
            figure = patient_differences(self.volumes, metric, self.reference, self.judgement)
            if figure is not None:
                yield "patients", figure
        if len(self.times.reached):
            yield "virtual-time", quality_by_time(self.times.curves, self.times.reached, self.times.reference)

    @cached_property
    def finished(self) -> list[Point]:
        """The points with finished runs."""
        return finished_points(self.plan, self.folder)

    @cached_property
    def failures(self) -> dict[str, str]:
        """The error of each failed point, by its label."""
        return read_failures(self.folder)

    @cached_property
    def training(self) -> list[str]:
        """What training itself did, in sentences."""
        return training_told(self.curves, self.reference)

    def says(self, quality: str) -> list[str]:
        """The findings of the study for a quality, in sentences."""
        beta = beta_told(self.plan)
        return [*self.kind.findings(self.found, quality), *([beta] if beta else [])]


def study_tables(folder: Path) -> StudyTables:
    """The tables of a study's folder, collected again if its runs are there.

    Raises:
        InputError: the folder is not a study, or its points cannot be compared.
        RunError: a table is missing or cannot be read.
    """
    plan = open_study(folder)
    if (folder / "runs").is_dir():
        collect(plan, folder)
    points, volumes, curves = (read_table(folder / f"{name}.parquet") for name in ("results", "volumes", "curves"))
    tables = StudyTables(plan=plan, folder=folder, points=points, volumes=volumes, curves=curves)
    _check(tables.finished, folder)
    return tables


def _check(finished: Sequence[Point], folder: Path) -> None:
    for regime in dict.fromkeys(point.regime for point in finished):
        check_comparable({p.label: terms_of(Run(folder / p.folder)) for p in finished if p.regime == regime})
