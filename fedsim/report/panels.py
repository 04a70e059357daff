"""One representative slice per site: as measured, as reconstructed by the site's model, and the ground truth."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.samples import ClientData
from fedsim.data.source import Source
from fedsim.data.split import Part, Piece
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.record.run_directory import Run
from fedsim.mri.masks import BoolArray
from fedsim.mri.references import Reference
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site

Scores = Mapping[tuple[str, str, str, str], Mapping[str, float]]
"""Rows of evaluation.parquet by client, site, part and volume."""
_PREFERRED: tuple[Part, ...] = ("test", "val", "train")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A slice of a site's first client; images (H, W) in the source's units."""

    site: str
    client: str
    contrast: str
    """Contrast named in the source's section; empty if it names none."""
    volume: str
    slice: int
    """Index in the source."""
    slices: int
    """Number of slices of the volume in this part, over which `score` is computed."""
    part: Part
    """test, or another part if the site has no test data."""
    within_subject: bool
    round: int
    """Round of the checkpoint, counted from 1."""
    mask_kind: str
    nominal: str
    """Nominal acceleration of the site's mask."""
    acceleration: float
    """Measured acceleration."""
    protocol: str
    """With the target, if it is not the root sum of squares."""
    aspect: float
    """Height of a pixel divided by its width; at a matrix the field of view is square, native pixels are."""
    score: Mapping[str, float]
    """psnr and ssim of the volume under `protocol`, and of its images without training (zf_, sense_, ...)."""
    mask: BoolArray
    """(H, W)."""
    target: NDArray[np.float32]
    """(H, W)."""
    zero_filled: NDArray[np.float32]
    """(H, W)."""
    references: Mapping[Reference, NDArray[np.float32]]
    """(H, W) each: further reconstructions without training."""
    reconstruction: NDArray[np.float32]
    """(H, W)."""

    @property
    def untrained(self) -> dict[str, NDArray[np.float32]]:
        """Every image (H, W) made without training, by the prefix of its scores; zero-filled first."""
        return {"zf": self.zero_filled} | {str(name): image for name, image in self.references.items()}

    def scored(self, prefix: str) -> tuple[float, float]:
        """PSNR and SSIM of the images with a prefix, empty for the reconstruction; NaN if they were not scored."""
        begin = f"{prefix}_" if prefix else ""
        return self.score.get(f"{begin}psnr", math.nan), self.score.get(f"{begin}ssim", math.nan)


def contrast_of(source: Source) -> str:
    """The contrast or channel that a source's section selects; empty if it selects none."""
    keys = source.model_dump()
    value, what = (keys["contrast"], "") if keys.get("contrast") is not None else (keys.get("channel"), "channel ")
    parts = value if isinstance(value, list | tuple) else [value]
    return "" if value is None else what + ", ".join(map(str, parts))


def panels_of(run: Run, most: int) -> Iterator[Panel]:
    """A panel for each of the run's first `most` sites, at its best round.

    Raises:
        InputError: the run has no checkpoint, or its data cannot be read any more.
    """
    return (panel for panel, _ in _shown(run, most, whole=False))


def volumes_of(run: Run, most: int) -> Iterator[tuple[Panel, ReconstructedVolume]]:
    """The same panels, each with all slices of its volume.

    Raises:
        InputError: the run has no checkpoint, or its data cannot be read any more.
    """
    return _shown(run, most, whole=True)


def _shown(run: Run, most: int, *, whole: bool) -> Iterator[tuple[Panel, ReconstructedVolume]]:
    round_ = run.round("best")
    federation = assemble(_first_sites(run.runnable, most))
    sites, scores = run.workload.federation.expanded_sites(), _scores(run, round_)
    clients: Sequence[ClientSpec] = federation.clients
    if federation.by_rule:  # those that were tested, which other methods' runs show too
        names = [*dict.fromkeys(client for client, *_ in scores)] or run.stored(round_)
        clients = [federation.clients.named(name) for name in names[:most]]
    seen: set[str] = set()
    for client in clients:
        for data in client.data.members:
            if data.site not in seen:
                seen.add(data.site)
                site, rows = sites.named(data.site), federation.manifest_of([data.site])
                yield _panel(run, round_, site, client, data, rows, scores, whole=whole)


def _first_sites(workload: Workload, most: int) -> Workload:
    """The workload with its first `most` sites only, whose clients keep their names and data; all made by a rule."""
    federation = workload.federation
    sites, names = federation.expanded_sites(), federation.client_names()
    if len(sites) <= most or workload.by_rule:
        return workload
    fewer = federation.model_copy(update={"sites": sites[:most], "clients": names.start(most)})
    return workload.model_copy(update={"federation": fewer})


def _scores(run: Run, round_: int) -> Scores:
    """Rows of evaluation.parquet of a round; none if there is no such table."""
    with suppress(InputError):
        frame = run.evaluation
        rows = frame[frame["round"] == round_].to_dict("records")
        return {(row["client"], row["site"], row["split"], row["volume"]): row for row in rows}  # type: ignore[misc]
    return {}


def _panel(
    run: Run,
    round_: int,
    site: Site,
    client: ClientSpec,
    own: ClientData,
    manifest: pd.DataFrame,
    scores: Scores,
    *,
    whole: bool,
) -> tuple[Panel, ReconstructedVolume]:
    part = next(part for part in _PREFERRED if own.samples(part))
    piece, support = next(pair for pair in zip(own.pieces, own.supports, strict=True) if pair[0].part == part)
    middle = (piece.start + piece.stop) // 2
    known = scores.get((client.name, own.site, part, piece.volume))
    wanted = piece if whole or known is None else replace(piece, start=middle, stop=middle + 1)
    data = replace(own, pieces=(wanted,), supports=(support,))
    network = run.learner(client.name, round_).network
    volume = next(
        reconstruct_volumes(network, data, part, client.training.batch_size, references=run.workload.metrics.references)
    )
    at = middle - wanted.start
    row = _manifest_row(manifest, site.name, piece, middle)
    protocol = run.workload.metrics.protocol
    panel = Panel(
        site=site.name, client=client.name, contrast=contrast_of(site.source.resolve(run.workload.seed, site.name)),
        volume=piece.volume, slice=int(row["slice"]), slices=piece.stop - piece.start, part=part,
        within_subject=bool(row["within_subject"]), round=round_,
        mask_kind=site.mask.kind, nominal=site.mask.nominal, acceleration=float(row["acceleration"]),
        protocol=run.workload.protocol, score=known if known is not None else _numbers(volume.score(protocol)),
        aspect=_aspect(own, volume),
        mask=volume.mask, target=volume.target[at], zero_filled=volume.zero_filled[at],
        references={name: images[at] for name, images in volume.references.items()},
        reconstruction=volume.reconstruction[at],
    )  # fmt: skip
    return panel, volume


def _manifest_row(manifest: pd.DataFrame, site: str, piece: Piece, index: int) -> dict[str, Any]:
    """The manifest's row of slice `index` of the shard's volume, which `piece` holds."""
    is_piece = (manifest["site"] == site) & (manifest["volume"] == piece.volume) & (manifest["split"] == piece.part)
    return dict(manifest[is_piece].iloc[index - piece.start])


def _aspect(own: ClientData, volume: ReconstructedVolume) -> float:
    height, width = volume.target.shape[-2:]
    return 1.0 if own.matrix == "native" else width / height


def _numbers(score: Mapping[str, str | float]) -> dict[str, float]:
    return {key: value for key, value in score.items() if isinstance(value, float)}
