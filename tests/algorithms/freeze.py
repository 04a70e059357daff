"""What six small workloads and the seeded choices give, as numbers that must not change by accident.

`python -m tests.algorithms.freeze` writes them anew: only after a change that is meant to change bits, and says so.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.numpy import load_file

from fedsim.algorithms.catalogue import ALGORITHMS
from fedsim.core.seeds import derive, numpy_stream
from fedsim.data.masks import AnyMask
from fedsim.data.split import Split, deal, ordered, part_of, pieces_of
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml

from .conftest import small

FROZEN = Path(__file__).with_name("frozen.json")
LEDGER = (
    "loss",
    "steps",
    "weight",
    "samples",
    "nmse",
    "psnr",
    "ssim",
    "uplink_bytes",
    "downlink_bytes",
    "contrastive_ratio",
)
WORKLOADS: dict[str, list[str]] = {
    "fedmri, exact negatives": ["algorithm={name: fedmri, beta: 1}"],
    "fedmri, moments": ["algorithm={name: fedmri, beta: 1, exact_up_to: 2}"],
    "fl_mrcm": ["algorithm.name=fl_mrcm"],
    "ditto": ["algorithm.name=ditto"],
    "scaffold, batch norm, two of four drawn": [
        "algorithm.name=scaffold", "model.norm=batch", "training.participation=0.5",
    ],
    "dual network, a fault that drops": [
        "algorithm={name: fedmri, beta: 1}", "model.domain=dual", "engine.on_client_error=drop",
        "faults=[{kind: raise, client: B, round: 2}]",
    ],
}  # fmt: skip
MASKS = ("equispaced", "random", "cartesian_vd", "radial", "gaussian2d")
LAWS = {
    "shared": "what is shared",
    "private": "what stays private",
    "server": "the method's own state at the server",
    "ledger": "the metrics and bytes of the ledger",
}
METHODS: tuple[str, ...] = tuple(sorted(kind.model_fields["name"].default for kind in ALGORITHMS))
Numbers = dict[str, Any]


def simulate(folder: Path, name: str, *overrides: str) -> Run:
    """The methods' small run with one local epoch and overrides, in a folder of its own below `folder`."""
    path = folder / "golden.yaml"
    path.write_text(write_yaml(small(folder / "cache")))
    return run(load_workload(path, ["training.local_epochs=1", *overrides]), folder / name)


def whole(run: Run) -> Numbers:
    """Digest and size of everything that a run computed, by the law that speaks of it."""
    last = run.path / f"checkpoints/round-{run.round('last'):04d}"
    files = {"shared": [last / "shared.safetensors"], "server": [last / "server.safetensors"]}
    files["private"] = sorted((last / "clients").glob("*.safetensors"))
    found = {law: {p.stem: load_file(p) for p in paths if p.exists()} for law, paths in files.items()}
    ledger = run.clients.sort_values(["round", "client"]).reset_index(drop=True)
    columns = {key: ledger[key].to_numpy(np.float64) for key in LEDGER if key in ledger}
    return {law: frozen(tensors) for law, tensors in {**found, "ledger": {"": columns}}.items()}


def frozen(files: Mapping[str, Mapping[str, NDArray[Any]]]) -> Numbers:
    """One digest over all arrays and names, and their number and norm for machines whose bits differ."""
    digest, count, square = hashlib.sha256(), 0, 0.0
    for file, tensors in sorted(files.items()):
        for name, array in sorted(tensors.items()):
            digest.update(f"{file}/{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
            count += array.size
            square += float(np.nansum(np.square(array, dtype=np.float64)))
    return {"sha256": digest.hexdigest(), "values": count, "norm": square**0.5}


def choices() -> Numbers:
    """What the seed decides before anything is trained."""
    volumes = [(f"v{i}", f"s{i}", 2) for i in range(10)]
    order = ordered({subject: subject for _, subject, _ in volumes}, 3, "golden")
    pieces = pieces_of(volumes, part_of(order, Split(), "A"), Split(), "A")
    masks = [TypeAdapter(AnyMask).validate_python({"kind": kind}) for kind in MASKS]
    drawn = {
        kind: mask.sample((12, 16), numpy_stream(3, "mask", kind)) for kind, mask in zip(MASKS, masks, strict=True)
    }
    return {
        "seeds": [derive(3, "model"), derive(3, "batches", "A", 1, 1), derive(2**40, "split", "x", "y")],
        "masks": {kind: ["".join("#" if one else "." for one in row) for row in mask] for kind, mask in drawn.items()},
        "splits": {piece.subject: piece.part for piece in pieces},
        "hands": deal([piece.subject for piece in pieces if piece.part == "train"], 3),
    }


def curve(folder: Path, method: str) -> list[float]:
    """The mean training loss of each of two rounds."""
    keys = (f"algorithm.name={method}", "training.rounds=2", "model.norm=batch", "metrics.every=0")
    losses: list[float] = simulate(folder, f"curve-{method}", *keys).rounds["loss"].tolist()
    return losses


def machine() -> str:
    """What bits depend on beside fedsim: the processor's vector unit and torch."""
    return f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.partition('+')[0]}"


def everything(folder: Path) -> Numbers:
    """All of it, as frozen.json holds it."""
    runs = {name: whole(simulate(folder, f"run-{i}", *keys)) for i, (name, keys) in enumerate(WORKLOADS.items())}
    curves = {method: curve(folder, method) for method in METHODS}
    return {"machine": machine(), "choices": choices(), "runs": runs, "curves": curves}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        FROZEN.write_text(json.dumps(everything(Path(made)), indent=1) + "\n")
