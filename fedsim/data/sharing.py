"""Subjects shared by several sites: finding them, and a division that puts each into the same part at all sites."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.core.seeds import derive, numpy_stream
from fedsim.core.text import counted
from fedsim.data.folds import Folds, check_folds, dealt
from fedsim.data.left_out import some
from fedsim.data.source import Source, StoredVolume
from fedsim.data.split import PARTS, Part, Split, ordered, part_of
from fedsim.data.subjects import SITE, connected

_NODES = 10_000  # nodes of the search; a limit in seconds would make the result depend on the machine
_NAMING = {"format", "path", "subject"}  # keys that a subject's name depends on

Person = str
"""Equal for the same person at any site."""
People = Mapping[tuple[str, str], Person]
"""The person that each (site, subject) is."""


@dataclass(frozen=True, kw_only=True)
class SiteVolumes:
    """The volumes of a site."""

    site: str
    source: Source
    split: Split
    unseen: bool = False
    """Whether it takes no part in training."""
    volumes: Sequence[StoredVolume]

    @cached_property
    def subjects(self) -> dict[str, str]:
        """The subjects, each with the text that determines its place in the drawn order."""
        places: dict[str, str] = {}
        for volume in self.volumes:
            original = volume.who.original
            places[volume.subject] = min(places.get(volume.subject, original), original)
        return places


def people(sites: Sequence[SiteVolumes], root: Path) -> dict[tuple[str, str], Person]:
    """The person that each (site, subject) is.

    Equal names are one person if the sources draw from the same population; so are subjects of two sites that are read
    from the same file or folder under different names.
    """
    names = {
        (one.site, volume.subject): f"{one.source.population(volume.who)}/{volume.subject}"
        for one in sites
        for volume in one.volumes
    }
    places: dict[str, dict[str, set[Person]]] = {}
    for one in sites:
        naming = one.source.model_dump_json(include=_NAMING)
        for volume in one.volumes:
            at = places.setdefault(os.path.realpath(root / volume.origin), {})
            at.setdefault(naming, set()).add(names[one.site, volume.subject])
    same = [sorted(set().union(*by.values())) for by in places.values() if len(by) > 1]
    first = {name: min(many) for many in connected(same) for name in many}
    return {key: first.get(name, name) for key, name in names.items()}


def divide(
    sites: Sequence[SiteVolumes], who: People, seed: int, folds: Folds | None = None
) -> dict[str, dict[str, Part]]:
    """The part of every subject at every site that is split by subject; each person is in one part.

    Sites that share no subject are divided separately, in an order drawn from (seed, source, subject). Sites that read
    the same people use one common order; if that would put a person into different parts at two sites, the parts are
    chosen for all these sites together, as close to each site's shares as possible.

    With folds, the people of one fold are test at every site with a share for test; the others are divided by shares
    for training and validation. Folds are drawn from a separate seed, so they are the same for every seed of runs.

    The subjects are returned in the drawn order.

    Raises:
        InputError: a site has too few subjects for its shares or folds, or no division keeps each person in one part.
    """
    if folds is not None:
        _check_no_blocks(sites)
    by_site = {one.site: one for one in sites if one.split.by == "subject"}
    groups = connected([one.site, *(f"/{who[one.site, s]}" for s in one.subjects)] for one in by_site.values())
    parts: dict[str, dict[str, Part]] = {}
    for group in groups:
        together = [by_site[name] for name in group if name in by_site]
        parts |= _divided(together, who, seed, folds)
    return parts


def shared_people(sites: Sequence[SiteVolumes], who: People) -> dict[str, list[str]]:
    """Subjects that several sites read, each with the sites."""
    where: dict[Person, dict[str, str]] = {}
    for one in sites:
        for subject in one.subjects:
            where.setdefault(who[one.site, subject], {})[one.site] = subject
    return {next(iter(at.values())): list(at) for at in where.values() if len(at) > 1}


def subject_lines(ways: Mapping[str, int], shared: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines for the user about the subjects: how they were identified, and which are read by several sites."""
    notes = [f"subjects: {', '.join(f'{number:,} identified by {way}' for way, number in ways.items())}"]
    if shared:
        sites = ", ".join(dict.fromkeys(site for where in shared.values() for site in where))
        notes.append(f"at several sites ({sites}), divided alike: {len(shared):,} x subject: {some([*shared])}")
    return notes


def _check_no_blocks(sites: Sequence[SiteVolumes]) -> None:
    for one in sites:
        if one.split.by == "block" and one.split.test:
            what = "has one subject, whose slices are divided, and folds divide subjects"
            raise InputError(f"site {one.site}: {what}; leave the site out, or set its test share to 0")


def _divided(sites: list[SiteVolumes], who: People, seed: int, folds: Folds | None) -> dict[str, dict[str, Part]]:
    identities = {one.source.identity() for one in sites}
    identity = identities.pop() if len(identities) == 1 else ""
    places: dict[Person, str] = {}
    for one in sites:
        for subject, text in one.subjects.items():
            person = who[one.site, subject]
            places[person] = min(places.get(person, text), text)
    if folds is None:
        return _by_shares(sites, who, places, identity, seed)
    tested = _tested(sites, who, ordered(places, folds.seed, identity), folds)
    rest = {person: text for person, text in places.items() if person not in tested}
    inner = [replace(one, split=one.split.without_test) for one in sites]
    parts = _by_shares(inner, who, rest, identity, derive(seed, "fold", folds.test))
    for one in sites:
        if one.split.test:
            parts[one.site] |= {subject: "test" for subject in one.subjects if who[one.site, subject] in tested}
    return parts


def _tested(sites: list[SiteVolumes], who: People, order: list[Person], folds: Folds) -> set[Person]:
    """The people of the fold that is test, of all those at a site with a share for test.

    Raises:
        InputError: a site has too few subjects for the folds.
    """
    sites_of: dict[Person, list[str]] = {}
    for one in sites:
        for subject in one.subjects if one.split.test else ():
            sites_of.setdefault(who[one.site, subject], []).append(one.site)
    fold_of = dealt([person for person in order if person in sites_of], sites_of, folds.count)
    for one in sites:
        if one.split.test:
            own = [fold_of[who[one.site, subject]] for subject in one.subjects]
            check_folds(one.site, one.split, own, folds.count)
    return {person for person, fold in fold_of.items() if fold == folds.test}


def _by_shares(
    sites: list[SiteVolumes], who: People, places: Mapping[Person, str], identity: str, seed: int
) -> dict[str, dict[str, Part]]:
    """The part of every subject that has a place, by the shares of its site; none at a site without any."""
    order = ordered(places, seed, identity)
    rank = {person: at for at, person in enumerate(order)}
    people_at = {one.site: {who[one.site, subject] for subject in one.subjects} & rank.keys() for one in sites}
    members = {site: sorted(those, key=rank.__getitem__) for site, those in people_at.items()}
    sharing = [one for one in sites if any(one.split.shares)]
    alone = {one.site: part_of(members[one.site], one.split, one.site, _told(one)) for one in sharing}
    chosen: dict[Person, Part] = {}
    for parts in alone.values():
        chosen |= parts
    if any(chosen[person] != part for parts in alone.values() for person, part in parts.items()):
        chosen = _jointly(sharing, members, order, seed)
    found: dict[str, dict[str, Part]] = {one.site: {} for one in sites}
    for one in sharing:
        known = [subject for subject in one.subjects if who[one.site, subject] in rank]
        drawn = sorted(known, key=lambda subject: rank[who[one.site, subject]])
        found[one.site] = {subject: chosen[who[one.site, subject]] for subject in drawn}
    return found


def _told(one: SiteVolumes) -> str:
    """What helps: the split that an unseen site may have, and the keys that say how subjects are identified, with how
    they were; the latter only if some volumes share a subject.
    """
    unseen = " for an unseen site set `split: {train: 0, val: 0, test: 1}`, or" if one.unseen else ""
    ways = dict.fromkeys(volume.who.told for volume in one.volumes)
    apart = len(one.subjects) == len(one.volumes)
    if apart and SITE not in ways:
        return f";{unseen}" if unseen else ""
    keys = "`subject: {pattern: ...}`" if apart else "`subject: file` or `subject: {pattern: ...}`"
    how = f"{counted(len(one.volumes), 'volume')}, identified by {', '.join(ways)}"
    return f" ({how}): if they show more people, set {keys}; or{unseen}"


def _jointly(
    sites: list[SiteVolumes], members: Mapping[str, list[Person]], order: list[Person], seed: int
) -> dict[Person, Part]:
    """A part for each person: a small integer program over the numbers of people that are at the same sites."""
    has = {one.site: set(members[one.site]) for one in sites}
    at = {person: tuple(site for site, theirs in has.items() if person in theirs) for person in order}
    kinds = list(dict.fromkeys(at.values()))
    counts = _numbers(sites, kinds, [sum(a == kind for a in at.values()) for kind in kinds], seed)
    if counts is None:
        several = [person.split("/", 1)[1] for person, where in at.items() if len(where) > 1]
        raise InputError(
            f"sites {' and '.join(one.site for one in sites)}: read the same people ({some(several)}), and no division "
            "leaves each of them in one part and no share empty; give the sites the same split, or set shares to 0"
        )
    parts: dict[Person, Part] = {}
    for kind, numbers in zip(kinds, counts, strict=True):
        alike = [person for person in order if at[person] == kind]
        dealt = [part for part, number in zip(PARTS, numbers, strict=True) for _ in range(number)]
        parts |= dict(zip(alike, dealt, strict=True))
    return parts


def _numbers(
    sites: list[SiteVolumes], kinds: list[tuple[str, ...]], sizes: list[int], seed: int
) -> NDArray[np.int64] | None:
    """How many of each kind go into each part (kinds, parts), closest to the sites' shares; None if one must be empty.

    The unknowns are these numbers and, for each site and part, the deviation from its share.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - takes 0.3 s, and few federations need it

    cells, misses = len(kinds) * len(PARTS), len(sites) * len(PARTS)
    has = np.array([[one.site in kind for kind in kinds] for one in sites], float)
    sums = np.kron(has, np.eye(len(PARTS)))  # (sites x parts, kinds x parts)
    totals = has @ np.array(sizes)
    shares = np.array([one.split.shares for one in sites])
    wanted = (shares * totals[:, None]).ravel()
    fewest, most = (shares.ravel() > 0).astype(float), np.where(shares.ravel() > 0, np.inf, 0)
    whole = np.kron(np.eye(len(kinds)), np.ones(len(PARTS)))
    room, none = np.eye(misses), np.zeros((len(kinds), misses))
    rules = [
        LinearConstraint(np.hstack([whole, none]), sizes, sizes),
        LinearConstraint(np.hstack([sums, 0 * room]), fewest, most),
        LinearConstraint(np.hstack([sums, -room]), -np.inf, wanted),
        LinearConstraint(np.hstack([sums, room]), wanted, np.inf),
    ]
    drawn = numpy_stream(seed, "split", "together").uniform(0, 1e-3, cells)  # the seed decides ties
    cost = np.concatenate([drawn, np.ones(misses)])
    whole_numbers = np.repeat([1, 0], [cells, misses])
    found = milp(
        cost, integrality=whole_numbers, bounds=Bounds(0, np.inf), constraints=rules, options={"node_limit": _NODES}
    )
    if found.x is None:
        return None
    return np.rint(found.x[:cells]).astype(np.int64).reshape(len(kinds), len(PARTS))
