"""What a run may not go on with: other data, another workload in its own folder, other threads without a word."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedsim.analysis.comparable import check_comparable, terms_of
from fedsim.analysis.cross_site import cross_evaluate
from fedsim.core.errors import InputError
from fedsim.core.files import as_json, write_json
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.phantom_files import write_phantoms
from fedsim.engine.record.ledger import write_table
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation, run
from fedsim.engine.state.checkpoint import folder as checkpoint_folder
from fedsim.engine.state.checkpoint import read_state
from fedsim.workload.reading import load_workload, read_yaml, write_yaml
from fedsim.workload.schema import Workload

SOURCE = PhantomSource(subjects=4, slices=2, size=48)
FILES = """
name: files
federation:
  cache: {folder}/cache
  root: {folder}
  matrix: [32, 32]
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  sites:
    - {{name: A, source: {{format: fastmri, path: A}}, mask: {{kind: equispaced, acceleration: 3}}}}
model: {{channels: 2, pools: 2, domain: image}}
algorithm: {{name: fedavg}}
training: {{rounds: 1, batch_size: 2, lr: 1.0e-3}}
engine: {{backend: serial}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a site's files, a workload and a run of it; tests replace the files."""
    return train_in(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def untouched(tmp_path: Path) -> Path:
    """Such a folder whose files no other test replaces."""
    (tmp_path / "untouched").mkdir()
    return train_in(tmp_path / "untouched")


def train_in(folder: Path) -> Path:
    list(write_phantoms(folder / "A", SOURCE.resolve(1, "phantom")))
    (folder / "w.yaml").write_text(FILES.format(folder=folder))
    run(load_workload(folder / "w.yaml"), folder / "run")
    return folder


@pytest.fixture
def other_images(trained: Path, tmp_path: Path) -> None:
    """Every file replaced by another subject's of the same name."""
    list(write_phantoms(tmp_path / "others", SOURCE.resolve(2, "phantom")))
    for path in (tmp_path / "others").iterdir():
        path.replace(trained / "A" / path.name)


def go_on(folder: Path, *overrides: str) -> Simulation:
    return Simulation(load_workload(folder / "w.yaml", overrides), folder / "run", resume=True)


@pytest.mark.slow
def test_with_the_same_images_elsewhere(trained: Path, tmp_path: Path) -> None:
    """The digests are of what was read: not of a file's time, place or matrix."""
    list(write_phantoms(tmp_path / "A", SOURCE.resolve(1, "phantom")))
    with go_on(trained, f"federation.root={tmp_path}", f"federation.cache={tmp_path / 'cache'}") as simulation:
        assert len(simulation.evaluate())


def test_not_with_another_mask(trained: Path) -> None:
    """Whatever workload.yaml says, the manifest knows what the images were measured with."""
    path = trained / "run" / "manifest.parquet"
    before = pd.read_parquet(path)
    for column, changed, said in (("mask_kind", "radial", "another mask"), ("acceleration", 9.0, "another accelera")):
        write_table(path, before.assign(**{column: changed}))
        with pytest.raises(InputError, match=rf"^site A: subject-\d+_t1 has {said}"):
            go_on(trained)
    write_table(path, before)


def test_of_an_older_fedsim_without_a_comparison_but_with_a_word(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = trained / "run" / "manifest.parquet"
    before = pd.read_parquet(path)
    write_table(path, before.drop(columns="digest"))
    with go_on(trained):
        assert "was begun by an older fedsim without digest in its manifest" in caplog.text
    write_table(path, before)


@pytest.mark.usefixtures("other_images")
def test_not_with_other_images(trained: Path) -> None:
    said = r"^site A: subject-\d+_t1 has other images than when .*run began; bring back what there was"
    with pytest.raises(InputError, match=said):
        go_on(trained)
    with pytest.raises(InputError, match=said):
        cross_evaluate(Run(trained / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "was", "is_"),
    [("training.lr", "lr: 0.001", "lr: 0.1"), ("federation.sites.0.mask.acceleration", "eration: 3", "eration: 5")],
)
def test_not_with_a_workload_edited_in_its_folder(
    workload: Callable[..., Workload], tmp_path: Path, key: str, was: str, is_: str
) -> None:
    small = workload("training.rounds=1")
    begun = run(small, tmp_path / "run")
    file = begun.path / "workload.yaml"
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, is_, 1))
    with pytest.raises(InputError, match=rf"^{key}: was .* and is now .*; a run that has begun keeps it"):
        Simulation(load_workload(file), begun.path, resume=True)
    with Simulation(small, begun.path, resume=True) as simulation:  # what it was trained with still goes on
        simulation.run()
    assert was in file.read_text()


@pytest.mark.slow
def test_with_other_threads_and_a_word(
    workload: Callable[..., Workload], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(workload("training.rounds=1"), tmp_path / "run")
    caplog.set_level(logging.WARNING, "fedsim")
    more = run(workload("training.rounds=2", "engine.threads=2"), tmp_path / "run", resume=True)
    assert "engine.threads: was 1 and is now 2: the last bits may differ from here on" in caplog.text
    assert more.rounds["threads"].tolist() == [1, 2]
    assert Run(more.path).workload.engine.threads == 1, "history is not rewritten"


def older(folder: Path, to: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """A copy of a run whose workload is as an older fedsim wrote it."""
    shutil.copytree(folder / "run", to)
    content = read_yaml(to / "workload.yaml")
    edit(content)
    (to / "workload.yaml").write_text(write_yaml(content))
    state = read_state(to, 1)
    edit(state["workload"])
    digest = hashlib.sha256(as_json(state).encode()).hexdigest()
    write_json(checkpoint_folder(to, 1) / "state.json", {**state, "digest": digest})


def with_old_names(content: dict[str, Any]) -> None:
    for new, old in (("on_client_error", "on_error"), ("on_lost_process", "on_failure")):
        content["engine"][old] = content["engine"].pop(new)


def without_new_keys(content: dict[str, Any]) -> None:
    for section, key in (("training", "fuse"), ("training", "precision"), ("engine", "graphs")):
        del content[section][key]
    del content["engine"]["deterministic"]


@pytest.mark.slow
@pytest.mark.parametrize("edit", [with_old_names, without_new_keys])
def test_an_older_run_resumes_and_is_evaluated(
    untouched: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    older(untouched, tmp_path / "run", edit)
    workload = load_workload(untouched / "w.yaml", ["training.rounds=2"])
    caplog.clear()
    with Simulation(workload, tmp_path / "run", resume=True) as simulation:
        assert simulation.run()
        assert len(simulation.evaluate())
    assert Run(tmp_path / "run").round("last") == 2
    assert "last bits" not in caplog.text
    check_comparable({"old": terms_of(Run(tmp_path / "run")), "new": terms_of(Run(untouched / "run"))})


def test_what_a_failing_client_does_to_its_round_stays_as_it_was(untouched: Path) -> None:
    """It changes what is trained; what a lost process does, and all else in engine, may change."""
    message = r"^engine\.on_client_error: was 'abort' and is now 'drop'; a run that has begun keeps it$"
    with pytest.raises(InputError, match=message):
        go_on(untouched, "engine.on_client_error=drop")
    keys = ("engine.on_lost_process=drop", "engine.retries=9", "engine.keep_last=5")
    with go_on(untouched, *keys) as simulation:
        assert simulation.run()
