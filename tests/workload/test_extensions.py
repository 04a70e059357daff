"""Users' own networks, losses, importers, masks, samplers and methods: found, kept with the run, and blamed alike."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload

from .conftest import PAGES, example, shared


@pytest.mark.usefixtures("ray_session")
def test_all_of_them_run_on_ray_as_in_this_process(folder: Path) -> None:
    run(load_workload(folder / "own.yaml"), folder / "serial")
    run(load_workload(folder / "own.yaml", ["engine.backend=ray"]), folder / "ray")
    assert shared(folder / "serial") == shared(folder / "ray")


def test_a_run_keeps_the_files_and_is_read_without_running_them(folder: Path, forget: Callable[[], None]) -> None:
    run(load_workload(folder / "own.yaml"), folder / "run")
    for module in PAGES:
        assert (folder / "run" / f"{module}.py").read_text() == example(module)
        (folder / f"{module}.py").unlink()
    forget()
    opened = Run(folder / "run")
    site = opened.workload.federation.sites[0]
    assert (opened.workload.model.label, site.mask.label, site.source.label) == (
        "cascade:CascadeModel", "blocks:Blocks", "npyfiles:Npy",
    )  # fmt: skip
    assert not set(PAGES) & set(sys.modules)
    assert opened.reconstruct(np.ones((16, 16), np.float32), "A").shape == (16, 16)
    assert "cascade" in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("module", PAGES)
def test_a_changed_file_is_refused_on_resume(folder: Path, module: str, forget: Callable[[], None]) -> None:
    run(load_workload(folder / "own.yaml"), folder / "run")
    (folder / f"{module}.py").write_text(example(module) + "\n# changed\n")
    forget()
    with pytest.raises(InputError, match=rf"{module}\.py: is not what it was when"):
        run(load_workload(folder / "own.yaml", ["training.rounds=2"]), folder / "run", resume=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.stride=2", "model.stride: unknown key"),
        ("model.stage=2", "model.stage: unknown key; did you mean 'stages'?"),
        ("federation.sites.A.source.axes=1", "federation.sites.0.source.axes: unknown key; did you mean 'axis'?"),
        ("model.name=cascade.py:CascadeModel", "must be module:Class without '.py': cascade:CascadeModel"),
        ("model.name=cascade", "model.name: unknown 'cascade'; known: unet, varnet, modl, module:Class of your own"),
        ("model.stages=0", "model.stages: Input should be greater"),
        ("federation.sites.A.mask.width=0", "federation.sites.0.mask.width: Input should be greater"),
        ("federation.sites.A.mask.sigma=1", "federation.sites.0.mask.sigma: unknown key"),
        ("training.loss.epsilon=0", "training.loss.epsilon: Input should be greater than 0"),
        ("training.loss.sigma=1", "training.loss.sigma: unknown key; known here: name, epsilon"),
        ("training.loss={name: l1, epsilon: 1}", "training.loss.epsilon: unknown key"),
        ("training.loss=ms", "training.loss.name: unknown 'ms'; did you mean 'mse'?"),
        (
            "training.loss=charbonnier:Charbon",
            "charbonnier has no class Charbon derived from fedsim.algorithms.losses.Loss; it has Charbonnier",
        ),
        ("federation.sites.A.source.axis=7", "federation.sites.0.source.axis: Input should be less"),
        ("federation.sites.A.source.channel=1", "federation.sites.0.source.channel: unknown key"),
        (
            "model.name=cascade:Cascade",
            "cascade has no class Cascade derived from fedsim.models.base.Model; it has CascadeModel",
        ),
        ("federation.sites.A.mask.kind=nowhere:M", "mask.kind: nowhere cannot be imported (ModuleNotFoundError"),
        (
            "federation.sites.A.source.format=blocks:Blocks",
            "no class Blocks derived from fedsim.data.source.Source",
        ),
    ],
)
def test_a_wrong_key_or_name_gets_one_line(folder: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_workload(folder / "own.yaml", [setting])
    assert "\n" not in str(error.value)


def test_a_class_without_what_its_base_asks_for_is_refused_by_that_name(folder: Path) -> None:
    (folder / "theirs.py").write_text("from fedsim.models.base import Model\n\nclass Theirs(Model):\n    pass\n")
    with pytest.raises(InputError, match=r"^model\.name: Theirs of theirs must define network$"):
        load_workload(folder / "own.yaml", ["model={name: 'theirs:Theirs'}"])


OF_COILS = """
from torch import nn
from fedsim.models.base import Model, Network
from fedsim.mri.coils import combined
from fedsim.mri.fft import ifft2c


class Scaled(Network):
    takes_maps = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, kspace, mask, maps):
        images = ifft2c(kspace)
        image = images if maps is None else combined(images, maps)
        assert maps is None or maps.shape == kspace.shape
        return self.layer(image.abs()[:, None])[:, 0]


class Theirs(Model):
    takes_coils = property(lambda self: True)

    def network(self):
        return Scaled()
"""
SEVERAL = ("algorithm={name: fedavg}", "federation.coils=keep", "federation.sites.B.source.coils=3")


def test_a_users_network_takes_several_coils_with_their_sensitivities_and_one_without(folder: Path) -> None:
    """Site A has images of one coil, B three coils."""
    (folder / "theirs.py").write_text(OF_COILS)
    done = run(load_workload(folder / "own.yaml", ["model={name: 'theirs:Theirs'}", *SEVERAL]), folder / "run")
    assert np.isfinite(done.evaluation["psnr"]).all()
    assert done.clients["loss"].notna().all()
    assert done.reconstruct(np.ones((3, 16, 16), np.complex64), "B").shape == (16, 16)


def test_a_users_network_for_one_coil_is_not_given_several(folder: Path) -> None:
    said = "keep needs a network for several coils, and model.name=cascade:CascadeModel takes one; set it to combine"
    with pytest.raises(InputError, match=rf"^.*federation\.coils: {said}"):
        load_workload(folder / "own.yaml", [*SEVERAL])


HEADS = {
    "algorithm": "from fedsim.algorithms.base import Algorithm\n\nclass Theirs(Algorithm):\n",
    "model": "from fedsim.models.base import Model\n\nclass Theirs(Model):\n    def network(self): ...\n",
    "loss": "from fedsim.algorithms.losses import Loss\n\nclass Theirs(Loss):\n"
    "    def value(self, image, target): ...\n",
    "sampler": "from fedsim.algorithms.sampling import Sampler\n\nclass Theirs(Sampler):\n"
    "    def draw(self, clients, size, round_, seed): ...\n",
    "mask": "from fedsim.mri.masks import Mask\n\nclass Theirs(Mask):\n    def sample(self, shape, rng): ...\n",
    "source": "from fedsim.data.source import FileSource\n\nclass Theirs(FileSource):\n    suffixes = property(str)\n"
    "    def read(self, root): ...\n",
}
OF_OURS = """pass

from fedsim.mri.masks import Equispaced

class Theirs(Equispaced):
    kind: str
    def sampel(self, shape, rng): ...
"""
KEYS = {
    "algorithm": "algorithm={name: 'theirs:Theirs'}",
    "model": "model={name: 'theirs:Theirs'}",
    "loss": "training.loss=theirs:Theirs",
    "sampler": "training.sampler=theirs:Theirs",
    "mask": "federation.sites.A.mask={kind: 'theirs:Theirs'}",
    "source": "federation.sites.A.source={format: 'theirs:Theirs', path: npy}",
}


@pytest.mark.parametrize(
    ("section", "body", "message"),
    [
        ("algorithm", "def trian(self): ...", "defines trian, which overrides nothing; did you mean 'train'?"),
        (
            "algorithm",
            "def local_los(self): ...",
            "defines local_los, but nothing that fedsim calls; known: broadcast,",
        ),
        ("model", "multiples = property(int)", "defines multiples, which overrides nothing; did you mean 'multiple'?"),
        ("mask", OF_OURS, "did you mean 'sample'? Otherwise begin a helper's name with '_'"),
        ("source", "def fingerprints(self, root): ...", "did you mean 'fingerprint'?"),
    ],
)
def test_a_misspelt_hook_is_refused_with_the_one_that_is_meant(
    folder: Path, section: str, body: str, message: str
) -> None:
    (folder / "theirs.py").write_text(f"{HEADS[section]}    {body}\n")
    with pytest.raises(InputError, match=r"^[\w.]+: Theirs of theirs defines ") as error:
        load_workload(folder / "own.yaml", [KEYS[section]])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "body"),
    [
        (
            "algorithm",
            "def _trian(self): ...\n    def train(self): ...\n    def trained(self): ...\n    def half(self): ...",
        ),
        ("algorithm", "share: float = 0.5"),
        ("algorithm", "def warnings(self): ...\n    def half(self): ..."),
        ("model", "def layers(self): ..."),
        ("mask", "def samples(self): ..."),
        ("loss", "share: float = 0.5\n    def half(self): ..."),
        ("sampler", "share: float = 0.5\n    def half(self): ..."),
        ("source", "def axes(self): ..."),
    ],
)
def test_a_class_may_have_helpers_and_keys(folder: Path, section: str, body: str) -> None:
    (folder / "theirs.py").write_text(f"{HEADS[section]}    {body}\n")
    assert "theirs:Theirs" in str(load_workload(folder / "own.yaml", [KEYS[section]]))


def test_a_validator_is_no_misspelt_hook(folder: Path) -> None:
    body = "    @model_validator(mode='after')\n    def possible(self):\n        return self\n"
    (folder / "theirs.py").write_text("from pydantic import model_validator\n" + HEADS["algorithm"] + body)
    assert load_workload(folder / "own.yaml", [KEYS["algorithm"]]).algorithm.foreign


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "federation.partition={alpha: 1}",
            "federation.partition.kind: is required; one of equal, dirichlet",
        ),
        ("federation.sites.A.mask={acceleration: 3}", "federation.sites.0.mask.kind: is required; one of equispaced, "),
        (
            "federation.sites.A.source={path: a}",
            "federation.sites.0.source.format: is required; one of fastmri, ",
        ),
    ],
)
def test_a_section_without_its_tag_names_the_key_and_its_choices(folder: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_workload(folder / "own.yaml", [setting])
