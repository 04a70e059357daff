"""Pictures of images at their own size: pixels are square, so that the field of view is as wide as it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.report.figures import site_panel
from fedsim.report.method_panel import method_panels
from fedsim.report.panels import panels_of
from fedsim.report.viewer import stacks_of
from fedsim.workload.reading import load_workload
from tests.conftest import Fedsim
from tests.data.formats.raw_files import coil_images

from .conftest import texts

WORKLOAD = """
name: native
federation:
  root: {root}
  cache: {root}/cache
  matrix: native
  coils: keep
  target: combined
  split: {{train: 0.5, val: 0, test: 0.5}}
  sites:
  - {{name: A, source: {{format: numpy, path: site, domain: image}}}}
  - {{name: B, matrix: [16, 32], source: {{format: numpy, path: other, domain: image}}}}
model: {{channels: 2, pools: 2}}
algorithm: {{name: fedavg}}
training: {{rounds: 1, batch_size: 4}}
engine: {{backend: serial}}
metrics: {{every: 0}}
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Images of 48 x 24 pixels; B trains them at 16 x 32, with the same field of view, made square."""
    root = tmp_path_factory.mktemp("native")
    for name in ("site", "other"):
        (root / name).mkdir()
        for number in range(2):
            np.save(root / name / f"{name}{number}.npy", coil_images(2, height=48, width=24, seed=number))
    (root / "w.yaml").write_text(WORKLOAD.format(root=root))
    return run(load_workload(root / "w.yaml"), root / "run")


@pytest.mark.slow
def test_references_stand_beside_the_network_in_the_table_the_panels_and_the_viewer(
    native: Run, fedsim: Fedsim, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(native.path, folder)
    status, out, _ = fedsim("evaluate", folder, "--set", "metrics.references=[sense,tv]")
    assert status == 0
    names = ["zero-filled", "CG-SENSE", "total variation", "fedavg"]
    lines = out[out.index("beside reconstructions without training") :].splitlines()
    assert [name for line in lines for name in names if line.strip().startswith(name)] == names
    scored = Run(folder, ["metrics.references=[sense, tv]"])
    assert {"sense_psnr", "tv_psnr", "sense_ssim", "tv_nmse"} <= {*scored.evaluation}
    for panel in panels_of(scored, 2):
        assert [*panel.untrained] == ["zf", "sense", "tv"]
        assert {"CG-SENSE", "Total variation"} <= {*texts(site_panel(panel)).splitlines()}
    (figure,) = method_panels({"fedavg": scored})
    assert {"Zero-filled", "CG-SENSE", "Total variation"} <= {*texts(figure).splitlines()}
    for stack in stacks_of({"fedavg": scored}):
        assert stack.methods == ("fedavg", "CG-SENSE", "total variation")


@pytest.mark.slow
def test_native_pixels_are_square_and_others_fill_a_square_field_of_view(native: Run) -> None:
    for panel, aspect in zip(panels_of(native, 2), (1.0, 2.0), strict=True):
        assert panel.aspect == aspect
        images = [image for axis in site_panel(panel).axes for image in axis.images]
        assert {image.axes.get_aspect() for image in images} == {aspect}
    (figure,) = method_panels({"fedavg": native})
    shown = [axis.get_aspect() for axis in figure.axes if axis.images]
    assert shown == [1.0] * 6 + [2.0] * 6
    assert [stack.aspect for stack in stacks_of({"fedavg": native})] == [0.5, 1.0]


def test_pictures_name_the_target_beside_the_protocol(native: Run) -> None:
    panel = next(panels_of(native, 1))
    assert panel.protocol == native.evaluation["protocol"].iloc[0] == "fastmri, combined target"
    assert "fastmri, combined target" in texts(site_panel(panel))
