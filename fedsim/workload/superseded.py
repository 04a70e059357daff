"""Keys of a workload that have no effect, because another key takes precedence."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from fedsim.core.section import Section
from fedsim.workload.schema import Workload
from fedsim.workload.sites import SiteTraining

Rule = tuple[str, str, Callable[[Any], bool]]
"""A key, what supersedes it, and whether it does in a given section."""

_OF_RAY = ("clients_per_actor", "nodes", "cores", "nodes_timeout_s")
_OF_NEGATIVES = ("beta_scaling", "negatives", "exact_up_to", "own")
_TRAINING: tuple[Rule, ...] = (("lr_gamma", "lr_step=0", lambda training: training.lr_step == 0),)
_SPLIT: tuple[Rule, ...] = (("gap", "by=subject", lambda split: split.by == "subject"),)
_FAULT: tuple[Rule, ...] = (("seconds", "kind", lambda fault: fault.kind != "delay"),)
_ENGINE: tuple[Rule, ...] = (
    *((key, "backend=serial", lambda engine: engine.backend == "serial") for key in _OF_RAY),
    ("nodes_timeout_s", "nodes=null", lambda engine: engine.nodes is None),
    ("retries", "on_lost_process=abort", lambda engine: engine.on_lost_process == "abort"),
)
_ALGORITHM: tuple[Rule, ...] = (
    *((key, "beta=0", lambda method: method.beta == 0) for key in _OF_NEGATIVES),
    ("exact_up_to", "negatives", lambda method: method.negatives != "auto"),
)


def superseded(workload: Workload, overrides: Iterable[str] = ()) -> Iterator[str]:
    """A line for each key that is not at its default and has no effect.

    Args:
        workload: The workload as read.
        overrides: KEY=VALUE of `--set`; for these, keys without effect at only some of the sites are reported too.
    """
    overridden = [override.partition("=")[0] for override in overrides]
    federation = workload.federation
    yield from _by_sites(workload, overridden)
    yield from _in(workload.training, "training", _TRAINING)
    yield from _in(workload.engine, "engine", _ENGINE)
    yield from _in(workload.algorithm, "algorithm", _ALGORITHM)
    yield from _in(federation.split, "federation.split", _SPLIT)
    for at, fault in enumerate(workload.faults):
        yield from _in(fault, f"faults.{at}", _FAULT)
    for site in federation.sites:
        where = f"federation.sites.{site.name}"
        if site.split is not None:
            yield from _in(site.split, f"{where}.split", _SPLIT)
        if site.training.lr_gamma is not None and workload.training_of(site).lr_step == 0:
            yield _line(f"{where}.training.lr_gamma", "lr_step=0")
        if site.resources.gpus and workload.engine.device == "cpu":
            yield _line(f"{where}.resources.gpus", "engine.device=cpu")


def _by_sites(workload: Workload, overridden: Collection[str]) -> Iterator[str]:
    """Keys for all sites that some sites override."""
    sites = workload.federation.sites
    training = [site for site in sites if not site.unseen]
    for key in ("matrix", "split"):
        yield from _shared(
            f"federation.{key}", workload.federation, {s.name: getattr(s, key) for s in sites}, overridden
        )
    for key in SiteTraining.model_fields:
        own = {site.name: getattr(site.training, key) for site in training}
        yield from _shared(f"training.{key}", workload.training, own, overridden)


def _shared(key: str, section: Section, own: Mapping[str, object], overridden: Collection[str]) -> Iterator[str]:
    owning, name = [site for site, value in own.items() if value is not None], key.rpartition(".")[2]
    if len(owning) == len(own):
        if _changed(section, name):
            yield _line(key, f"{name} of every site")
    elif owning and any(given == key or given.startswith(f"{key}.") for given in overridden):
        yield f"{key} is superseded by separate {name} at {', '.join(owning[:5])}{' ...' if len(owning) > 5 else ''}"


def _in(section: Section, where: str, rules: tuple[Rule, ...]) -> Iterator[str]:
    told = set()
    for key, by, applies in rules:
        if key not in told and _changed(section, key) and applies(section):
            told.add(key)
            yield _line(f"{where}.{key}", by)


def _changed(section: Section, key: str) -> bool:
    """Whether a section has a key that differs from its default."""
    field = type(section).model_fields.get(key)
    return field is not None and getattr(section, key) != field.get_default(call_default_factory=True)


def _line(key: str, by: str) -> str:
    return f"{key} is superseded by {by} and has no effect"
