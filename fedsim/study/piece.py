"""A piece of a study: the regimes and methods that are run now, and those whose tuning they need."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedsim.core.errors import InputError
from fedsim.study.study import Case, Point, StudyPlan

WHOLE = "*"
"""The pattern of everything."""


@dataclass(frozen=True)
class Piece:
    """What is run of a study."""

    cases: frozenset[Case]
    """Those whose points are run."""
    tuned: frozenset[Case]
    """Those that they take their settings from."""

    def has(self, point: Point) -> bool:
        """Whether a point, of the results or of tuning, is to be run."""
        return point.case in (self.cases if point.candidate is None else self.tuned)

    def has_label(self, label: str) -> bool:
        """Whether a point with this label may be to be run."""
        regime, method, _ = label.split("/")
        return any((case.regime, case.method) == (regime, method) for case in self.cases | self.tuned)


def piece_of(plan: StudyPlan, pattern: str) -> Piece:
    """The piece whose `REGIME/METHOD` match a shell pattern, such as `few-*` or `all/fed*`.

    Raises:
        InputError: none does.
    """
    wanted = pattern if "/" in pattern else f"{pattern}/*"
    cases = frozenset(case for case in plan.cases if fnmatchcase(f"{case.regime}/{case.method}", wanted))
    if not cases:
        first = plan.cases[0]
        what = f"is none of its regimes and methods, such as {first.regime}/{first.method}"
        raise InputError(f"--only {pattern}: {what}; write REGIME or REGIME/METHOD, * for any text")
    return Piece(cases, frozenset(map(plan.tuned_in, cases)))
