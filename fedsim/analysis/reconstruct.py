"""Reconstructing one file with a client's model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from fedsim.analysis.adaptation import joined_network
from fedsim.core.errors import InputError
from fedsim.data.echo import Echo
from fedsim.data.evaluation import Network, ReconstructedVolume, reconstruct_coils, reconstruct_volumes, save_images
from fedsim.data.kspace import KSpaceSource, at_matrix, is_undersampled, measured
from fedsim.data.left_out import some
from fedsim.data.samples import ClientData
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.source import Source
from fedsim.data.sources import detect
from fedsim.data.split import Piece
from fedsim.engine.record.run_directory import Run, Which
from fedsim.mri.calibration import has_centre
from fedsim.mri.masks import measured_acceleration
from fedsim.mri.metrics import Protocol
from fedsim.mri.references import UNTRAINED
from fedsim.workload.names import POOLED
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site

Line = tuple[Path, str]
"""A file that was written, and a line about it."""
_GUESS = "the mask has no complete centre, so that sensitivities are little more than a guess; "
_REFUSED = "fastMRI's evaluate.py refuses images wider than high, which are scored whole"


def beside_fastmri(workload: Workload) -> str:
    """How fastMRI's evaluation of the saved images differs; empty if it gives the same numbers."""
    federation, protocol = workload.federation, workload.metrics.protocol
    if protocol != "fastmri":
        return f"fastMRI's evaluate.py gives other numbers: metrics.protocol is {protocol}"
    shapes = {site.name: site.matrix or federation.matrix for site in federation.sites}
    fixed = {name: matrix for name, matrix in shapes.items() if matrix != "native"}
    wide = [f"{name} ({height}x{width})" for name, (height, width) in fixed.items() if width > height]
    return f"{_REFUSED}: {some(wide)}" if wide else ""


def reconstruct_file(run: Run, client: str, file: Path, which: Which, out: Path) -> Iterator[Line]:
    """Reconstruct a file and write <volume>.h5 into `out`.

    Fully sampled data are undersampled with the client's mask and scored; undersampled k-space keeps its own mask. The
    file is read with the client's source settings if it has the same format, otherwise its format is detected.

    Raises:
        InputError: the run, the client or the file is invalid.
    """
    network, site = _chosen(run, client, which)
    source, root = _source_of(site, file), file.absolute().parent
    attributes: dict[str, str | int] = {"client": client, "round": run.round(which)}
    raw = source.raw(root) if isinstance(source, KSpaceSource) else ()
    if any(is_undersampled(kspace) for volume in raw for kspace in volume.slices):
        return _with_own_mask(run, network, site, cast(KSpaceSource, source), root, out, attributes)
    return _with_mask_of(run, network, site, source, root, out, attributes)


def _with_own_mask(
    run: Run,
    network: Network,
    site: Site,
    source: KSpaceSource,
    root: Path,
    out: Path,
    attributes: dict[str, str | int],
) -> Iterator[Line]:
    """Undersampled k-space with its own mask: there is no ground truth to compare with."""
    federation = run.workload.federation
    matrix, coils = site.matrix or federation.matrix, federation.coil_settings
    for volume, again in zip(source.raw(root), source.raw(root), strict=True):
        echo = Echo.of_kspace(again.slices)
        kspace = [at_matrix(echo.moved(one), volume.size, matrix) for one in volume.slices]
        masks = np.stack([measured(one) for one in kspace])
        pairs = [pair for pair in zip(kspace, masks, strict=True) if pair[1].any()]
        shown = [reconstruct_coils(network, *pair, federation.normalise, coils, source.maps) for pair in pairs]
        images = {"reconstruction": np.stack([one for one, _ in shown]), "zero_filled": np.stack([z for _, z in shown])}
        path = out / f"{volume.name}.h5"
        save_images(path, masks, images, **attributes, mask_from="file")
        acceleration, count = measured_acceleration(masks), len(kspace[0])
        by_coil = f", its {count} coils {'together' if coils.kept else 'one by one'}" if count > 1 else ""
        moved = f", its echo moved by {-echo.off} of {echo.width} lines" if echo.off else ""
        at = f"R = {acceleration:.2f}, at {masks.shape[-2]}x{masks.shape[-1]}{by_coil}{moved}"
        how = f"with the file's own mask ({at})"
        guess = coils.kept and count > 1 and not has_centre(torch.from_numpy(masks))
        yield path, f"reconstructed {how}; {_GUESS if guess else ''}there is no ground truth to score it against"


def _with_mask_of(
    run: Run, network: Network, site: Site, source: Source, root: Path, out: Path, attributes: dict[str, str | int]
) -> Iterator[Line]:
    """Fully sampled data, undersampled with the mask of the client's site."""
    federation, protocol = run.workload.federation, run.workload.metrics.protocol
    matrix, coils = site.matrix or federation.matrix, federation.coil_settings
    with tempfile.TemporaryDirectory() as cache:
        path = ensure_shard(source, root, Path(cache), matrix, coils)
        with Shard(path) as shard:
            volumes = shard.volumes()
        pieces = tuple(
            Piece(
                volume=v.name,
                subject=v.subject,
                start=0,
                stop=len(v.slices),
                part="test",
                contrast=v.contrast,
                lines=v.lines,
            )
            for v in volumes
        )
        supports = tuple(v.support for v in volumes)
        data = ClientData(
            shard=path,
            site=site.name,
            pieces=pieces,
            supports=supports,
            mask=site.mask.at(federation.root),
            matrix=matrix,
            normalise=federation.normalise,
            seed=run.workload.seed,
            coil_settings=coils,
            coils=max(coils.count(volume.coils) for volume in volumes),
        )
        size, references = run.workload.training_of(site).batch_size, run.workload.metrics.references
        for volume in reconstruct_volumes(network, data, "test", size, references=references):
            target = out / f"{volume.piece.volume}.h5"
            volume.save(target, **attributes, protocol=run.workload.protocol, mask_from="client")
            yield target, _scored(volume, protocol)


def _scored(volume: ReconstructedVolume, protocol: Protocol) -> str:
    score, (height, width) = volume.score(protocol), volume.mask.shape
    figures = (
        f"PSNR {score['zf_psnr']:.2f} -> {score['psnr']:.2f} dB, SSIM {score['zf_ssim']:.4f} -> {score['ssim']:.4f}"
    )
    beside = "".join(f"; {UNTRAINED[name]} {score[f'{name}_psnr']:.2f} dB" for name in volume.references)
    refused = f"; {_REFUSED}" if width > height else ""
    return f"{figures} (zero-filled -> reconstructed, at {height}x{width}){beside}{refused}"


def _chosen(run: Run, client: str, which: Which) -> tuple[Network, Site]:
    """A client's network and its site."""
    federation = run.workload.federation
    sites, unseen = federation.expanded_sites(), federation.unseen_sites()
    name = client.partition(".")[0]
    if run.runnable.algorithm.pools_data:
        if sites.place(client) is None:
            raise InputError(
                f"--client {client}: name a site, for its mask: {', '.join(site.name for site in sites[:20])}"
            )
        network: nn.Module = run.model(POOLED, which)
    elif unseen.place(client) is not None:
        network = joined_network(run, client, which)
    else:
        network = run.model(client, which)
    found = next(group[place] for group in (unseen, sites) if (place := group.place(name)) is not None)
    return network, found


def _source_of(site: Site, file: Path) -> Source:
    if not file.exists():
        raise InputError(f"{file}: no such file or folder")
    found = detect(file)
    if found.format != site.source.format:
        maps = getattr(site.source, "maps", "file")  # the site's own maps are not this file's
        return found.model_copy(update={"maps": maps}) if maps != "file" and isinstance(found, KSpaceSource) else found
    return site.source.model_copy(update={"path": found.path})
