"""Whether the test numbers of runs can be compared at all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from fedsim.algorithms.training import Precision
from fedsim.analysis.scores import scores
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.workload.names import Sites
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site, matrix_text

_T = TypeVar("_T", pd.DataFrame, "pd.Series[float]")
_EXACT = 1e-9
_SAME_DB = 1e-3  # tolerance [dB] of the zero-filled PSNR of one volume under one mask, between machines


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The conditions of a run's test numbers."""

    workload: Workload
    manifest: pd.DataFrame
    """Rows of manifest.parquet."""
    scores: pd.DataFrame | None = None
    """Rows of evaluation.parquet of the best round's test split, if the run is done."""
    devices: tuple[str, ...] = ()
    """Where its clients have trained, if it has run."""

    @property
    def precision(self) -> Precision:
        """What training steps computed in: on a CPU TF32 is float32."""
        asked = self.workload.training.precision
        return "float32" if asked == "tf32" and self.devices == ("cpu",) else asked


def terms_of(run: Run) -> Terms:
    """The conditions of a finished run's numbers."""
    return Terms(workload=run.workload, manifest=run.manifest, scores=scores(run, "test"), devices=devices_of(run))


def devices_of(run: Run) -> tuple[str, ...]:
    """Where the run's clients have trained: cpu, cuda, or both in turn."""
    return tuple(sorted(set(run.clients.get("device", ())) - {""}))


def check_comparable(runs: Mapping[str, Terms]) -> None:
    """Refuse to compare runs with incomparable numbers.

    Protocol, normalisation, precision and matrices must agree between all runs, which must have a site in common;
    between runs of one seed (and fold) also the test split, the test volumes and the masks.

    Args:
        runs: By a name for messages.

    Raises:
        InputError: naming two runs and what differs.
    """
    first: dict[tuple[int, int | None] | None, tuple[str, Terms]] = {}
    for name, run in runs.items():
        for trial, differences in ((None, _differs_at_all), (_trial(run.workload), _differs_in_a_seed)):
            other, before = first.setdefault(trial, (name, run))
            what = next(differences(before, run), None)
            if what:
                raise InputError(f"{other} and {name}: {what}; such numbers cannot be compared")


def _trial(workload: Workload) -> tuple[int, int | None]:
    """Seed and fold: what decides who is tested."""
    folds = workload.federation.folds
    return workload.seed, folds.test if folds else None


def _differs_at_all(one: Terms, two: Terms) -> Iterator[str]:
    was, is_ = one.workload, two.workload
    if was.metrics.protocol != is_.metrics.protocol:
        yield f"metrics.protocol differs ({was.metrics.protocol}, {is_.metrics.protocol})"
    if was.federation.normalise != is_.federation.normalise:
        yield f"federation.normalise differs ({was.federation.normalise}, {is_.federation.normalise})"
    if was.federation.target != is_.federation.target:
        yield f"federation.target differs ({was.federation.target}, {is_.federation.target})"
    folds, others = ((own.count, own.seed) if (own := w.federation.folds) else None for w in (was, is_))
    if folds != others:
        yield "federation.folds differs"
    if one.precision != two.precision:
        yield f"training.precision differs ({one.precision}, {two.precision})"
    sites, theirs = (workload.federation.expanded_sites() for workload in (was, is_))
    common = _common(sites, theirs)
    if not common:
        some = "; ".join(", ".join(site.name for site in some[:4]) for some in (sites, theirs))
        yield f"they have no site in common ({some})"
    for site, other in common:
        before, after = site.matrix or was.federation.matrix, other.matrix or is_.federation.matrix
        if before != after:
            yield f"the matrix of site {site.name} differs ({matrix_text(before)}, {matrix_text(after)})"


def _common(sites: Sites[Site], others: Sites[Site]) -> list[tuple[Site, Site]]:
    """A site that both have of each two entries of federation.sites that have one in common."""
    first = dict.fromkeys(group[start].name for group in (sites, others) for start in group.starts)
    places = ((sites.place(name), others.place(name)) for name in first)
    return [(sites[one], others[two]) for one, two in places if one is not None and two is not None]


def _differs_in_a_seed(one: Terms, two: Terms) -> Iterator[str]:
    seed = f"though the seed is {one.workload.seed} in both"
    slices, others = (_test_slices(terms.manifest) for terms in (one, two))
    growing = one.workload.by_rule or two.workload.by_rule  # there, sites that did not take part are not listed
    if growing:
        slices, others = _in_both(slices, others)
    for site, volume, *_ in sorted(slices.index.symmetric_difference(others.index)):
        yield f"the test split differs (site {site}, volume {volume}) {seed}"
    accelerations = (slices["acceleration"] - others["acceleration"]).abs()
    for site, volume, *_ in slices.index[(slices["mask_kind"] != others["mask_kind"]) | (accelerations > _EXACT)]:
        yield f"the mask differs (site {site}, volume {volume}) {seed}"
    if one.scores is None or two.scores is None:
        return
    before, after = (scored.groupby(["site", "volume"])["zf_psnr"].mean() for scored in (one.scores, two.scores))
    if growing:
        before, after = _in_both(before, after)
        if before.empty:
            yield "no volume is scored in both (set metrics.clients to one number)"
    for site, volume in before.index.symmetric_difference(after.index):
        yield f"the evaluated volumes differ (site {site}, volume {volume}) {seed}"
    for site, volume in before.index[(before - after).abs() > _SAME_DB]:
        yield f"the zero-filled images differ (site {site}, volume {volume}), so the masks do, {seed}"


def _in_both(one: _T, other: _T) -> tuple[_T, _T]:
    """The rows of two tables that both have, by their index."""
    both = one.index.intersection(other.index)
    return one.loc[both], other.loc[both]


def _test_slices(manifest: pd.DataFrame) -> pd.DataFrame:
    """Mask and acceleration of every test slice, by site, volume, slice and subject."""
    test = manifest[manifest["split"] == "test"]
    return test.set_index(["site", "volume", "slice", "subject"])[["mask_kind", "acceleration"]].sort_index()
