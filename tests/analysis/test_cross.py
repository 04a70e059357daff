import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from fedsim import Run, run
from fedsim.analysis.cross_site import cross_evaluate
from fedsim.core.errors import InputError
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.engine.federation import assemble
from fedsim.engine.simulation import Simulation
from fedsim.report.cross_view import cross_figure, cross_matrix, cross_table, write_cross
from fedsim.workload.schema import Workload
from tests.conftest import Fedsim, site

SITES = [
    site("A", "t1"),
    site("B", "t2", training={"batch_size": 2}, matrix=[48, 32]),
    site("C", "pd", split={"train": 0.5, "val": 0.5, "test": 0}),
    site("X", "flair", unseen=True),
]


@pytest.fixture(scope="module")
def trained(make_workload: Callable[..., Workload], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four clients of three sites, and a fourth site outside; evaluated on test and on validation data."""
    path = tmp_path_factory.mktemp("cross") / "run"
    workload = make_workload(f"federation.sites={json.dumps(SITES)}")
    done = run(workload, path)
    with Simulation(workload, path, resume=True) as simulation:
        simulation.evaluate("val")
    return done


@pytest.fixture
def copy(trained: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(trained.path, tmp_path / "run"))


def text(frame: pd.DataFrame, width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(cross_table(frame))
    return console.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["test", "val"])
def test_at_home_the_numbers_are_those_of_evaluate(trained: Run, part: str) -> None:
    frame = cross_evaluate(trained, "best", part)
    evaluated = trained.evaluation.query("split == @part")
    home = frame[frame["own"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(home[evaluated.columns], evaluated.reset_index(drop=True), check_exact=True)


@pytest.mark.slow
def test_every_model_meets_every_site(trained: Run) -> None:
    frame = cross_evaluate(trained)
    matrix = cross_matrix(frame)
    assert list(matrix.index) == ["A.1", "A.2", "B", "C"]
    assert list(matrix.columns) == ["A", "B", "X"]  # C has no test data
    assert matrix.notna().all(axis=None)
    assert frame.groupby(["site", "volume"])["zf_psnr"].nunique().eq(1).all()
    assert not frame.query("site == 'X'")["own"].any()


@pytest.mark.slow
def test_away_from_home_it_is_the_clients_own_network(trained: Run) -> None:
    row = cross_evaluate(trained).set_index(["client", "site"]).loc[("A.2", "B")]
    data = next(client.data for client in assemble(trained.workload).clients if client.name == "B")
    (volume,) = reconstruct_volumes(trained.model("A.2"), data, "test", 2)
    assert volume.score("fastmri")["psnr"] == row["psnr"]


@pytest.mark.slow
def test_pooled_data_are_all_at_home(make_workload: Callable[..., Workload], tmp_path: Path) -> None:
    pooled = run(make_workload(f"federation.sites={json.dumps(SITES)}", "algorithm.name=centralised"), tmp_path / "run")
    frame = cross_evaluate(pooled)
    assert set(frame.loc[frame["own"], "site"]) == {"A", "B"}
    home = frame[frame["own"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(home[pooled.evaluation.columns], pooled.evaluation, check_exact=True)


def test_table_marks_home_and_ends_with_zero_filled(trained: Run) -> None:
    frame = cross_evaluate(trained)
    lines = [line.split() for line in text(frame).splitlines() if line.strip()]
    assert lines[0][:2] == ["PSNR", "[dB],"]
    (home,) = frame.query("client == 'B' and site == 'B'")["psnr"]
    assert next(line for line in lines if line[0] == "B")[2] == f"{home:.2f}*"
    rows = [line[0] for line in lines]
    assert rows.index("zero-filled") > rows.index("C")
    assert "X (unseen)" in text(frame)


@pytest.mark.slow
def test_many_sites_fit_a_terminal(trained: Run) -> None:
    rows = [
        row.assign(client=f"S{i}", site=f"S{j}", own=i == j, volume=f"v{j}")
        for row in [cross_evaluate(trained).iloc[:1]]
        for i in range(40)
        for j in range(40)
    ]
    frame = pd.concat(rows, ignore_index=True)
    assert "other sites' data" in text(frame, 80)
    assert max(map(len, text(frame, 80).splitlines())) <= 80
    width, height = cross_figure(frame).get_size_inches()
    assert width <= 15
    assert height <= 12


def test_many_clients_stand_under_their_sites(trained: Run) -> None:
    frame = cross_evaluate(trained).query("client == 'B'")
    many = pd.concat([frame.assign(client=f"B.{i}", psnr=frame["psnr"] + i) for i in range(30)], ignore_index=True)
    rows = [label.get_text() for label in cross_figure(many).axes[0].get_yticklabels()]
    assert rows == ["B"]


@pytest.mark.slow
def test_what_is_kept(copy: Run) -> None:
    frame = cross_evaluate(copy)
    picture = write_cross(copy, frame)
    write_cross(copy, cross_evaluate(copy, part="val"))
    write_cross(copy, frame)
    kept = pd.read_parquet(copy.path / "cross.parquet")
    assert kept.groupby("split").size().to_dict() == {"test": 12, "val": 20}
    assert picture == copy.path / "figures" / "cross.png"
    image = np.asarray(Image.open(picture).convert("RGB"))
    assert image.shape[1] > 600
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_data_that_changed_are_refused(copy: Run) -> None:
    manifest = copy.manifest
    manifest.iloc[1:].to_parquet(copy.path / "manifest.parquet")
    with pytest.raises(InputError, match="is not what it was"):
        cross_evaluate(copy)


@pytest.mark.slow
def test_on_the_command_line(fedsim: Fedsim, copy: Run) -> None:
    status, out, err = fedsim("evaluate", copy.path, "--cross", "--split", "val")
    assert status == 0, err
    assert "zero-filled" in out
    assert set(pd.read_parquet(copy.path / "cross.parquet")["split"]) == {"val"}
    status, _, err = fedsim("evaluate", copy.path, "--cross", "--save-images")
    assert status == 2
    assert err.count("\n") == 1
    assert "--cross" in err
