"""What the documents have their reader write: a network, a loss, an importer, a mask, a method and a sampler."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedsim.workload.reading import write_yaml

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "cascade": "howto-network.md",
    "charbonnier": "networks.md",
    "npyfiles": "howto-data.md",
    "blocks": "howto-data.md",
    "damped": "howto-method.md",
    "turns": "howto-method.md",
}


def example(module: str) -> str:
    """The file of a page."""
    text = (DOCS / PAGES[module]).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```python {module}\.py\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return str(block)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workload with one class of each kind, their files beside it, and data for the importer."""
    (tmp_path / "npy").mkdir()
    for subject in range(4):
        images = np.random.default_rng(subject).random((24, 24, 2))
        np.save(tmp_path / "npy" / f"case-{subject}.npy", images)
    for module in PAGES:
        (tmp_path / f"{module}.py").write_text(example(module))
    source = {"format": "npyfiles:Npy", "path": "npy", "axis": 2, "subject": "file"}
    sites = [
        {"name": "A", "source": source, "mask": {"kind": "blocks:Blocks", "width": 3}},
        {"name": "B", "source": {"format": "phantom", "subjects": 4, "slices": 2, "size": 32}},
    ]
    content = {
        "name": "own", "seed": 1, "model": {"name": "cascade:CascadeModel", "channels": 2, "stages": 1},
        "federation": {
            "root": str(tmp_path), "cache": str(tmp_path / "cache"), "matrix": [16, 16], "sites": sites,
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
        },
        "algorithm": {"name": "damped:Damped"},
        "training": {
            "rounds": 1, "batch_size": 2, "lr": 1e-3, "sampler": "turns:Turns",
            "loss": {"name": "charbonnier:Charbonnier", "epsilon": 0.1},
        },
        "engine": {"backend": "serial"},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(write_yaml(content))
    return tmp_path


def shared(path: Path) -> bytes:
    return (path / "checkpoints" / "round-0001" / "shared.safetensors").read_bytes()
