"""Classes that an installed package offers have plain names and the checks of any user's class."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from fedsim.core import extension
from fedsim.core.errors import ClientError, InputError, MethodError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, read_yaml
from tests.conftest import COMMAND, Fedsim

from .conftest import PAGES, example, shared


@pytest.fixture(autouse=True)
def _offered_anew() -> Iterator[None]:
    """What a test installs, no other test finds."""
    yield
    extension._offered.cache_clear()


def install(folder: Path, code: str, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a distribution on the path as an installer leaves it: the module `plugged`, and its entry points."""
    site = folder / "site"
    info = site / "fedsim_plugged-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "plugged.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedsim-plugged\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    extension._offered.cache_clear()


PLUGGED = {
    "methods": ("algorithm={{name: {}}}", "Damped"),
    "networks": ("model={{name: {}, channels: 2, stages: 1}}", "CascadeModel"),
    "losses": ("training.loss={{name: {}, epsilon: 0.1}}", "Charbonnier"),
    "masks": ("federation.sites.A.mask={{kind: {}, width: 3}}", "Blocks"),
    "sources": ("federation.sites.A.source={{format: {}, path: npy, axis: 2, subject: file}}", "Npy"),
}
"""By group of entry points: the setting that names a class, and the class of the documents."""
PLUGGED_NAMES = [setting.format(f"my-{group}") for group, (setting, _) in PLUGGED.items()]


@pytest.fixture
def plugged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, and the classes of the documents in an installed package under the plain names my-GROUP."""
    points = "".join(f"[fedsim.{group}]\nmy-{group} = plugged:{kind}\n" for group, (_, kind) in PLUGGED.items())
    install(folder, "\n".join(map(example, PAGES)), points, monkeypatch)
    return folder


@pytest.mark.slow
def test_a_package_may_offer_classes_of_all_kinds(plugged: Path) -> None:
    run(load_workload(plugged / "own.yaml"), plugged / "files")
    run(load_workload(plugged / "own.yaml", PLUGGED_NAMES), plugged / "package")
    assert shared(plugged / "files") == shared(plugged / "package")
    site = Run(plugged / "package").workload.federation.sites[0]
    assert (site.mask.label, site.source.label) == ("my-masks", "my-sources")


@pytest.mark.ray
@pytest.mark.long
def test_the_classes_of_a_package_run_on_ray(plugged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.slow
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
