"""A site of a federation: its shard, its split by subject, its clients, and its rows of the manifest."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.core.errors import InputError
from fedsim.core.seeds import numpy_stream
from fedsim.data.boxes import Boxes, boxes_of, read_boxes
from fedsim.data.cache import note_use
from fedsim.data.left_out import LeftOut, noting
from fedsim.data.samples import ClientData
from fedsim.data.shard import Shard, ensure_shard, shard_path
from fedsim.data.sharing import People, SiteVolumes, divide, people
from fedsim.data.source import Source, StoredVolume
from fedsim.data.split import Part, Piece, pieces_of, split_blocks, thinned
from fedsim.engine.host.client import ClientSpec
from fedsim.mri.geometry import Matrix
from fedsim.mri.masks import effective_acceleration, measured_acceleration
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site

COLUMNS = (
    "client", "site", "subject", "volume", "slice", "split", "within_subject", "mask_kind", "acceleration",
    "effective_acceleration", "digest", "subject_from", "subject_original", "person",
)  # fmt: skip
"""Of the manifest; `person` is not written."""


@dataclass(frozen=True, kw_only=True)
class Found:
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


@dataclass(frozen=True, kw_only=True)
class Made:
    """A site and its clients."""

    found: Found
    who: People
    """The person that each of its subjects is."""
    clients: tuple[ClientSpec, ...]

    def rows(self, owner: str | None = None) -> Iterator[dict[str, Any]]:
        """Its rows of the manifest, one per slice; the client of the training slices is `owner`, if there is one."""
        return _manifest_rows(self.found, self.clients, self.who, owner)


def find(workload: Workload, site: Site) -> Found:
    """Import a site, or find it in the cache; a phantom's shard is made where it is first read.

    Raises:
        InputError: its source is wrong.
    """
    federation = workload.federation
    site = site.model_copy(update={"source": site.source.resolve(workload.seed, site.name)})
    matrix = site.matrix or federation.matrix
    where = site.source, federation.root, federation.cache, matrix, federation.coil_settings
    volumes = site.source.foreseen(matrix)
    if volumes is not None:
        path = shard_path(*where)
        note_use(path)
        return Found(site=site, path=path, volumes=volumes, maker=site.source, left_out=[])
    with noting(federation.root) as seen:
        path = ensure_shard(*where)
    note_use(path)
    with Shard(path) as shard:
        there = [one for one in shard.left_out() if (federation.root / one.path).exists()]
        return Found(site=site, path=path, volumes=shard.volumes(), maker=None, left_out=[*seen, *there])


def read(workload: Workload, found: Found) -> SiteVolumes:
    """What is needed to identify its subjects and to split it."""
    site, split = found.site, found.site.split or workload.federation.split
    return SiteVolumes(site=site.name, source=site.source, split=split, unseen=site.unseen, volumes=found.volumes)


def made_alone(workload: Workload, site: Site, count: int) -> Made:
    """A phantom site whose subjects are its own, cut into clients.

    Raises:
        InputError: it has too few subjects.
    """
    found = find(workload, site)
    volumes = [read(workload, found)]
    who = people(volumes, workload.federation.root)
    return made(
        workload, found, divide(volumes, who, workload.seed, workload.federation.folds).get(site.name), who, count
    )


def made(workload: Workload, found: Found, parts: Mapping[str, Part] | None, who: People, count: int) -> Made:
    """A site cut into clients, given the part of each of its subjects; None: it is split by block.

    Raises:
        InputError: it has too few slices or subjects.
    """
    return Made(found=found, who=who, clients=tuple(_site_clients(workload, found, parts, count)))


def _site_clients(workload: Workload, found: Found, parts: Mapping[str, Part] | None, count: int) -> list[ClientSpec]:
    federation, site = workload.federation, found.site
    supports = {volume.name: volume.support for volume in found.volumes}
    _check_native(workload, found)
    split, matrix = site.split or federation.split, site.matrix or federation.matrix
    listed = [(volume.name, volume.subject, len(volume.slices)) for volume in found.volumes]
    boxes = read_boxes(federation.root / workload.metrics.boxes) if workload.metrics.boxes else {}
    stored = {volume.name: volume for volume in found.volumes}
    pieces = split_blocks(listed, split, site.name) if parts is None else pieces_of(listed, parts, split, site.name)
    if split.train_slices is not None:
        pieces = thinned(pieces, split.train_slices, numpy_stream(workload.seed, "slices", site.name))
    pieces = [_told(piece, stored[piece.volume], boxes, matrix) for piece in pieces]
    data = ClientData(
        shard=found.path,
        site=site.name,
        pieces=(),
        supports=(),
        mask=site.mask.at(federation.root),
        matrix=matrix,
        normalise=federation.normalise,
        seed=workload.seed,
        coil_settings=federation.coil_settings,
        coils=max((federation.coil_settings.count(volume.coils) for volume in found.volumes), default=0),
        maker=found.maker,
    )
    clients = []
    for name, own in _cut(workload, site, pieces, count):
        mine = dataclasses.replace(data, pieces=own, supports=tuple(supports[piece.volume] for piece in own))
        training = workload.training_of(site)
        clients.append(ClientSpec(name=name, site=site.name, data=mine, training=training, resources=site.resources))
    return clients


def _told(piece: Piece, volume: StoredVolume, boxes: Boxes, matrix: Matrix) -> Piece:
    """A piece with what is known of its volume."""
    inside = boxes_of(volume, boxes, matrix)
    return dataclasses.replace(piece, contrast=volume.contrast, phase=volume.phase, lines=volume.lines, boxes=inside)


def _check_native(workload: Workload, found: Found) -> None:
    """Refuse a volume whose own matrix the network does not take.

    Raises:
        InputError: naming the volume.
    """
    if (found.site.matrix or workload.federation.matrix) != "native":
        return
    for volume in found.volumes:
        if not workload.model.fits(volume.support):
            what = f"volume {volume.name} is {list(volume.support)}, and model.name={workload.model.name} needs"
            remedy = workload.model.remedy(volume.support)
            raise InputError(f"site {found.site.name}: matrix: native: {what} {remedy}, as its matrix")


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
    found: Found, clients: tuple[ClientSpec, ...], who: People, owner: str | None
) -> Iterator[dict[str, Any]]:
    """One row per slice; training slices belong to their client, to `owner`, or to none if the site is unseen."""
    site, stored = found.site, {volume.name: volume for volume in found.volumes}
    data = {client.name: member for client in clients for member in client.data.members}
    some = next(iter(data.values()))
    mask_kind = f"{some.mask.kind} {some.mask.content}".strip()
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
        mask = some.volume_mask(volume.name, volume.support, volume.lines)
        known = measured_acceleration if volume.phase else effective_acceleration
        height, width = volume.support
        accelerations = {"acceleration": measured_acceleration(mask), "effective_acceleration": known(mask)}
        accelerations = {key: value * height * width / mask.size for key, value in accelerations.items()}
        for index in volume.slices[piece.start : piece.stop]:
            yield {
                "client": client, "site": site.name, "subject": piece.subject, "volume": piece.volume, "slice": index,
                "split": piece.part, "within_subject": within, "mask_kind": mask_kind,
                **accelerations, "digest": volume.digest, "subject_from": volume.who.told,
                "subject_original": volume.who.original, "person": who[site.name, piece.subject],
            }  # fmt: skip
