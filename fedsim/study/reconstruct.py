"""Reconstructing one file with a client's model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from fedsim.config import Site
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.data.samples import ClientData
from fedsim.data.shard import Shard, ensure_shard
from fedsim.data.source import Source
from fedsim.data.sources import detect
from fedsim.data.split import Piece
from fedsim.engine.federation import POOLED
from fedsim.engine.rundir import Run, Which
from fedsim.errors import InputError
from fedsim.study.adaptation import joined_network


def reconstruct_file(
    run_dir: Path, client: str, file: Path, which: Which, out: Path
) -> Iterator[tuple[Path, dict[str, str | float]]]:
    """Undersample a fully sampled file with the client's mask, reconstruct it and write <volume>.h5 into `out`.

    The file is read with the client's source settings where it has the same format, else by detection. Yields each
    path with its score against the fully sampled image.

    Raises:
        InputError: the run, the client or the file is wrong.
    """
    run = Run(run_dir)
    federation = run.workload.federation
    sites = {site.name: site for site in federation.expanded_sites()}
    unseen = {site.name: site for site in federation.unseen_sites()}
    if run.workload.algorithm.pools_data:
        if client not in sites:
            raise InputError(f"--client {client}: name the site whose mask to use: {', '.join(list(sites)[:20])}")
        network: nn.Module = run.learner(POOLED, which).network
    elif client in unseen:
        network = joined_network(run, client, which)
    else:
        network = run.learner(client, which).network
    site = (sites | unseen)[client.partition(".")[0]]
    matrix = site.matrix or federation.matrix
    with tempfile.TemporaryDirectory() as cache:
        path = ensure_shard(_source_of(site, file), file.absolute().parent, Path(cache), matrix)
        with Shard(path) as shard:
            volumes = shard.volumes()
        pieces = tuple(Piece(v.name, v.subject, 0, len(v.slices), "test") for v in volumes)
        supports = tuple(v.support for v in volumes)
        data = ClientData(path, site.name, pieces, supports, site.mask, matrix, federation.normalise, run.workload.seed)
        size = run.workload.training_of(site).batch_size
        for volume in reconstruct_volumes(network, data, "test", size):
            target = out / f"{volume.piece.volume}.h5"
            volume.save(target)
            height, width = matrix
            yield target, {**volume.score(run.workload.metrics.protocol), "matrix": f"{height}x{width}"}


def _source_of(site: Site, file: Path) -> Source:
    if not file.exists():
        raise InputError(f"{file}: no such file or folder")
    found = detect(file)
    if found.format != site.source.format:
        return found
    return site.source.model_copy(update={"path": found.path})
