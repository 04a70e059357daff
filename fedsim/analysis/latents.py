"""Latent features of the sites, from the clients' encoders, and how well they separate the sites.

A slice's latent vector is the mean over positions of the network's coarsest features, under the model that the slice's
client deploys. Silhouettes are computed from these vectors; `embed` maps them to the plane by t-SNE (van der Maaten and
Hinton, JMLR 9, 2008) for drawing.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from fedsim.algorithms.learner import Learner
from fedsim.analysis.cross_site import assemble_as_before, threads
from fedsim.core.errors import InputError
from fedsim.core.seeds import derive
from fedsim.data.samples import ClientData
from fedsim.data.split import Part
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Row
from fedsim.engine.record.run_directory import Run, Which

_FEWEST_SLICES = 5

Vectors = NDArray[np.float32]


def latents(run: Run, which: Which = "best") -> pd.DataFrame:
    """Latent vectors of every client's test slices, or of its validation slices if its site has no test data.

    Returns:
        One row per client and slice: round, client, site, subject, volume, split, index (in the stored volume),
        and the vector's components z0, z1, ...

    Raises:
        InputError: there is no such round, or the data are not those of the run.
    """
    round_ = run.round(which)
    federation = assemble_as_before(run)
    frames = []
    with threads(run.workload.engine.threads):
        for client in map(federation.clients.named, run.stored(round_)):
            learner = run.learner(client.name, round_)
            frames += [
                _of_site(learner, client, data).assign(round=round_)
                for data in client.data.members
                if data.samples(_part(data))
            ]
    if not frames:
        raise InputError(f"{run.path}: no client has test or validation data")
    table = pd.concat(frames, ignore_index=True)
    return table[["round", *(column for column in table.columns if column != "round")]]


def vectors_of(table: pd.DataFrame) -> Vectors:
    """The latent vectors (slices, C) of rows of `latents`."""
    return table.filter(regex=r"^z\d+$").to_numpy(np.float32)


def separation(table: pd.DataFrame) -> float:
    """Silhouette score of the sites in latent space: 1 if they are separate, 0 if they mix; NaN for a single site."""
    sites = table["site"].nunique()
    return float(silhouette_score(vectors_of(table), table["site"])) if 1 < sites < len(table) else math.nan


def embed(vectors: Vectors, seed: int) -> Vectors:
    """Points (slices, 2) for the vectors (slices, C), by exact t-SNE: its sums have a fixed order, so its bits repeat.

    Raises:
        InputError: there are too few vectors.
    """
    if len(vectors) < _FEWEST_SLICES:
        raise InputError(f"t-SNE: {len(vectors)} slices are too few, at least {_FEWEST_SLICES}")
    state = derive(seed, "t-SNE") % 2**32
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    points: Vectors = TSNE(2, perplexity=perplexity, init="pca", method="exact", random_state=state).fit_transform(
        vectors
    )
    return points


def _part(data: ClientData) -> Part:
    return "test" if data.samples("test") else "val"


def _of_site(learner: Learner, client: ClientSpec, data: ClientData) -> pd.DataFrame:
    rows, vectors = zip(*_slices(learner, client, data), strict=True)
    components = pd.DataFrame(np.stack(vectors)).add_prefix("z")
    return pd.concat([pd.DataFrame(rows), components], axis=1)


@torch.inference_mode()
def _slices(learner: Learner, client: ClientSpec, data: ClientData) -> Iterator[tuple[Row, Vectors]]:
    part = _part(data)
    for volume in data.volumes(part, client.training.batch_size):
        piece = volume.piece
        who = {"client": client.name, "site": volume.site, "subject": piece.subject, "volume": piece.volume}
        index = piece.start
        for batch in volume.batches:
            latent = learner.network.latent(*batch.inputs)[1].mean((-2, -1))
            for vector in latent.numpy():
                yield {**who, "split": part, "index": index}, vector
                index += 1
