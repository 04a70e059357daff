"""Runs compare like a study, and mixes are refused."""

import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedsim.analysis.comparable import check_comparable, terms_of
from fedsim.analysis.comparison import other_differences, results_of
from fedsim.cli import app as cli
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.report.compared import compare_runs
from fedsim.workload.schema import Workload
from tests.analysis.compared import row


@pytest.fixture(scope="module")
def simulate(make_workload: Callable[..., Workload], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs a workload of a round, once for each set of overrides."""
    folder, known = tmp_path_factory.mktemp("runs"), dict[tuple[str, ...], Run]()

    def simulate(*overrides: str) -> Run:
        if overrides not in known:
            workload = make_workload("training.rounds=1", *overrides)
            known[overrides] = run(workload, folder / f"run-{len(known)}")
        return known[overrides]

    return simulate


@pytest.mark.long
@pytest.mark.slow
def test_plain_runs_compare_like_a_study(simulate: Callable[..., Run], tmp_path: Path) -> None:
    runs = [simulate(f"algorithm.name={name}", f"seed={seed}") for name in ("single", "fedavg") for seed in (1, 2)]
    text = StringIO()
    compare_runs([one.path for one in runs], "single", tmp_path / "out", Console(file=text, width=120))
    table = pd.read_csv(tmp_path / "out" / "psnr.csv")
    scores = {name: [] for name in ("single", "fedavg")}
    for one in runs:
        test = one.evaluation.query("site == 'A'")
        scores[one.workload.algorithm.name].append(test.groupby("client")["psnr"].mean().mean())
    pairs = np.subtract(scores["fedavg"], scores["single"])
    found = row(table, "fedavg", "A")
    assert found["difference"] == pytest.approx(pairs.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 12.7062 * pairs.std(ddof=1) / np.sqrt(2), rel=1e-5)
    assert "not in the mean over sites: W" in " ".join(text.getvalue().split())
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".csv", ".md", ".tex"}


@pytest.mark.slow
def test_runs_of_one_method_are_told_apart_by_their_settings(simulate: Callable[..., Run]) -> None:
    runs = {str(beta): simulate(f"algorithm.beta={beta}") for beta in (0, 2)}
    assert set(results_of(runs)["method"]) == {"fedmri (algorithm.beta=0.0)", "fedmri (algorithm.beta=2.0)"}
    seeds = {str(seed): simulate(f"seed={seed}", "algorithm.name=fedavg") for seed in (1, 2)}
    assert set(results_of(seeds)["method"]) == {"fedavg"}


@pytest.mark.slow
def test_copies_of_one_trace_are_one_setting(simulate: Callable[..., Run], tmp_path: Path) -> None:
    for name, end in (("short.csv", 9), ("long.csv", 99)):
        (tmp_path / name).write_text(f"client,from_s,to_s\nW,0,{end}\n")
    timed = ("algorithm.name=fedavg", "time={latency_s: 1}")
    keys = [(f"seed={seed}", f"time.available.trace={tmp_path / 'short.csv'}") for seed in (1, 2)]
    runs = {str(at): simulate(*timed, *own) for at, own in enumerate(keys)}
    assert set(results_of(runs)["method"]) == {"fedavg"}
    other = simulate(*timed, "seed=1", f"time.available.trace={tmp_path / 'long.csv'}")
    assert len(set(results_of({**runs, "other": other})["method"])) == 2


@pytest.mark.slow
def test_settings_that_differ_beside_the_method_are_named(simulate: Callable[..., Run]) -> None:
    text, runs = StringIO(), (simulate("algorithm.name=fedavg"), simulate("training.lr=2e-3"))
    compare_runs([one.path for one in runs], None, None, Console(file=text, width=120))
    assert "PSNR by site [dB], and the difference to fedmri" in " ".join(text.getvalue().split())
    assert "the runs also differ in training.lr" in text.getvalue()


def on(device: str, one: Run, folder: Path, *changes: tuple[str, str]) -> Run:
    """A copy of a run, as if it had trained on a device."""
    copy = shutil.copytree(one.path, folder)
    one.clients.assign(device=device).to_parquet(copy / "clients.parquet")
    text = (copy / "workload.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (copy / "workload.yaml").write_text(text)
    return Run(copy)


@pytest.mark.slow
def test_fused_runs_and_other_devices_are_noted(simulate: Callable[..., Run], tmp_path: Path) -> None:
    one = simulate("algorithm.name=single")
    fused = on("cpu", one, tmp_path / "fused", ("fuse: 1", "fuse: 8"))
    assert set(results_of({"one": one, "fused": fused})["method"]) == {
        "single (training.fuse=1)",
        "single (training.fuse=8)",
    }
    assert other_differences([one, fused]) == ["training.fuse"]
    gpu = on("cuda", simulate("algorithm.name=fedavg"), tmp_path / "gpu")
    assert other_differences([one, gpu]) == ["device"]
    free = on("cuda", one, tmp_path / "free", ("deterministic: true", "deterministic: false"))
    assert other_differences([gpu, free]) == ["engine.deterministic"]
    cpu = on("cpu", one, tmp_path / "cpu", ("deterministic: true", "deterministic: false"))
    assert other_differences([one, cpu]) == [], "of no effect on a CPU"


@pytest.mark.slow
def test_tf32_is_float32_on_a_cpu(simulate: Callable[..., Run], tmp_path: Path) -> None:
    one, tf32 = simulate("algorithm.name=single"), ("precision: float32", "precision: tf32")
    check_comparable({"one": terms_of(one), "cpu": terms_of(on("cpu", one, tmp_path / "cpu", tf32))})
    gpu = terms_of(on("cuda", one, tmp_path / "gpu", tf32))
    with pytest.raises(InputError, match=r"^one and gpu: training.precision differs \(float32, tf32\)"):
        check_comparable({"one": terms_of(one), "gpu": gpu})


MIXES = [
    ("metrics.protocol=slice", "metrics.protocol differs (fastmri, slice)"),
    ("federation.normalise=max", "federation.normalise differs (std, max)"),
    ("federation.target=combined", "federation.target differs (rss, combined)"),
    ("training.precision=bfloat16", "training.precision differs (float32, bfloat16)"),
    ("federation.matrix=[48, 48]", "the matrix of site A differs (32 × 32, 48 × 48)"),
    (
        "federation.sites=[{name: C, source: {format: phantom, subjects: 12, slices: 2, size: 32}}]",
        "no site in common (A",
    ),
    ("federation.split={train: 0.5, val: 0, test: 0.5}", "the test split differs (site A, volume "),
    ("federation.sites.0.mask.acceleration=2", "the mask differs (site A, volume "),
    ("federation.sites.0.mask={kind: random, acceleration: 3}", "the mask differs (site A, volume "),
    ("federation.sites.0.mask.per=site", "differ"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("override", "message"), MIXES)
def test_mixes_are_refused(
    simulate: Callable[..., Run],
    override: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    one, two = simulate("algorithm.name=single"), simulate("algorithm.name=fedavg", override)
    arguments = ["fedsim", "compare", str(one.path), str(two.path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    capsys.readouterr()  # what making the workloads said
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    err = capsys.readouterr().err
    assert exit_.value.code == 2
    assert err.startswith(f"fedsim: {one.path} and {two.path}: ")
    assert message in err
    assert err.endswith("; such numbers cannot be compared\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_masks_of_one_acceleration_that_are_not_the_same_are_refused(simulate: Callable[..., Run]) -> None:
    """Only the zero-filled images can tell."""
    one, two = simulate("algorithm.name=single"), simulate("algorithm.name=fedavg")
    scores = two.evaluation
    changed = scores.assign(zf_psnr=scores["zf_psnr"] + 0.01 * (scores["site"] == "W"))
    try:
        changed.to_parquet(two.path / "evaluation.parquet", index=False)
        with pytest.raises(InputError, match="the zero-filled images differ \\(site W, "):
            results_of({"one": one, "two": two})
    finally:
        scores.to_parquet(two.path / "evaluation.parquet", index=False)


@pytest.mark.slow
def test_different_seeds_may_have_different_splits(simulate: Callable[..., Run]) -> None:
    results_of({"one": simulate("seed=1", "algorithm.name=fedavg"), "two": simulate("seed=2", "algorithm.name=single")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda paths: paths[:1], "needs two runs or more"),
        (lambda paths: [paths[0], paths[0]], "is named twice"),
        (lambda paths: [paths[0], paths[0].parent], "is not a run"),
    ],
)
def test_wrong_runs(
    simulate: Callable[..., Run], change: Callable[[list[Path]], list[Path]], message: str, tmp_path: Path
) -> None:
    paths = [simulate("algorithm.name=single").path]
    with pytest.raises(InputError, match=message):
        compare_runs(change(paths), None, None, Console(file=StringIO()))


@pytest.mark.slow
def test_the_same_run_twice_and_an_unknown_reference(
    simulate: Callable[..., Run], make_workload: Callable[..., Workload], tmp_path: Path
) -> None:
    one = simulate("algorithm.name=single")
    again = run(make_workload("training.rounds=1", "algorithm.name=single", "name=again"), tmp_path / "again")
    with pytest.raises(InputError, match="are the same method with the same settings and seed; leave one out"):
        results_of({"one": one, "again": again})
    runs = [one.path, simulate("algorithm.name=fedavg").path]
    with pytest.raises(InputError, match="--reference fedmri: must be one of single, fedavg"):
        compare_runs(runs, "fedmri", None, Console(file=StringIO()))
    (again.path / "evaluation.parquet").unlink()
    with pytest.raises(InputError, match="again: has no test scores of its best round; use `fedsim evaluate"):
        compare_runs([runs[1], again.path], None, None, Console(file=StringIO()))
