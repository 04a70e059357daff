"""How FedMRI's beta is chosen in a study that changes the number of clients S: the term is at most beta / S."""

from collections.abc import Iterator

from fedsim.algorithms.fedmri import FedMRI
from fedsim.study.study import StudyPlan
from fedsim.workload.schema import Workload

_FIXED, _SCALED, _BY_HAND = "fixed", "beta_scaling: clients", "set by hand in each regime"


def beta_told(plan: StudyPlan) -> str | None:
    """A sentence on how each method chooses beta; None where no method has the term at several numbers of clients."""
    chosen = _choices(plan)
    if not chosen:
        return None
    ways = [way for way in (_FIXED, _SCALED, _BY_HAND) if way in chosen.values()]
    named = [f"{way} in {', '.join(method for method, its in chosen.items() if its == way)}" for way in ways]
    both = "both ways, " if {_FIXED, _SCALED} <= set(ways) else ""
    return f"how beta is chosen: {both}{'; '.join(named)} (the contrastive term is at most beta / clients)"


def beta_warning(plan: StudyPlan) -> str | None:
    """The warning for a study that changes the number of clients with fixed beta only."""
    chosen = _choices(plan)
    if _FIXED not in chosen.values() or _SCALED in chosen.values():
        return None
    counts = sorted({count for count, _ in _terms(plan, next(m for m, way in chosen.items() if way == _FIXED))})
    methods = ", ".join(method for method, way in chosen.items() if way == _FIXED)
    return (
        f"{methods}: algorithm.beta is fixed while the clients in a round go from {counts[0]} to {counts[-1]}: the "
        "contrastive term, at most beta / clients, fades; also add a method with algorithm.beta_scaling=clients"
    )


def _choices(plan: StudyPlan) -> dict[str, str]:
    """How each method that has the term at several numbers of clients chooses beta."""
    chosen = {}
    for method in plan.study.methods:
        terms = list(_terms(plan, method))
        if len({count for count, _ in terms}) > 1:
            scaled = all(term.beta_scaling == "clients" for _, term in terms)
            alike = len({term.beta for _, term in terms}) == 1
            chosen[method] = _SCALED if scaled else _FIXED if alike else _BY_HAND
    return chosen


def _terms(plan: StudyPlan, method: str) -> Iterator[tuple[int, FedMRI]]:
    """Clients per round, and the method's settings, in each regime in which it has the term."""
    for point in plan.finals({case: plan.example(method) for case in plan.cases if case.method == method}):
        algorithm = point.workload.algorithm
        if isinstance(algorithm, FedMRI) and algorithm.beta:
            yield _cohort(point.workload), algorithm


def _cohort(workload: Workload) -> int:
    return workload.training.drawn(len(workload.federation.client_names()))
