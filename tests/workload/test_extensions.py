"""Users' own networks, importers, masks and methods: found alike, kept with the run alike, and blamed alike."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from fedsim.core import extension
from fedsim.core.errors import ClientError, InputError, MethodError, OwnCodeError
from fedsim.engine.federation import assemble
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, read_yaml, write_yaml
from tests.conftest import COMMAND, Fedsim

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "cascade": "howto-network.md",
    "npyfiles": "howto-data.md",
    "blocks": "howto-data.md",
    "damped": "howto-method.md",
}


def example(module: str) -> str:
    """The file of a page."""
    text = (DOCS / PAGES[module]).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```python {module}\.py\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return str(block)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    """As in a new process: no user's module is loaded."""
    for module in (*PAGES, "theirs", "plugged"):
        sys.modules.pop(module, None)
    extension._offered.cache_clear()


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
        "algorithm": {"name": "damped:Damped"}, "training": {"rounds": 1, "batch_size": 2, "lr": 1e-3},
        "engine": {"backend": "serial"},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(write_yaml(content))
    return tmp_path


def shared(path: Path) -> bytes:
    return (path / "checkpoints" / "round-0001" / "shared.safetensors").read_bytes()


@pytest.mark.usefixtures("ray_session")
def test_all_four_run_on_ray_as_in_this_process(folder: Path) -> None:
    run(load_workload(folder / "own.yaml"), folder / "serial")
    run(load_workload(folder / "own.yaml", ["engine.backend=ray"]), folder / "ray")
    assert shared(folder / "serial") == shared(folder / "ray")


def test_a_run_keeps_the_files_and_is_read_without_running_them(folder: Path) -> None:
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
def test_a_changed_file_is_refused_on_resume(folder: Path, module: str) -> None:
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
        ("model.name=cascade", "model.name: unknown 'cascade'; known: unet, module:Class of your own"),
        ("model.stages=0", "model.stages: Input should be greater"),
        ("federation.sites.A.mask.width=0", "federation.sites.0.mask.width: Input should be greater"),
        ("federation.sites.A.mask.sigma=1", "federation.sites.0.mask.sigma: unknown key"),
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


HEADS = {
    "algorithm": "from fedsim.algorithms.base import Algorithm\n\nclass Theirs(Algorithm):\n",
    "model": "from fedsim.models.base import Model\n\nclass Theirs(Model):\n    def network(self): ...\n",
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
    workload = load_workload(folder / "own.yaml", [KEYS["mask"]])
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
        "must be float32 or complex64 (slices, H, W), not float32 (8, 8)",
    ),
    ("yield Volume(who, 'v', [1], '')", "images of v must be float32 or complex64 (slices, H, W), not list"),
    ("return None", "TypeError: 'NoneType' object is not iterable"),
]


@pytest.mark.parametrize(("body", "message"), YIELDS, ids=[body for body, _ in YIELDS])
def test_what_an_importer_does_wrong_is_shown_as_the_importers(folder: Path, body: str, message: str) -> None:
    (folder / "theirs.py").write_text(SOURCE.format(body))
    workload = load_workload(folder / "own.yaml", ["federation.sites.A.source={format: 'theirs:Theirs'}"])
    with pytest.raises(InputError, match=re.escape(message)) as error:
        run(workload, folder / "run")
    assert "\n" not in str(error.value)


def test_a_changed_importer_imports_again(folder: Path) -> None:
    body = "yield Volume(Subject.of(s, 'me'), s, images * np.arange(8, dtype=np.float32), '')"
    text = SOURCE.format(f"for s in 'abcd':\n            {body}")
    for factor in ("", " * np.float32(2)"):
        (folder / "theirs.py").write_text(text.replace("images *", f"images{factor} *"))
        forget()
        keys = ["federation.sites.A.source={format: 'theirs:Theirs'}", "model={name: unet, channels: 2, pools: 1}"]
        run(load_workload(folder / "own.yaml", keys), folder / f"run{len(factor)}")
    assert len(list((folder / "cache").glob("theirs.Theirs-*.h5"))) == 2


def install(folder: Path, code: str, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a distribution on the path as an installer leaves it: the module `plugged`, and its entry points."""
    site = folder / "site"
    info = site / "fedsim_plugged-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "plugged.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedsim-plugged\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    forget()


PLUGGED = {
    "methods": ("algorithm={{name: {}}}", "Damped"),
    "networks": ("model={{name: {}, channels: 2, stages: 1}}", "CascadeModel"),
    "masks": ("federation.sites.A.mask={{kind: {}, width: 3}}", "Blocks"),
    "sources": ("federation.sites.A.source={{format: {}, path: npy, axis: 2, subject: file}}", "Npy"),
}
"""By group of entry points: the setting that names a class, and the class of the how-tos."""
PLUGGED_NAMES = [setting.format(f"my-{group}") for group, (setting, _) in PLUGGED.items()]


@pytest.fixture
def plugged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, and the classes of the how-tos in an installed package under the plain names my-GROUP."""
    points = "".join(f"[fedsim.{group}]\nmy-{group} = plugged:{kind}\n" for group, (_, kind) in PLUGGED.items())
    install(folder, "\n".join(map(example, PAGES)), points, monkeypatch)
    return folder


def test_a_package_may_offer_all_four(plugged: Path) -> None:
    run(load_workload(plugged / "own.yaml"), plugged / "files")
    run(load_workload(plugged / "own.yaml", PLUGGED_NAMES), plugged / "package")
    assert shared(plugged / "files") == shared(plugged / "package")
    site = Run(plugged / "package").workload.federation.sites[0]
    assert (site.mask.label, site.source.label) == ("my-masks", "my-sources")


@pytest.mark.ray
@pytest.mark.slow
def test_all_four_of_a_package_run_on_ray(plugged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, for a package is installed before Ray starts."""
    run(load_workload(plugged / "own.yaml", PLUGGED_NAMES), plugged / "serial")
    monkeypatch.setenv("PYTHONPATH", f"{plugged / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    keys = [word for name in (*PLUGGED_NAMES, "engine.backend=ray") for word in ("--set", name)]
    subprocess.run([*COMMAND, "run", plugged / "own.yaml", *keys, "--out", plugged / "ray"], check=True)
    assert shared(plugged / "serial") == shared(plugged / "ray")


@pytest.mark.parametrize("group", PLUGGED)
def test_a_packages_classes_are_among_the_known(plugged: Path, group: str) -> None:
    setting = PLUGGED[group][0]
    with pytest.raises(InputError, match=f"unknown 'my-{group[:-1]}'; did you mean 'my-{group}'"):
        load_workload(plugged / "own.yaml", [setting.format(f"my-{group[:-1]}")])
    with pytest.raises(InputError, match=f"unknown 'x'; known: .*, my-{group}, module:Class of your own$"):
        load_workload(plugged / "own.yaml", [setting.format("x")])


def test_the_schema_takes_the_classes_of_packages_and_of_files(plugged: Path, fedsim: Fedsim) -> None:
    schema = json.loads(fedsim("schema")[1])
    content = read_yaml(plugged / "own.yaml")
    jsonschema.validate(content, schema)
    for key, name in (("model", "my-networks"), ("algorithm", "my-methods")):
        jsonschema.validate({**content, key: {"name": name}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, key: {"name": "my-network"}}, schema)


@pytest.mark.parametrize(
    ("hook", "body", "message"),
    [
        ("train", "received['shared'].data.mul_(0.5)\n        return super().train(learner, received, phase)",
         "round 1: mine changed what it received, 'shared', in place"),
        ("train", "return {'shared': learner.shared * torch.nan}",
         "train of mine returned NaN, infinite or too large numbers as 'shared'"),
        ("train", "raise SystemExit", r"SystemExit: \(in train of mine\)"),
        ("deploy", "learner.shared.fill_(torch.nan)", r"mine left NaN or infinite parameters .* \(in deploy\)"),
    ],
)  # fmt: skip
def test_a_packages_method_gets_the_checks_of_any_users_method(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hook: str, body: str, message: str
) -> None:
    arguments = "learner, received, phase" if hook == "train" else "learner, received"
    code = "import torch\nfrom fedsim.algorithms.base import Algorithm\n\n\nclass Mine(Algorithm):\n"
    code += f"    def {hook}(self, {arguments}):\n        {body}\n"
    install(folder, code, "[fedsim.methods]\nmine = plugged:Mine\n", monkeypatch)
    with pytest.raises((ClientError, MethodError), match=message):
        run(load_workload(folder / "own.yaml", ["algorithm={name: mine}"]), folder / "run")


def test_an_installed_packages_classes_have_plain_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[fedsim.networks]\nmynet = plugged:CascadeModel\nbroken = nowhere:Model\nunet = plugged:CascadeModel\n"
    install(folder, example("cascade"), points, monkeypatch)
    with pytest.raises(InputError, match="nowhere:Model of the package fedsim-plugged cannot be imported"):
        load_workload(folder / "own.yaml", ["model.name=broken"])
    with pytest.raises(InputError, match=r"model\.stride: unknown key"):
        load_workload(folder / "own.yaml", ["model.name=mynet", "model.stride=2"])
    fedsims = load_workload(folder / "own.yaml", ["model={name: unet, channels: 2, pools: 1}"])
    assert not fedsims.model.foreign, "no package takes a name of fedsim's"
    run(load_workload(folder / "own.yaml", ["model.name=mynet"]), folder / "run")
    opened = Run(folder / "run")
    assert opened.workload.model.model_dump() == {"name": "mynet", "channels": 2, "stages": 1}
    assert opened.workload.provenance is not None
    assert opened.workload.provenance["fedsim-plugged"] == "1.2"
    assert opened.rounds["loss"].notna().all()


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
