"""From a workload's sites to clients: shards, splits by subject, division among clients, a manifest of slices."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fedsim.core.errors import InputError
from fedsim.core.extension import blamed
from fedsim.core.files import sweep
from fedsim.data.cache import check_cache
from fedsim.data.left_out import LeftOut, lines, some
from fedsim.data.samples import PooledData
from fedsim.data.sharing import divide, people, shared_people, subject_lines
from fedsim.engine.clients.sequence import Clients, Listed, Registered
from fedsim.engine.clients.site import COLUMNS, Found, Made, find, made, read
from fedsim.engine.host.client import ClientSpec
from fedsim.workload.names import POOLED
from fedsim.workload.schema import Workload
from fedsim.workload.sites import MOST_LISTED

_MOST_CONTRASTS = 12


@dataclass(frozen=True, kw_only=True)
class Federation:
    """All clients, in the order of the sites, and one row for each slice of the sites that exist."""

    clients: Clients
    unseen: tuple[ClientSpec, ...]
    """One for each site that takes no part in training; not known to any host."""
    manifest: pd.DataFrame
    """One row per slice: its client, site, subject, volume, index, split, mask and digest. Sites whose clients are made
    when they first take part have none; see `manifest_of`.
    """
    left_out: tuple[LeftOut, ...] = ()
    """What the sites' folders hold that is not read."""
    shared: Mapping[str, list[str]] = field(default_factory=dict)
    """Subjects that several sites read, with the sites."""

    @property
    def names(self) -> Sequence[str]:
        """The clients' names, in order."""
        return self.clients.names

    def manifest_of(self, sites: Iterable[str]) -> pd.DataFrame:
        """The manifest's rows of some sites; names of none are ignored."""
        wanted = dict.fromkeys(sites)
        there = self.manifest[self.manifest["site"].isin(list(wanted))]
        if not isinstance(self.clients, Registered):
            return there
        listed = set(there["site"])
        made = filter(None, (self.clients.of_site(name) for name in wanted if name not in listed))
        rows = frame_of(row for one in made for row in one.rows())
        return pd.concat([frame for frame in (there, rows[list(there)]) if len(frame)] or [there], ignore_index=True)

    @property
    def by_rule(self) -> bool:
        """Whether some clients are made when they first take part."""
        return isinstance(self.clients, Registered)

    @property
    def notes(self) -> list[str]:
        """Notes for the user on how the data were read, one per line."""
        ways = self.manifest.drop_duplicates(["site", "subject"])["subject_from"].value_counts()
        subjects = subject_lines({str(way): count for way, count in ways.items()}, self.shared) if len(ways) else []
        return [*subjects, *filter(None, [self._contrasts(), self._by_rule()]), *lines(self.left_out)]

    def _by_rule(self) -> str:
        """How many clients are made as they come; empty if all are listed."""
        if not self.by_rule:
            return ""
        return f"registered: {len(self.clients):,} clients; a phantom site is made when it first takes part"

    def _contrasts(self) -> str:
        """Which contrast or channel is read at which site, as far as the files or the workload say."""
        sites: dict[str, dict[str, None]] = {}
        for client in (*self.clients.typical, *self.unseen):
            for member in client.data.members:
                for contrast in dict.fromkeys(piece.contrast for piece in member.pieces):
                    sites.setdefault(contrast, {})[member.site] = None
        shown = [f"{contrast} ({some(list(names))})" for contrast, names in sites.items() if contrast]
        return f"contrasts: {'; '.join(shown[:_MOST_CONTRASTS])}" if shown else ""


def assemble(workload: Workload, on_site: Callable[[str], None] = lambda site: None) -> Federation:
    """Import the sites (or find them in the cache), split them, and cut them into clients.

    Of many phantom sites with a `count`, clients are made when they are asked for.

    Args:
        workload: What to build.
        on_site: Called with the name of each site when it is ready.

    Raises:
        InputError: a source, a split or the number of clients is wrong, or a subject would be in two splits.
    """
    federation, pooled = workload.federation, workload.algorithm.pools_data
    taking_part, unseen = workload.listed_sites, federation.unseen_sites()
    counts = _counts(workload)
    check_cache(federation.cache)
    sweep(federation.cache)
    found: list[Found] = []
    for site in (*taking_part, *unseen):
        with blamed(site.source, f"site {site.name}"):
            found.append(find(workload, site))
        on_site(site.name)
    volumes = [read(workload, one) for one in found]
    who = people(volumes, federation.root)
    parts = divide(volumes, who, workload.seed, federation.folds)
    sites = {one.site.name: one for one in found}
    all_made = {name: made(workload, one, parts.get(name), who, counts(name)) for name, one in sites.items()}
    manifest = frame_of(row for one in all_made.values() for row in one.rows(POOLED if pooled else None))
    check_leaks(manifest)
    seen = {name: one for name, one in all_made.items() if not one.found.site.unseen}
    return Federation(
        clients=Registered(workload, seen) if workload.by_rule else Listed(_clients(workload, seen.values())),
        unseen=tuple(client for name, one in all_made.items() if name not in seen for client in one.clients),
        manifest=manifest.drop(columns="person"),
        left_out=tuple(dict.fromkeys(unread for one in found for unread in one.left_out)),
        shared=shared_people(volumes, who),
    )


def _counts(workload: Workload) -> Callable[[str], int]:
    """The number of clients of a site.

    Raises:
        InputError: there are fewer clients than sites, or more sites than one client can hold.
    """
    federation, pooled = workload.federation, workload.algorithm.pools_data
    sites = federation.expanded_sites()
    if pooled:
        if len(sites) > MOST_LISTED:
            held = f"{workload.algorithm.name} holds the data of all {len(sites):,} sites in one client"
            raise InputError(f"algorithm.name: {held}; at most {MOST_LISTED:,}")
        return lambda site: 1
    if federation.clients is not None and federation.clients < len(sites):
        raise InputError(
            f"federation.clients: {federation.clients} is fewer than the {len(sites)} sites; at least {len(sites)}"
        )
    return federation.client_names().of_site


def _clients(workload: Workload, sites: Iterable[Made]) -> list[ClientSpec]:
    """All clients, or the one that holds the data of all sites."""
    clients = [client for one in sites for client in one.clients]
    if not workload.algorithm.pools_data:
        return clients
    everything = PooledData(tuple(member for client in clients for member in client.data.members))
    return [ClientSpec(name=POOLED, site=POOLED, data=everything, training=workload.training)]


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of the manifest as a table."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def check_leaks(manifest: pd.DataFrame) -> None:
    """Refuse a federation with a person in two splits, unless a single site has divided that person's slices.

    Raises:
        InputError: naming the sites, the subject and the splits.
    """
    if manifest.empty:
        return
    across = manifest.groupby("person")["site"].transform("nunique") > 1
    divided = manifest[across | ~manifest["within_subject"]]
    parts = divided.groupby("person", sort=False)["split"].nunique()
    for person in parts.index[parts > 1]:
        rows = divided[divided["person"] == person]
        raise InputError(
            f"site {' and '.join(rows['site'].unique())}: subject {rows['subject'].iloc[0]} is in "
            f"{' and in '.join(rows['split'].unique())}; sites that read the same subjects need the same split"
        )
