"""From a workload's sites to clients: shards, splits by subject, division among clients, a manifest of slices."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.core.extension import blamed
from fedsim.core.files import sweep
from fedsim.core.seeds import numpy_stream
from fedsim.data.cache import note_use
from fedsim.data.left_out import LeftOut, lines, noting, some
from fedsim.data.samples import ClientData, PooledData
from fedsim.data.shard import Shard, ensure_shard, shard_path
from fedsim.data.sharing import People, SiteVolumes, divide, people, shared_people, subject_lines
from fedsim.data.source import Source, StoredVolume
from fedsim.data.split import Part, Piece, pieces_of, split_blocks
from fedsim.engine.host.client import ClientSpec
from fedsim.mri.masks import measured_acceleration
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site

POOLED = "all"
"""The client of a method that pools the data of all sites."""
_MOST_CONTRASTS = 12


@dataclass(frozen=True, kw_only=True)
class Federation:
    """All clients, in the order of the sites, and one row for each slice."""

    clients: tuple[ClientSpec, ...]
    unseen: tuple[ClientSpec, ...]
    """One for each site that takes no part in training; not known to any host."""
    manifest: pd.DataFrame
    """One row per slice: its client, site, subject, volume, index, split, mask and digest."""
    left_out: tuple[LeftOut, ...] = ()
    """What the sites' folders hold that is not read."""
    shared: Mapping[str, list[str]] = field(default_factory=dict)
    """Subjects that several sites read, with the sites."""

    def __len__(self) -> int:
        """Number of clients (N)."""
        return len(self.clients)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Training slices of each client (N,)."""
        return np.array([client.data.samples() for client in self.clients], np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names, in order."""
        return tuple(client.name for client in self.clients)

    @property
    def notes(self) -> list[str]:
        """Notes for the user on how the data were read, one per line."""
        ways = self.manifest.drop_duplicates(["site", "subject"])["subject_from"].value_counts()
        subjects = subject_lines({str(way): count for way, count in ways.items()}, self.shared)
        return [*subjects, *filter(None, [self._contrasts()]), *lines(self.left_out)]

    def _contrasts(self) -> str:
        """Which contrast or channel is read at which site, as far as the files or the workload say."""
        sites: dict[str, dict[str, None]] = {}
        for client in (*self.clients, *self.unseen):
            for member in client.data.members:
                for contrast in dict.fromkeys(piece.contrast for piece in member.pieces):
                    sites.setdefault(contrast, {})[member.site] = None
        shown = [f"{contrast} ({some(list(names))})" for contrast, names in sites.items() if contrast]
        return f"contrasts: {'; '.join(shown[:_MOST_CONTRASTS])}" if shown else ""


def assemble(workload: Workload, on_site: Callable[[str], None] = lambda site: None) -> Federation:
    """Import every site (or find it in the cache), split it, and cut it into clients.

    Args:
        workload: What to build.
        on_site: Called with each site's name when it is ready.

    Raises:
        InputError: a source, a split or the number of clients is wrong, or a subject would be in two splits.
    """
    federation, pooled = workload.federation, workload.algorithm.pools_data
    seen, unseen = federation.expanded_sites(), federation.unseen_sites()
    counts = clients_per_site(None if pooled else federation.clients, len(seen)) + [1] * len(unseen)
    sweep(federation.cache)
    found: list[_Found] = []
    for site in (*seen, *unseen):
        with blamed(site.source, f"site {site.name}"):
            found.append(_find(workload, site))
        on_site(site.name)
    read = [
        SiteVolumes(site=f.site.name, source=f.site.source, split=f.site.split or federation.split, volumes=f.volumes)
        for f in found
    ]
    who = people(read, federation.root)
    parts = divide(read, who, workload.seed)
    members: list[ClientSpec] = []
    rows: list[dict[str, Any]] = []
    for one, count in zip(found, counts, strict=True):
        clients = _site_clients(workload, one, parts.get(one.site.name), count)
        members += clients
        rows += _manifest_rows(one, clients, who, POOLED if pooled else None)
    manifest = pd.DataFrame(rows)
    check_leaks(manifest)
    taking_part = members[: len(members) - len(unseen)]
    if pooled:
        everything = PooledData(tuple(member for client in taking_part for member in client.data.members))
        taking_part = [ClientSpec(name=POOLED, site=POOLED, data=everything, training=workload.training)]
    outside = tuple(members[len(members) - len(unseen) :])
    left_out = dict.fromkeys(unread for one in found for unread in one.left_out)
    shared = shared_people(read, who)
    return Federation(
        clients=tuple(taking_part),
        unseen=outside,
        manifest=manifest.drop(columns="person"),
        left_out=tuple(left_out),
        shared=shared,
    )


def clients_per_site(clients: int | None, sites: int) -> list[int]:
    """The number of clients of each site: equal, with one more for the first sites if the total does not divide.

    Raises:
        InputError: there are fewer clients than sites.
    """
    if clients is None:
        return [1] * sites
    if clients < sites:
        raise InputError(f"federation.clients: {clients} is fewer than the {sites} sites; at least {sites}")
    return [clients // sites + (index < clients % sites) for index in range(sites)]


def check_leaks(manifest: pd.DataFrame) -> None:
    """Refuse a federation with a person in two splits, unless a single site has divided that person's slices.

    Raises:
        InputError: naming the sites, the subject and the splits.
    """
    across = manifest.groupby("person")["site"].transform("nunique") > 1
    divided = manifest[across | ~manifest["within_subject"]]
    parts = divided.groupby("person", sort=False)["split"].nunique()
    for person in parts.index[parts > 1]:
        rows = divided[divided["person"] == person]
        raise InputError(
            f"site {' and '.join(rows['site'].unique())}: subject {rows['subject'].iloc[0]} is in "
            f"{' and in '.join(rows['split'].unique())}; sites that read the same subjects need the same split"
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What the sources of a site gave."""

    site: Site
    """Resolved."""
    path: Path
    """The shard; not there yet if the site has a maker."""
    volumes: list[StoredVolume]
    maker: Source | None
    """The phantom that makes the shard where it is first read; None: the shard is there."""
    left_out: list[LeftOut]
    """What the site's folder holds that is not read."""


def _find(workload: Workload, site: Site) -> _Found:
    federation = workload.federation
    site = site.model_copy(update={"source": site.source.resolve(workload.seed, site.name)})
    matrix = site.matrix or federation.matrix
    where = site.source, federation.root, federation.cache, matrix
    volumes = site.source.foreseen(matrix)
    if volumes is not None:
        path = shard_path(*where)
        note_use(path)
        return _Found(site=site, path=path, volumes=volumes, maker=site.source, left_out=[])
    with noting(federation.root) as seen:
        path = ensure_shard(*where)
    note_use(path)
    with Shard(path) as shard:
        there = [one for one in shard.left_out() if (federation.root / one.path).exists()]
        return _Found(site=site, path=path, volumes=shard.volumes(), maker=None, left_out=[*seen, *there])


def _site_clients(workload: Workload, found: _Found, parts: Mapping[str, Part] | None, count: int) -> list[ClientSpec]:
    federation, site = workload.federation, found.site
    supports = {volume.name: volume.support for volume in found.volumes}
    split, matrix = site.split or federation.split, site.matrix or federation.matrix
    listed = [(volume.name, volume.subject, len(volume.slices)) for volume in found.volumes]
    contrasts = {volume.name: volume.contrast for volume in found.volumes}
    pieces = split_blocks(listed, split, site.name) if parts is None else pieces_of(listed, parts, split, site.name)
    pieces = [dataclasses.replace(piece, contrast=contrasts[piece.volume]) for piece in pieces]
    data = ClientData(
        shard=found.path,
        site=site.name,
        pieces=(),
        supports=(),
        mask=site.mask,
        matrix=matrix,
        normalise=federation.normalise,
        seed=workload.seed,
        maker=found.maker,
    )
    clients = []
    for name, own in _cut(workload, site, pieces, count):
        mine = dataclasses.replace(data, pieces=own, supports=tuple(supports[piece.volume] for piece in own))
        training = workload.training_of(site)
        clients.append(ClientSpec(name=name, site=site.name, data=mine, training=training, resources=site.resources))
    return clients


def _cut(workload: Workload, site: Site, pieces: list[Piece], count: int) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """Client names, each with its own training pieces and the site's validation and test pieces."""
    if count == 1:
        yield site.name, tuple(pieces)
        return
    train = [piece for piece in pieces if piece.part == "train"]
    rng = numpy_stream(workload.seed, "partition", site.name)
    hands = workload.federation.partition.hands(train, count, rng, site.name)
    for index, hand in enumerate(hands, start=1):
        yield f"{site.name}.{index}", tuple(p for p in pieces if p.part != "train" or p.volume in hand)


def _check_repeats(data: ClientData) -> None:
    """Refuse a user's mask that draws from elsewhere than the generator that it is given.

    Raises:
        InputError: the same volume gets two masks.
    """
    if not data.mask.foreign:
        return
    volume, support = data.pieces[0].volume, data.supports[0]
    first, second = (data.volume_mask(volume, support) for _ in range(2))
    if not np.array_equal(first, second):
        raise InputError(
            f"site {data.site}: sample of {data.mask.label} gives two masks for equal generators; draw from rng alone, "
            "not from np.random, random or torch, and keep no state"
        )


def _manifest_rows(
    found: _Found, clients: list[ClientSpec], who: People, owner: str | None
) -> Iterator[dict[str, Any]]:
    """One row per slice; training slices belong to their client, to `owner`, or to none if the site is unseen."""
    site, stored = found.site, {volume.name: volume for volume in found.volumes}
    data = {client.name: member for client in clients for member in client.data.members}
    some = next(iter(data.values()))
    _check_repeats(some)
    shared = [(None, piece) for piece in some.pieces if piece.part != "train"]
    own = [
        (None if site.unseen else owner or name, piece)
        for name, member in data.items()
        for piece in member.pieces
        if piece.part == "train"
    ]
    parts = {piece.part for _, piece in shared + own}
    within = len({volume.subject for volume in found.volumes}) == 1 and len(parts) > 1
    for client, piece in own + shared:
        volume = stored[piece.volume]
        mask = some.volume_mask(volume.name, volume.support)
        height, width = volume.support
        acceleration = measured_acceleration(mask) * height * width / mask.size
        for index in volume.slices[piece.start : piece.stop]:
            yield {
                "client": client, "site": site.name, "subject": piece.subject, "volume": piece.volume, "slice": index,
                "split": piece.part, "within_subject": within, "mask_kind": site.mask.kind,
                "acceleration": acceleration, "digest": volume.digest, "subject_from": volume.who.told,
                "subject_original": volume.who.original, "person": who[site.name, piece.subject],
            }  # fmt: skip
