"""From a workload's sites to clients: shards, splits by subject, dealing to clients, and a manifest of every slice."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedsim.config import Site, Workload
from fedsim.data.cache import note_use
from fedsim.data.left_out import LeftOut, lines, noting, some
from fedsim.data.samples import ClientData, PooledData
from fedsim.data.shard import Shard, ensure_shard, shard_path
from fedsim.data.source import StoredVolume
from fedsim.data.split import Piece, split_blocks, split_subjects
from fedsim.engine.client import ClientSpec
from fedsim.errors import InputError
from fedsim.files import sweep
from fedsim.mri.masks import measured_acceleration
from fedsim.seeds import numpy_stream

POOLED = "all"
"""The client of a method that pools the data of all sites."""
_MOST_CONTRASTS = 12


@dataclass(frozen=True)
class Federation:
    """All clients, in the order of the sites, and one row for each slice."""

    clients: tuple[ClientSpec, ...]
    unseen: tuple[ClientSpec, ...]
    """One for each site that takes no part in training; no host knows them."""
    manifest: pd.DataFrame
    left_out: tuple[LeftOut, ...] = ()
    """What the sites' folders hold and nobody reads."""

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names, in order."""
        return tuple(client.name for client in self.clients)

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the data were read, in lines."""
        return [*filter(None, [self._contrasts()]), *lines(self.left_out)]

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
    members: list[ClientSpec] = []
    rows: list[dict[str, Any]] = []
    left_out: dict[LeftOut, None] = {}
    sweep(federation.cache)
    for site, count in zip([*seen, *unseen], counts, strict=True):
        resolved = site.model_copy(update={"source": site.source.resolve(workload.seed, site.name)})
        clients, volumes, unread = _site_clients(workload, resolved, count)
        left_out |= dict.fromkeys(unread)
        members += clients
        rows += _manifest_rows(resolved, clients, volumes, POOLED if pooled else None)
        on_site(site.name)
    manifest = pd.DataFrame(rows)
    check_leaks(manifest)
    taking_part = members[: len(members) - len(unseen)]
    if pooled:
        everything = PooledData(tuple(member for client in taking_part for member in client.data.members))
        taking_part = [ClientSpec(POOLED, POOLED, everything, workload.training)]
    outside = tuple(members[len(members) - len(unseen) :])
    return Federation(tuple(taking_part), outside, manifest.drop(columns=["origin", "identity"]), tuple(left_out))


def clients_per_site(clients: int | None, sites: int) -> list[int]:
    """How many clients each site becomes: the same for all, the first ones get one more where it does not divide.

    Raises:
        InputError: there are fewer clients than sites.
    """
    if clients is None:
        return [1] * sites
    if clients < sites:
        raise InputError(f"federation.clients: {clients} is fewer than the {sites} sites; at least {sites}")
    return [clients // sites + (index < clients % sites) for index in range(sites)]


def check_leaks(manifest: pd.DataFrame) -> None:
    """Refuse a federation in which a subject, or a file read by two sites, is in two splits.

    Raises:
        InputError: naming the site, the subject and the splits.
    """
    by_subject = manifest[~manifest["within_subject"]]
    for source in ("site", "identity", "origin"):
        parts = by_subject.groupby([source, "subject"], sort=False)["split"].nunique()
        for where, subject in parts.index[parts > 1]:
            rows = by_subject[(by_subject[source] == where) & (by_subject["subject"] == subject)]
            raise InputError(
                f"site {' and '.join(rows['site'].unique())}: subject {subject} is in "
                f"{' and in '.join(rows['split'].unique())}; sites that read the same subjects need the same split"
            )


def _site_clients(
    workload: Workload, site: Site, count: int
) -> tuple[list[ClientSpec], list[StoredVolume], list[LeftOut]]:
    """Its clients, what its shard holds, and what is not in it."""
    federation = workload.federation
    matrix = site.matrix or federation.matrix
    where = site.source, federation.root, federation.cache, matrix
    volumes = site.source.foreseen(matrix)
    maker = site.source if volumes is not None else None
    with noting(federation.root) as seen:
        path = shard_path(*where) if maker else ensure_shard(*where)
    note_use(path)
    left_out = list(seen)
    if volumes is None:
        with Shard(path) as shard:
            volumes = shard.volumes()
            left_out += [one for one in shard.left_out() if (federation.root / one.path).exists()]
    supports = {volume.name: volume.support for volume in volumes}
    data = ClientData(path, site.name, (), (), site.mask, matrix, federation.normalise, workload.seed, maker)
    clients = []
    for name, pieces in _cut(workload, site, _split(workload, site, volumes), count):
        members = tuple(supports[piece.volume] for piece in pieces)
        mine = dataclasses.replace(data, pieces=pieces, supports=members)
        clients.append(ClientSpec(name, site.name, mine, workload.training_of(site), site.resources))
    return clients, volumes, left_out


def _split(workload: Workload, site: Site, volumes: list[StoredVolume]) -> list[Piece]:
    """Every volume's part; sites that read the same source divide a subject alike."""
    split = site.split or workload.federation.split
    listed = [(volume.name, volume.subject, len(volume.slices)) for volume in volumes]
    contrasts = {volume.name: volume.contrast for volume in volumes}
    if split.by == "block":
        pieces = split_blocks(listed, split, site.name)
    else:
        pieces = split_subjects(listed, split, workload.seed, site.source.identity(), site.name)
    return [dataclasses.replace(piece, contrast=contrasts[piece.volume]) for piece in pieces]


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


def _manifest_rows(
    site: Site, clients: list[ClientSpec], volumes: list[StoredVolume], owner: str | None
) -> Iterator[dict[str, Any]]:
    """A row a slice; training slices belong to their client, or to `owner`, or to nobody if the site is unseen."""
    stored = {volume.name: volume for volume in volumes}
    data = {client.name: member for client in clients for member in client.data.members}
    some = next(iter(data.values()))
    shared = [(None, piece) for piece in some.pieces if piece.part != "train"]
    own = [
        (None if site.unseen else owner or name, piece)
        for name, member in data.items()
        for piece in member.pieces
        if piece.part == "train"
    ]
    within = len({volume.subject for volume in volumes}) == 1 and len({piece.part for _, piece in shared + own}) > 1
    for client, piece in own + shared:
        volume = stored[piece.volume]
        mask = some.volume_mask(volume.name, volume.support)
        height, width = volume.support
        acceleration = measured_acceleration(mask) * height * width / mask.size
        for index in volume.slices[piece.start : piece.stop]:
            yield {
                "client": client, "site": site.name, "subject": piece.subject, "volume": piece.volume, "slice": index,
                "split": piece.part, "within_subject": within, "mask_kind": site.mask.kind,
                "acceleration": acceleration, "digest": volume.digest, "origin": volume.origin,
                "identity": site.source.identity(),
            }  # fmt: skip
