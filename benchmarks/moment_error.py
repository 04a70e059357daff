"""The error of FedMRI's moment form against its exact form, on the encoders of real federations of several sizes.

    python benchmarks/moment_error.py [--clients 8 32 64 128] [--rounds 3] [--lr 0.001] [--epochs 1]

Trains phantom sites of four kinds (contrast, mask) with the exact form on, and then compares both forms against the
uploads of each round at encoders on the way from the server's to each of some clients' next upload. Printed for each
federation and round, over these encoders:

    ratio error      largest relative error of P / N
    cosine           of both forms' gradients: smallest and median
    gradient error   largest ||difference|| / ||sign|| N, in units of the pull at the server, as training sees it
    ratio * S        largest; near 1 the clients are far from all negatives alike and the term hardly pulls, so the
                     cosine is that of two small vectors

and as `square`, the ratio error and the smallest cosine if the deviation came from mean squares instead of distances.
One JSON line for each row, then a table.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.algorithms.contrastive import gaussian_deviation, moment_ratio_and_gradient, ratio_and_gradient
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.run_directory import Run, setup_of
from fedsim.engine.simulation import Simulation
from fedsim.engine.state import checkpoint
from fedsim.workload.reading import load_workload, write_yaml

KINDS = {"t1": "equispaced", "t2": "radial", "pd": "gaussian2d", "flair": "cartesian_vd"}  # contrast: mask
WAYS = (0.1, 0.5, 1.0)  # shares of the way from the server's encoder to a client's next upload
LOOKED_AT = 8  # clients of a federation


class Comparison(NamedTuple):
    """Moment form against exact form at one encoder."""

    ratio_error: float
    cosine: float
    gradient_error: float
    saturation: float


def workload(clients: int, rounds: int, lr: float, epochs: int, cache: str) -> dict[str, Any]:
    """Phantom sites in four groups, small enough for a federation of 128 to train in a minute or two."""
    sites = [
        {
            "name": contrast,
            "count": max(1, clients // len(KINDS)),
            "source": {"format": "phantom", "subjects": 6, "slices": 4, "size": 48, "contrast": contrast},
            "mask": {"kind": kind, "acceleration": 4},
        }
        for contrast, kind in KINDS.items()
    ]
    split = {"train": 0.5, "val": 0.25, "test": 0.25}
    return {
        "name": "moment-error",
        "federation": {"cache": cache, "matrix": [32, 32], "split": split, "sites": sites},
        "model": {"channels": 8, "pools": 3},
        "algorithm": {"name": "fedmri", "beta": 1, "negatives": "exact"},
        "training": {"rounds": rounds + 1, "batch_size": 2, "lr": lr, "local_epochs": epochs},
        "engine": {"backend": "serial", "keep_last": rounds + 1},
        "metrics": {"every": 0},
    }


def trained(content: dict[str, Any], folder: Path) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """Each round's number, the encoder sent (P,), the uploads (S, P), their mean (P,), and the next round's uploads."""
    path = folder / "workload.yaml"
    path.write_text(write_yaml(content))
    with Simulation(load_workload(path), folder / "run") as simulation:
        simulation.run()
    learner = make_learner(setup_of(Run(folder / "run").workload))
    states = [learner.fresh_server()]
    for round_ in range(1, content["training"]["rounds"] + 1):
        state = checkpoint.read_state(folder / "run", round_)
        states.append(checkpoint.read_server(folder / "run", state, learner.flat("shared")))
    for round_ in range(1, content["training"]["rounds"]):
        before, now, after = states[round_ - 1 : round_ + 2]
        vectors = before["shared"], now["previous"], now["shared"], after["previous"]
        sent, uploads, server, following = map(torch.from_numpy, vectors)
        yield round_, sent, uploads, server, following


def deviations(sent: Tensor, uploads: Tensor) -> dict[str, Tensor]:
    """Over clients (P,): as FedMRI takes it, and as the root of the mean square."""
    offsets: NDArray[np.float64] = (uploads - sent).double().numpy()
    drift = offsets.mean(0)
    used = gaussian_deviation(drift, np.abs(offsets).mean(0))
    square = np.sqrt(np.maximum(0, np.square(offsets).mean(0) - np.square(drift)))
    return {"distance": torch.from_numpy(used).float(), "square": torch.from_numpy(square).float()}


def compare(theta: Tensor, server: Tensor, uploads: Tensor, deviation: Tensor) -> Comparison:
    """Both forms at the encoder theta (P,)."""
    clients = len(uploads)
    ratio, gradient = ratio_and_gradient(theta, server, uploads)
    estimate, its_gradient = moment_ratio_and_gradient(theta, server, uploads.mean(0), deviation, clients)
    cosine = torch.nn.functional.cosine_similarity(gradient.double(), its_gradient.double(), dim=0)
    far = float((theta - server).abs().sum(dtype=torch.float64)) / ratio
    error = float((gradient - its_gradient).double().norm()) * far / math.sqrt(len(theta))
    return Comparison(abs(estimate / ratio - 1), float(cosine), error, ratio * clients)


def results(content: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each round of a federation."""
    for round_, sent, uploads, server, following in trained(content, folder):
        clients = len(uploads)
        thetas = [
            server + way * (following[k] - server) for k in range(0, clients, -(-clients // LOOKED_AT)) for way in WAYS
        ]
        found = {
            name: [compare(theta, server, uploads, deviation) for theta in thetas]
            for name, deviation in deviations(sent, uploads).items()
        }
        ours, square = (list(zip(*found[name], strict=True)) for name in ("distance", "square"))
        yield {
            "clients": clients,
            "round": round_,
            "ratio_error": max(ours[0]),
            "cosine": min(ours[1]),
            "cosine_median": float(np.median(ours[1])),
            "gradient_error": max(ours[2]),
            "ratio_times_clients": max(ours[3]),
            "square_ratio_error": max(square[0]),
            "square_cosine": min(square[1]),
        }


def main() -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", type=int, default=[8, 32, 64, 128], help="multiples of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for clients in arguments.clients:
            place = Path(folder) / str(clients)
            place.mkdir()
            content = workload(clients, arguments.rounds, arguments.lr, arguments.epochs, f"{folder}/cache")
            for row in results(content, place):
                print(json.dumps(row), flush=True)
                rows.append(row)
    print(*(f"{name:>20}" for name in rows[0]))
    for row in rows:
        print(*(f"{value:>20.4f}" if isinstance(value, float) else f"{value:>20}" for value in row.values()))


if __name__ == "__main__":
    main()
