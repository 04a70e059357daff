"""Tags find a run again and change nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.study.study import load_study
from fedsim.workload.reading import write_yaml
from fedsim.workload.schema import Workload

Fedsim = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_a_runs_tags_are_kept_shown_and_free_to_differ_on_resume(fedsim: Fedsim, workload: Path) -> None:
    keys = ("--set", "training.rounds=1", "--set", "tags=[file]")
    assert fedsim("run", workload, *keys, "--out", "one", "--tag", "<b>[red]", "--tag", "baseline")[0] == 0
    assert Run("one").workload.tags == ("<b>[red]", "baseline")
    assert "Tags: &lt;b&gt;[red], baseline." in Path("one/report.html").read_text()
    assert fedsim("run", workload, *keys, "--out", "two", "--set", "algorithm.name=single")[0] == 0
    status, said, _ = fedsim("compare", "one", "two")
    assert (status, "one: <b>[red], baseline" in said, "two: file" in said) == (0, True, True)
    assert "tags" not in said, "they are no difference between runs"
    assert fedsim("run", workload, *keys, "--out", "one", "--resume", "--tag", "other")[0] == 0
    assert Run("one").workload.tags == ("other",)


def test_a_studys_runs_get_them(workload: Path) -> None:
    study = {"name": "s", "kind": "compare", "workload": str(workload), "methods": {"fedavg": {}}, "seeds": [1]}
    path = workload.parent / "study.yaml"
    path.write_text(write_yaml(study))
    plan = load_study(path, ['set.tags=["a", "b"]'])
    assert [point.workload.tags for point in plan.examples()] == [("a", "b")]


@pytest.mark.parametrize("tags", ['[""]', '[" a"]', '["a\\nb"]', "[3]", "a", f"[{'x' * 65}]"])
def test_what_is_no_tag_is_refused(make_workload: Callable[..., Workload], tags: str) -> None:
    with pytest.raises(InputError, match="tags"):
        make_workload(f"tags={tags}")


def test_they_change_no_bit(make_workload: Callable[..., Workload], finished: Run, tmp_path: Path) -> None:
    other = run(make_workload("tags=[a]", "training.rounds=1"), tmp_path / "run")
    one, two = (r.path / "checkpoints/round-0001/shared.safetensors" for r in (finished, other))
    assert one.read_bytes() == two.read_bytes()
