"""Whose code is run: reading a run runs none; what needs its method runs this user's, and another's with --trust."""

import os
import re
import shutil
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run

from .conftest import Fedsim

MINE = """
from pathlib import Path
from {module} import {base}

(Path(__file__).parent / "ran-{kind}").touch()


class Mine({base}):
    {tag}: str
    extra: float = 1
"""
KINDS = {
    "method": ("fedsim.algorithms.fedavg", "FedAvg", "algorithm={{name: {}}}"),
    "network": ("fedsim.models.reconstruction", "UNetModel", "model.name={}"),
    "mask": ("fedsim.mri.masks", "Radial", "federation.sites.A.mask={{kind: {}}}"),
    "source": ("fedsim.data.formats.phantom", "PhantomSource", "federation.sites.A.source.format={}"),
}
"""Every kind of user's class: the module and the name of its base, and the setting that names it."""


@pytest.fixture
def own_run(workload: Path, tmp_path: Path, fedsim: Fedsim, request: pytest.FixtureRequest) -> Path:
    """A finished run with a class of its own of each kind, in files that note when they are run."""
    test = re.sub(r"\W", "_", request.node.name)
    files, keys = [], ["--set", "training.rounds=1"]
    for kind, (module, base, setting) in KINDS.items():
        name = f"{kind}_{test}"
        files.append(tmp_path / f"{name}.py")
        tag = {"mask": "kind", "source": "format"}.get(kind, "name")
        files[-1].write_text(MINE.format(module=module, base=base, kind=kind, tag=tag))
        keys += ["--set", setting.format(f"'{name}:Mine'")]
    done = fedsim("--debug", "run", workload, *keys, "--out", "first")
    assert done[0] == 0, done[2]
    assert 'id="viewer"' in (tmp_path / "first" / "report.html").read_text() or list(
        (tmp_path / "first" / "figures").glob("panel-*")
    ), "whoever ran it sees its images"
    moved = tmp_path / "theirs"  # nothing else of it is on the way
    shutil.move(tmp_path / "first", moved)
    for file in (*files, *moved.glob("ran-*")):
        file.unlink()
    return moved


def ran(run: Path) -> set[str]:
    """The kinds whose files have been run."""
    return {path.name.removeprefix("ran-") for path in run.glob("ran-*")}


def give_away(run: Path) -> None:
    try:
        for path in (run, *run.rglob("*")):
            os.chown(path, 12345, 12345)
    except PermissionError:
        pytest.skip("giving files away needs root")


@pytest.mark.slow
def test_reading_a_run_runs_nothing(own_run: Path, fedsim: Fedsim) -> None:
    shutil.rmtree(own_run / "figures")
    assert fedsim("watch", own_run, "--once")[0] == 0
    assert fedsim("report", own_run)[0] == 0
    assert len(Run(own_run).rounds) == 1
    assert ran(own_run) == set()
    page = (own_run / "report.html").read_text()
    assert "own code" in page, "the page says why it has no images"
    assert "extra 1" in page, "and has the method's keys"
    status, _, err = fedsim("report", own_run, "--trust")
    assert (status, ran(own_run)) == (0, set(KINDS))
    assert "runsthecodein" in "".join(err.split())
    assert list((own_run / "figures").glob("panel-*"))


@pytest.mark.slow
def test_code_of_somebody_else_is_run_with_trust_alone(own_run: Path, fedsim: Fedsim) -> None:
    give_away(own_run)
    resume = ("run", own_run / "workload.yaml", "--out", own_run, "--resume")
    scan = own_run / "manifest.parquet"  # not looked at before the code is
    for command in (
        ("evaluate", own_run), ("evaluate", own_run, "--cross"), ("debug", own_run, "--client", "A", "--round", "1"),
        ("reconstruct", own_run, scan, "--client", "A"), resume,
    ):  # fmt: skip
        status, _, err = fedsim(*command)
        assert status == 2
        said = (
            r"belongs to user 12345, not to you, and (\S+\.py(, )?){4} would be run; read it, then repeat with --trust"
        )
        assert re.search(said, err.splitlines()[-1])
    with pytest.raises(InputError, match="--trust"):
        Run(own_run).model("A")
    assert ran(own_run) == set()
    assert fedsim("evaluate", own_run, "--trust")[0] == 0
    assert ran(own_run) == set(KINDS)
    assert Run(own_run, trust=True).model("A") is not None


@pytest.mark.slow
def test_ones_own_code_is_run_and_said(own_run: Path, fedsim: Fedsim) -> None:
    status, _, err = fedsim("evaluate", own_run)
    assert status == 0
    assert "runsthecodein" in "".join(err.split())
    assert ran(own_run) == set(KINDS)
