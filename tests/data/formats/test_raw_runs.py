"""Every format of raw data from its files to a reconstruction: inspect, import, train one round, reconstruct."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from fedsim.analysis.reconstruct import reconstruct_file
from fedsim.engine.simulation import run
from fedsim.report.inspect import inspect_path
from fedsim.workload.reading import load_workload

from .raw_files import coil_images
from .test_raw_formats import LAYOUTS, LINES, Layout

WORKLOAD = """
name: raw
federation:
  root: {root}
  cache: {root}/cache
  matrix: [16, 16]
  split: {{train: 0.5, val: 0, test: 0.5}}
  sites: [{{name: A, source: {{format: {format}, path: site}}}}]
model: {{channels: 2, pools: 2}}
algorithm: {{name: fedavg}}
training: {{rounds: 1, batch_size: 4}}
engine: {{backend: serial, checkpoint_every: 0}}
metrics: {{every: 0}}
"""
OTHERS = {"m4raw": "2022061009_T201.h5", "cmrxrecon": "P009/cine_sax.mat", "skm_tea": "MTR_009.h5",
          "calgary_campinas": "e14099s3_P10000.7.h5"}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.format)
def test_from_files_to_a_reconstruction(layout: Layout, tmp_path: Path) -> None:
    second = OTHERS.get(layout.format, f"other{Path(layout.name).suffix}")
    for number, name in enumerate((layout.name, second)):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = {"patient": f"P{number}"} if layout.format == "mrd" else {}
        layout.write(path, coil_images(2, seed=number), **keys)
    table, _ = inspect_path(tmp_path / "site", tmp_path / "a.png")
    assert f"{layout.format}, 2 volumes of 2 subjects, 4 slices" in str(table.title)
    assert [*table.columns[4].cells] == ["2 coils, complex"] * 2
    (tmp_path / "w.yaml").write_text(WORKLOAD.format(root=tmp_path, format=layout.format))
    done = run(load_workload(tmp_path / "w.yaml"), tmp_path / "run")
    assert len(done.rounds) == 1
    ((_, said),) = reconstruct_file(done, "A", tmp_path / "site" / layout.name, "last", tmp_path / "out")
    assert "PSNR" in said
    layout.write(tmp_path / "site" / layout.name, coil_images(2), mask=LINES)
    ((path, said),) = reconstruct_file(done, "A", tmp_path / "site" / layout.name, "last", tmp_path / "out")
    assert "with the file's own mask" in said
    with h5py.File(path) as file:
        assert file["reconstruction"].shape == (2, 16, 16)
        assert np.isfinite(file["reconstruction"][()]).all()
