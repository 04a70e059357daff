"""Folds: subjects dealt into groups, each of which is test in one run, so that every subject is tested exactly once."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pydantic import Field, model_validator

from fedsim.core.errors import InputError
from fedsim.core.section import Section
from fedsim.core.text import counted
from fedsim.data.split import Split


class Folds(Section):
    """Groups that the subjects of each site are dealt into, one of which is the run's test data."""

    count: int = Field(ge=2, le=1000, description="Number of groups; each subject is in one.")
    test: int = Field(
        1, ge=1, description="Group that is test, from 1; the others are divided into training and validation."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of the groups, apart from the run's: runs of any seed test the same subjects in a fold.",
    )

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "Folds":
        if self.test > self.count:
            raise ValueError(f"test: {self.test} is not one of {self.count} folds")
        return self


def dealt(order: Sequence[str], sites_of: Mapping[str, Collection[str]], count: int) -> dict[str, int]:
    """The fold, from 1, of each person: one after the other into the fold that has fewest of the person's sites.

    At one site that is round-robin. People at several sites come first, so that those at one site can even out.

    Args:
        order: The people in a drawn order.
        sites_of: The sites where each is.
        count: Number of folds.
    """
    taken: Counter[tuple[str, int]] = Counter()
    folds: dict[str, int] = {}
    for person in sorted(order, key=lambda one: -len(sites_of[one])):
        where = sites_of[person]
        fold = min(range(1, count + 1), key=lambda number: (sum(taken[site, number] for site in where), number))
        taken.update((site, fold) for site in where)
        folds[person] = fold
    return folds


def check_folds(site: str, split: Split, of_subjects: Sequence[int], count: int) -> None:
    """Refuse folds of which a site would fill too few, or that leave too few subjects to train and validate on.

    Args:
        site: Its name.
        split: Its shares.
        of_subjects: The fold of each of its subjects.
        count: Number of folds.

    Raises:
        InputError: naming the site.
    """
    subjects, needed = len(of_subjects), sum(share > 0 for share in (split.train, split.val))
    most = max(Counter(of_subjects).values(), default=0)
    if len(set(of_subjects)) < count:
        there = counted(subjects, "subject")
        raise InputError(f"site {site}: {there} cannot fill {count} folds; at most {subjects}, or test share 0")
    if subjects - most < needed:
        what = f"{count} folds of {subjects} subjects leave {subjects - most} for {needed} parts"
        raise InputError(f"site {site}: {what} (training, validation); it needs more subjects, or share val 0")
