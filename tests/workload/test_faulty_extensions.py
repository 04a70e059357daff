"""What a user's network, mask or importer does wrong is shown as theirs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import ClientError, InputError, OwnCodeError
from fedsim.engine.federation import assemble
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload

NETWORK = """
from torch import nn
from fedsim.models.base import Model, Network

class Net(Network):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, kspace, mask):
        image = self.layer(kspace.abs()[:, None])[:, 0]
        return {}

class Theirs(Model):
    def network(self):
        return Net()
"""
OUTPUTS = [
    ("1 / 0", "ZeroDivisionError: division by zero (in forward of theirs:Theirs)"),
    (
        "image[:, 1:]",
        "theirs:Theirs must return magnitudes, a tensor of floats (1, 16, 16), not torch.",
    ),
    ("kspace", "must return magnitudes, a tensor of floats (1, 16, 16), not torch.complex64 (1, 16, 16)"),
    ("None", "must return magnitudes, a tensor of floats (1, 16, 16), not NoneType"),
]


@pytest.mark.parametrize(("returned", "message"), OUTPUTS, ids=[returned for returned, _ in OUTPUTS])
def test_what_a_network_does_wrong_is_shown_as_the_networks(folder: Path, returned: str, message: str) -> None:
    (folder / "theirs.py").write_text(NETWORK.format(returned))
    keys = ["model={name: 'theirs:Theirs'}", "algorithm={name: fedavg}"]
    with pytest.raises(OwnCodeError, match=re.escape(message)):  # before the first round, as its memory is measured
        run(load_workload(folder / "own.yaml", keys), folder / "run")


def test_what_a_network_does_wrong_at_a_client_has_client_and_round(folder: Path) -> None:
    (folder / "theirs.py").write_text(NETWORK.replace("{}", "image if len(kspace) == 1 else 1 / 0"))
    keys = ["model={name: 'theirs:Theirs'}", "algorithm={name: fedavg}"]
    said = r"^client A, round 1, seed 1: ZeroDivisionError: division by zero \(in forward of theirs:Theirs\)"
    with pytest.raises(ClientError, match=said) as error:
        run(load_workload(folder / "own.yaml", keys), folder / "run")
    assert "theirs.py" in error.value.trace


def test_a_method_that_needs_features_says_that_the_network_has_none(folder: Path) -> None:
    with pytest.raises(InputError, match="cascade:CascadeModel has no latent features; give it with_latent"):
        run(load_workload(folder / "own.yaml", ["algorithm={name: fl_mrcm}"]), folder / "run")


MASK = (
    "import numpy as np\nfrom fedsim.mri.masks import Mask\n\nclass Theirs(Mask):\n    def sample(self, shape, rng):\n"
)
SAMPLES = [
    ("return 1 / 0", "ZeroDivisionError: division by zero (in sample of theirs:Theirs)"),
    ("return np.ones(shape)", "sample of theirs:Theirs must return an array of bool (16, 16), not float64 (16, 16)"),
    ("return np.ones(4, bool)", "must return an array of bool (16, 16), not bool (4,)"),
    ("return None", "must return an array of bool (16, 16), not NoneType"),
    ("return np.zeros(shape, bool)", "samples nothing; sample of theirs:Theirs must set some point"),
]


@pytest.mark.parametrize(("body", "message"), SAMPLES, ids=[body for body, _ in SAMPLES])
def test_what_a_mask_does_wrong_is_shown_as_the_masks(folder: Path, body: str, message: str) -> None:
    (folder / "theirs.py").write_text(f"{MASK}        {body}\n")
    workload = load_workload(folder / "own.yaml", ["federation.sites.A.mask={kind: 'theirs:Theirs'}"])
    with pytest.raises(InputError, match=re.escape(message)) as error:
        run(workload, folder / "run")
    assert str(error.value).startswith("site A: the mask of case-0")


@pytest.mark.parametrize("drawn", ["np.random.random(shape)", "torch.rand(shape).numpy()"])
def test_a_mask_that_draws_from_elsewhere_than_its_generator_is_refused(folder: Path, drawn: str) -> None:
    (folder / "theirs.py").write_text(f"import torch\n{MASK}        return {drawn} < 0.5\n")
    workload = load_workload(folder / "own.yaml", ["federation.sites.A.mask={kind: 'theirs:Theirs'}"])
    said = "^site A: sample of theirs:Theirs gives two masks for equal generators; draw from rng alone"
    with pytest.raises(InputError, match=said):
        assemble(workload)


SOURCE = """
import numpy as np
from fedsim.data.source import Source, Volume
from fedsim.data.subjects import Subject

class Theirs(Source):
    def identity(self):
        return "theirs"

    def files(self, root):
        return []

    def volumes(self, root):
        who, images = Subject.of("a", "me"), np.ones((2, 8, 8), np.float32)
        {}
"""
YIELDS = [
    ("yield 1 / 0", "ZeroDivisionError: division by zero (in volumes of theirs:Theirs)"),
    ("yield from ()", "volumes of theirs:Theirs yielded nothing"),
    ("yield images", "volumes of theirs:Theirs must yield Volume, not ndarray"),
    ("yield Volume('a', 'v', images, '')", "who of v must be a Subject, not 'a'"),
    ("yield Volume(who, 'a b', images, '')", "the name 'a b' must be letters"),
    (
        "yield Volume(who, 'v', images[0], '')",
        "must be float32 or complex64 (slices, H, W), or complex64 (slices, coils, H, W), not float32 (8, 8)",
    ),
    (
        "yield Volume(who, 'v', [1], '')",
        "images of v must be float32 or complex64 (slices, H, W), or complex64 (slices, coils, H, W), not list",
    ),
    ("return None", "TypeError: 'NoneType' object is not iterable"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("body", "message"), YIELDS, ids=[body for body, _ in YIELDS])
def test_what_an_importer_does_wrong_is_shown_as_the_importers(folder: Path, body: str, message: str) -> None:
    (folder / "theirs.py").write_text(SOURCE.format(body))
    workload = load_workload(folder / "own.yaml", ["federation.sites.A.source={format: 'theirs:Theirs'}"])
    with pytest.raises(InputError, match=re.escape(message)) as error:
        run(workload, folder / "run")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_changed_importer_imports_again(folder: Path, forget: Callable[[], None]) -> None:
    body = "yield Volume(Subject.of(s, 'me'), s, images * np.arange(8, dtype=np.float32), '')"
    text = SOURCE.format(f"for s in 'abcd':\n            {body}")
    for factor in ("", " * np.float32(2)"):
        (folder / "theirs.py").write_text(text.replace("images *", f"images{factor} *"))
        forget()
        keys = ["federation.sites.A.source={format: 'theirs:Theirs'}", "model={name: unet, channels: 2, pools: 1}"]
        run(load_workload(folder / "own.yaml", keys), folder / f"run{len(factor)}")
    assert len(list((folder / "cache").glob("theirs.Theirs-*.h5"))) == 2


SAMPLER = (
    "import numpy as np\nfrom fedsim.algorithms.sampling import Sampler\n\nclass Theirs(Sampler):\n"
    "    def draw(self, clients, size, round_, seed):\n"
)
DRAWS = [
    ("return 1 / 0", "ZeroDivisionError: division by zero (in draw of theirs:Theirs)"),
    ("return [0]", "draw of theirs:Theirs must give 2 different places from 0 to 1, not array([0])"),
    ("return [1, 1]", "must give 2 different places from 0 to 1, not array([1, 1])"),
    ("return [1, 2]", "must give 2 different places from 0 to 1, not array([1, 2])"),
    ("return [-1, 0]", "must give 2 different places from 0 to 1, not array([-1,  0])"),
    ("return [None, 0]", "must give 2 different places from 0 to 1, not array([None, 0], dtype=object)"),
    ("return [0.0, 1.0]", "must give 2 different places from 0 to 1, not array([0., 1.])"),
    ("return [[0], [1, 0]]", "inhomogeneous part. (in draw of theirs:Theirs)"),
    ("clients.samples[0] = 9", "ValueError: assignment destination is read-only (in draw of theirs:Theirs)"),
    ("return 'ab'", "must give 2 different places from 0 to 1, not array('ab'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("body", "message"), DRAWS, ids=[body for body, _ in DRAWS])
def test_what_a_sampler_does_wrong_is_shown_as_the_samplers(folder: Path, body: str, message: str) -> None:
    (folder / "theirs.py").write_text(f"{SAMPLER}        {body}\n")
    workload = load_workload(folder / "own.yaml", ["training.sampler=theirs:Theirs"])
    with pytest.raises(InputError, match=re.escape(message)) as error:
        run(workload, folder / "run")
    assert str(error.value).startswith("training.sampler, round 1: ")
    assert not (folder / "run").exists()


def test_a_sampler_may_give_a_set(folder: Path) -> None:
    (folder / "theirs.py").write_text(f"{SAMPLER}        return set(range(size))\n")
    sampler = load_workload(folder / "own.yaml", ["training.sampler=theirs:Theirs"]).training.sampler
    assert sampler.drawn(range(9), 3, 1, 0) == [0, 1, 2]  # type: ignore[arg-type]


def test_a_sampler_that_draws_from_elsewhere_than_the_seed_is_refused(folder: Path) -> None:
    (folder / "theirs.py").write_text(f"{SAMPLER}        return np.random.choice(len(clients), size, False)\n")
    keys = ["training.sampler=theirs:Theirs", "training.cohort=1", "training.rounds=50", "federation.sites.B.count=9"]
    with pytest.raises(InputError, match="draw of theirs:Theirs gives two cohorts for one round"):
        run(load_workload(folder / "own.yaml", keys), folder / "run")
