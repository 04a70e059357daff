"""An installed wheel is complete: it needs no checkout to start a folder, to run, and to submit."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from fedsim.core.shipped import shipped

from .conftest import Fedsim

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")
FOLDERS = ("fedsim", "clusters", "workloads")
BUILD_SDIST = "from setuptools import build_meta; build_meta.build_sdist('dist')"
LARGEST = 1_500_000  # bytes: code and text, no results
STUDY = """
name: two
kind: compare
workload: try/workloads/quickstart.yaml
seeds: [1]
set: {training.rounds: 1, training.local_epochs: 1, engine.backend: serial}
methods: {fedavg: {}, fedmri: {}}
reference: fedmri
"""


def called(command: list[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    return subprocess.run(list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True, check=False)


def shipped_names() -> set[str]:
    return {f"{name}/{path.name}" for name in ("clusters", "workloads") for path in (ROOT / name).glob("*.*")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name)
    done = called([sys.executable, "-c", BUILD_SDIST], source)
    assert done.returncode == 0, done.stderr
    return next((source / "dist").glob("fedsim-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the source distribution, as an installer would."""
    folder = sdist.parent
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    done = called([*pip, "--wheel-dir", folder, sdist], folder)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("fedsim-*.whl"))


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else."""
    place = tmp_path_factory.mktemp("place")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", place, wheel]
    done = called(pip, place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
def test_source_and_wheel_hold_the_cluster_files_and_workloads_and_no_results(sdist: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        built = set(archive.namelist())
        runnable = archive.getinfo("fedsim/clusters/local.sh").external_attr >> 16
    assert shipped_names() <= source
    assert {f"fedsim/{name}" for name in shipped_names()} <= built
    assert runnable & 0o111, "local.sh is called by its name"
    assert not [name for name in built | source if name.endswith(".pyc") or name.startswith(("docs/results", "runs/"))]
    assert max(wheel.stat().st_size, sdist.stat().st_size) < LARGEST


@pytest.mark.slow
def test_an_installed_wheel_submits_from_any_folder(place: Path, tmp_path: Path) -> None:
    surroundings = {"PYTHONPATH": str(place), "FEDSIM_STATE": str(place / "state")}
    fedsim = [sys.executable, place / "bin" / "fedsim"]  # dependencies are those of this environment
    for arguments in ("init try", "submit try/workloads/quickstart.yaml --cluster slurm --dry-run"):
        done = called([*fedsim, *arguments.split()], tmp_path, **surroundings)
        assert (done.returncode, done.stderr) == (0, "")
    assert str(place / "fedsim" / "clusters" / "slurm.sbatch") in done.stdout
    assert "name: quickstart" in done.stdout


@pytest.mark.slow
def test_init_writes_what_the_project_ships(fedsim: Fedsim, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()  # an empty folder will do
    status, out, err = fedsim("init", "new")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "cd new"
    assert len(out.splitlines()) == 3
    for name in ("clusters", "workloads"):
        written = {path.name: path.read_bytes() for path in (tmp_path / "new" / name).iterdir()}
        assert written == {path.name: path.read_bytes() for path in shipped(name).iterdir() if path.is_file()}
    assert os.access(tmp_path / "new/clusters/local.sh", os.X_OK)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.slow
def test_init_leaves_alone_what_is_there(fedsim: Fedsim, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.yaml").write_text("name: mine")
    (tmp_path / "file").write_text("")
    for name in ("full", "file"):
        status, out, err = fedsim("init", name)
        assert (status, out) == (2, "")
        assert err == f"fedsim: {name}: is not an empty folder; name a new or an empty one\n"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.yaml"]
    status, out, err = fedsim("init", "file/new")
    assert (status, out) == (2, "")
    assert err == f"fedsim: file/new: {tmp_path}/file is not a folder that you may write to; name another DIR\n"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_runs_the_demo_a_dry_run_and_a_study(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    program = tmp_path / "venv" / "bin"
    pip = [program / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel]
    (tmp_path / "two.yaml").write_text(STUDY)
    surroundings = {"FEDSIM_STATE": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for command in (
        pip,
        [program / "fedsim", "init", "try"],
        [program / "fedsim", "run", "try/workloads/quickstart.yaml"],
        [program / "fedsim", "submit", "try/workloads/quickstart.yaml", "--cluster", "slurm", "--dry-run"],
        [program / "fedsim", "study", "two.yaml"],
    ):
        done = called(command, tmp_path, **(surroundings if command is not pip else {}))
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert (tmp_path / "runs/quickstart/report.html").is_file()
    assert (tmp_path / "studies/two/results.parquet").is_file()
