"""Users' own methods, networks and losses train fused as they are, or one line says why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedsim.core.errors import ClientError, InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml
from tests.algorithms.conftest import small
from tests.docs.blocks import DOCS, File, blocks

Simulate = Callable[..., Run]


@pytest.fixture
def simulate(tmp_path: Path, cache: Path) -> Simulate:
    """Runs a small workload for a round, three clients fused, with overrides."""
    (tmp_path / "small.yaml").write_text(write_yaml(small(cache)))
    count = iter(range(100))

    def simulate(*overrides: str) -> Run:
        keys = ["algorithm.name=fedavg", "training={rounds: 1, batch_size: 2, lr: 1e-3, optimizer: sgd}"]
        workload = load_workload(tmp_path / "small.yaml", [*keys, "training.fuse=3", *overrides])
        return run(workload, tmp_path / f"run-{next(count)}")

    return simulate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "keys"),
    [("howto-method.md", "algorithm={name: 'damped:Damped'}"),
     ("howto-network.md", "model={name: 'cascade:CascadeModel', channels: 2, stages: 2}"),
     ("networks.md", "training.loss='charbonnier:Charbonnier'")],
)  # fmt: skip
def test_the_examples_of_the_documents_fuse(simulate: Simulate, tmp_path: Path, page: str, keys: str) -> None:
    files = [step for step in blocks(DOCS / page) if isinstance(step, File)]
    (code,) = (file for file in files if f"'{file.name.removesuffix('.py')}:" in keys)
    (tmp_path / code.name).write_text(code.text)
    fused, alone = (load_file(one.path / "checkpoints/round-0001/shared.safetensors")
                    for one in (simulate(keys), simulate(keys, "training.fuse=1")))  # fmt: skip
    for name, array in fused.items():
        np.testing.assert_allclose(array, alone[name], rtol=1e-4, atol=1e-6)


OWN = """
import torch
from torch import nn
from fedsim.models.base import Model, Network
from fedsim.mri.fft import ifft2c

class Own(Network):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(1, 1)

    def forward(self, kspace, mask):
        image = ifft2c(kspace).abs()
        {line}
        return self.scale(image[..., None])[..., 0]

class OwnModel(Model):
    def network(self):
        return Own()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "why"),
    [("image = image * image.mean().item()", "calling .item"),
     ("image = image if image.mean() > 0 else -image", "data-dependent control flow"),
     ("image = nn.functional.dropout(image, 0.1)", "random")],
)  # fmt: skip
def test_a_network_that_cannot_be_fused_is_refused_in_a_line(
    simulate: Simulate, tmp_path: Path, line: str, why: str
) -> None:
    (tmp_path / "own.py").write_text(OWN.format(line=line))
    with pytest.raises(InputError) as refused:
        simulate("model={name: 'own:OwnModel'}")
    said = str(refused.value)
    assert said.startswith("model.name: own:OwnModel cannot train fused (")
    assert said.endswith("); set training.fuse to 1")
    assert why in said
    assert "\n" not in said
    assert len(said) < 250
    assert simulate("model={name: 'own:OwnModel'}", "training.fuse=1").rounds["loss"].notna().all()


def test_a_network_that_raises_for_one_client_is_the_error_of_that_client(simulate: Simulate, tmp_path: Path) -> None:
    """Only client B's matrix is 32 by 32; then it is dropped, and the others train."""
    raising = 'assert kspace.shape[-1] == 16, "too wide"'
    (tmp_path / "own.py").write_text(OWN.format(line=raising))
    keys = ("model={name: 'own:OwnModel'}", "metrics.every=0")
    with pytest.raises(ClientError, match=r"^client B, round 1, seed 3: AssertionError: too wide \(in forward of own"):
        simulate(*keys)


@pytest.mark.parametrize("norm", ["instance", pytest.param("affine", marks=pytest.mark.slow), "batch"])
def test_bfloat16_is_what_a_client_alone_computes_in(simulate: Simulate, norm: str) -> None:
    """To its rounding, 2^-9 of a product; autocast has no effect under vmap, and would leave fused steps in float32."""
    keys, narrow = (f"model.norm={norm}", "training.lr=0.1", "metrics.every=0"), "training.precision=bfloat16"
    fused, alone, wide = (
        simulate(*keys, *more).clients["loss"].to_numpy() for more in ((narrow,), (narrow, "training.fuse=1"), ())
    )
    np.testing.assert_allclose(fused, alone, rtol=2e-2)
    assert np.abs(fused / wide - 1).max() > 1e-5
