"""What the clients' encoders make of their images: latent features of the sites, method beside method.

A slice's latent vector is the mean over positions of the network's coarsest features, under the model that the slice's
client deploys. The pictures are t-SNE (van der Maaten and Hinton, JMLR 9, 2008); the numbers beside them, how far the
sites lie apart, are silhouettes in the space of the latent vectors themselves.
"""

import math
from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
from fedsim.report.figures import PALETTE

_MOST_SLICES = 1000  # in a panel: exact t-SNE costs their square
_FEWEST_SLICES = 5
_MARKERS = "os^Dvp"
_COLUMNS = 4  # of panels

Vectors = NDArray[np.float32]


def latents(run: Run, which: Which = "best") -> pd.DataFrame:
    """Latent vectors of every client's test slices; of its validation slices where its site has no test data.

    Returns:
        One row a client and slice: round, client, site, subject, volume, split, index (in the volume as it is stored),
        and the vector's components z0, z1, ...

    Raises:
        InputError: there is no such round, or the data are not those of the run.
    """
    round_ = run.round(which)
    federation = assemble_as_before(run)
    frames = []
    with threads(run.workload.engine.threads):
        for client in federation.clients:
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


def latent_figure(runs: Mapping[str, Run], which: Which = "best", seed: int = 0) -> Figure:
    """t-SNE of the latent vectors coloured by site, a panel a run; its title has the silhouette by site.

    Args:
        runs: By label.
        which: The round of each run.
        seed: Of t-SNE; the same seed draws the same figure.

    Raises:
        InputError: there is no run, or one has too few slices.
    """
    if not runs:
        raise InputError("there is no run to show")
    tables = {label: latents(run, which) for label, run in runs.items()}
    sites = list(dict.fromkeys(site for table in tables.values() for site in table["site"]))
    columns = min(_COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = Figure(figsize=(max(4.6, 2.9 * columns), 3.3 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(runs) :]:
        axis.set_axis_off()
    for axis, (label, table) in zip(axes, tables.items(), strict=False):
        _draw(axis, label, _thinned(table), sites, seed)
    handles, names = axes[0].get_legend_handles_labels()
    note = "t-SNE of the networks' coarsest features, a dot a slice; the silhouettes are of the features themselves"
    figure.legend(
        handles, names, title=fill(note, int(18 * figure.get_figwidth())), loc="outside lower center",
        ncols=min(8, len(sites)), frameon=False, fontsize=8.5, title_fontsize=8,
    )  # fmt: skip
    return figure


def vectors_of(table: pd.DataFrame) -> Vectors:
    """The latent vectors (slices, C) of rows of `latents`."""
    return table.filter(regex=r"^z\d+$").to_numpy(np.float32)


def separation(table: pd.DataFrame) -> float:
    """Silhouette of the sites in the latent space: 1 if they lie apart, 0 if they mix; NaN for a single site."""
    sites = table["site"].nunique()
    return float(silhouette_score(vectors_of(table), table["site"])) if 1 < sites < len(table) else math.nan


def embed(vectors: Vectors, seed: int) -> Vectors:
    """Points (slices, 2) of the vectors (slices, C), by exact t-SNE: its sums have one order, so its bits repeat.

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
            latent = learner.network.latent(batch.kspace, batch.mask)[1].mean((-2, -1))
            for vector in latent.numpy():
                yield {**who, "split": part, "index": index}, vector
                index += 1


def _thinned(table: pd.DataFrame) -> pd.DataFrame:
    """At most so many rows, evenly taken."""
    at = np.linspace(0, len(table) - 1, min(len(table), _MOST_SLICES)).round().astype(int)
    return table.iloc[at]


def _draw(axis: Axes, label: str, table: pd.DataFrame, sites: list[str], seed: int) -> None:
    points = embed(vectors_of(table), seed)
    for index, site in enumerate(sites):
        mine = points[(table["site"] == site).to_numpy()]
        look: dict[str, Any] = {
            "color": PALETTE[index % len(PALETTE)],
            "marker": _MARKERS[index // len(PALETTE) % len(_MARKERS)],
        }
        axis.scatter(mine[:, 0], mine[:, 1], s=22, alpha=0.8, linewidths=0, label=site, **look)
    score = separation(table)
    told = "one site" if math.isnan(score) else f"silhouette by site {score:+.2f}"
    axis.set_title(f"{label}\n{told}, {len(table)} slices", fontsize=9.5, parse_math=False)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.08)
