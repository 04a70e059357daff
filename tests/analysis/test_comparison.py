"""Comparing: paired differences and intervals by hand, mixes that are refused, tables and figures from numbers."""

import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from fedsim.analysis.comparison import MEAN, ZERO_FILLED, by_seed, compare, holm, interval, results_of
from fedsim.cli import app as cli
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.report.compared import compare_runs
from fedsim.report.comparison_figures import comparison_figures, convergence, differences, scarcity
from fedsim.report.tables import markdown
from fedsim.report.wording import caption, sentences
from fedsim.workload.schema import Workload

METHODS = {"single": 0.0, "fedavg": 0.4, "fedmri": 0.7}
"""Gain in PSNR."""
DIFFERENCES = ("differences-psnr", "differences-ssim", "differences-nmse")


def results(
    seeds: int = 4, regimes: tuple[str, ...] = ("all",), within: tuple[str, ...] = (), noise: float = 0.1
) -> pd.DataFrame:
    """Rows like those of volumes.parquet: three sites, the first with two clients, two volumes each."""
    generator = np.random.default_rng(0)
    clients = {"A.1": "A", "A.2": "A", "B": "B", "C": "C"}
    rows = [
        {
            "regime": regime, "method": method, "seed": seed, "client": client, "site": site, "volume": volume,
            "subject": volume,
            "within_subject": site in within, "train_subjects": 1.0 + index,
            "psnr": 30 + seed + gain + generator.normal(0, noise), "ssim": 0.8 + 0.01 * gain, "nmse": 0.1 - 0.01 * gain,
            "zf_psnr": 25 + seed + ord(site), "zf_ssim": 0.6, "zf_nmse": 0.2,
        }
        for index, regime in enumerate(regimes)
        for method, gain in METHODS.items()
        for seed in range(seeds)
        for client, site in clients.items()
        for volume in ("one", "two")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def row(table: pd.DataFrame, method: str, site: str = MEAN, regime: str = "all") -> pd.Series:
    (found,) = (r for _, r in table.iterrows() if (r["method"], r["site"], r["regime"]) == (method, site, regime))
    return found


# Numbers


def test_a_site_is_the_mean_of_its_volumes_and_clients_and_the_mean_weights_sites_alike() -> None:
    frame = results()
    ours = frame[(frame["method"] == "fedavg") & (frame["seed"] == 2)]
    sites = {site: float(np.mean(ours.loc[ours["site"] == site, "psnr"])) for site in "ABC"}
    table = by_seed(frame)
    found = table[(table["method"] == "fedavg") & (table["seed"] == 2)].set_index("site")["psnr"]
    assert dict(found) == pytest.approx({**sites, MEAN: sum(sites.values()) / 3})


def test_zero_filled_is_one_more_method() -> None:
    table = compare(results(), "psnr", "fedmri")
    assert row(table, ZERO_FILLED, "A")["mean"] == pytest.approx(25 + 1.5 + ord("A"))


def test_paired_differences_are_scipys() -> None:
    frame = results()
    table = compare(frame, "psnr", "fedmri")
    numbers = by_seed(frame).query("site == @MEAN").pivot_table(index="seed", columns="method", values="psnr")
    test = ttest_rel(numbers["fedavg"], numbers["fedmri"])
    expected = test.confidence_interval(0.95)
    found = row(table, "fedavg")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["difference"] == pytest.approx((numbers["fedavg"] - numbers["fedmri"]).mean())
    assert found["difference_sd"] == pytest.approx((numbers["fedavg"] - numbers["fedmri"]).std())
    assert (found["mean"], found["sd"]) == pytest.approx((numbers["fedavg"].mean(), numbers["fedavg"].std()))


def test_an_interval_by_hand() -> None:
    """Of 1, 2, 3: mean 2, sd 1, half width 4.3027 / sqrt(3)."""
    assert interval([1, 2, 3]) == pytest.approx((3, 2, 1, 2 - 2.48414, 2 + 2.48414), abs=1e-5)


def test_pairing_takes_the_spread_between_seeds_away() -> None:
    """Seeds differ by 1 dB, the methods by 0.3 dB in each: paired, that shows; the spreads alone hide it."""
    found = row(compare(results(noise=0.01), "psnr", "fedmri"), "fedavg")
    assert found["sd"] > 1
    assert found["high"] < 0
    assert found["differs"]


@pytest.mark.parametrize(("seeds", "pairs"), [(1, 1), (2, 2)])
def test_one_seed_has_no_interval(seeds: int, pairs: int) -> None:
    table = compare(results(seeds), "psnr", "fedmri")
    found = row(table, "fedavg")
    assert found["pairs"] == pairs
    assert np.isnan(found["low"]) == (seeds == 1)
    if seeds == 1:
        assert not table["differs"].any()
        assert np.isnan(found["sd"])
        assert sentences(table, "psnr", "fedmri") == [
            "no method is shown to differ from fedmri (only 1 seed; at least 3 are needed)"
        ]
        assert "One seed: no spread, no interval and no test." in caption(table, "all")


def test_holm_by_hand() -> None:
    """Steps of 4, 3 and 2 times the smallest ones, never falling, never above 1; what was not tested does not count."""
    nan = float("nan")
    assert holm([0.02, 0.01, nan, 0.04, 0.8]) == pytest.approx([0.06, 0.04, nan, 0.08, 0.8], nan_ok=True)
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


def test_p_values_are_scipys_and_corrected_for_the_methods_of_a_regime() -> None:
    frame = results(regimes=("all", "few"))
    table = compare(frame, "psnr", "fedmri")
    numbers = by_seed(frame).query("site == @MEAN and regime == 'few'")
    numbers = numbers.pivot_table(index="seed", columns="method", values="psnr")
    p_values = [ttest_rel(numbers[method], numbers["fedmri"]).pvalue for method in ("fedavg", "single")]
    rows = [row(table, method, regime="few") for method in ("fedavg", "single")]
    assert [one["p"] for one in rows] == pytest.approx(p_values)
    assert [one["p_holm"] for one in rows] == pytest.approx(holm(p_values))
    assert {one["tests"] for one in rows} == {2}
    assert np.isnan(row(table, ZERO_FILLED)["p"])


def test_an_interval_without_zero_is_no_finding_among_many_methods() -> None:
    """Of 16 methods that all lie in their noise some exclude 0 by chance; none survives the correction."""
    generator = np.random.default_rng(5)
    one = results(seeds=3).query("method == 'fedmri'")
    others = [one.assign(method=f"m{n}", psnr=one["psnr"] + one["seed"].map(
        dict(enumerate(generator.normal(0, 0.1, 3))))) for n in range(16)]  # fmt: skip
    table = compare(pd.concat([one, *others]), "psnr", "fedmri")
    ours = table[(table["site"] == MEAN) & (table["p"] < 0.05)]
    assert len(ours)
    assert (ours["low"] * ours["high"] > 0).all()
    assert not table["differs"].any()
    assert (
        "no method is shown to differ from fedmri (p > 0.05 after Holm's correction for 16 comparisons)"
        in sentences(table, "psnr", "fedmri")
    )
    assert "*" not in _rows_of_methods(table)


def _rows_of_methods(table: pd.DataFrame) -> str:
    return "\n".join(line for line in markdown(table, "psnr", "fedmri").splitlines() if line.startswith("| m"))


@pytest.mark.parametrize(
    ("seeds", "sites", "reason"),
    [
        (1, "ABC", "only 1 seed; at least 3 are needed"),
        (2, "ABC", "only 2 seeds; at least 3 are needed"),
        (3, "AB", "only 4 test subjects; at least 5 are needed"),
        (9, "A", "only 2 test subjects; at least 5 are needed"),
    ],
)
def test_too_few_seeds_or_subjects_show_nothing(seeds: int, sites: str, reason: str) -> None:
    """However large and steady the difference is."""
    frame = results(seeds, noise=1e-4)
    table = compare(frame[frame["site"].isin(list(sites))], "psnr", "fedmri")
    assert not table["differs"].any()
    assert sentences(table, "psnr", "fedmri") == [f"no method is shown to differ from fedmri ({reason})"]
    text = markdown(table, "psnr", "fedmri")
    assert "*" not in text
    assert seeds == 1 or reason in text
    figure = differences(table, "psnr", "fedmri")
    assert (figure.axes[0].collections[-1].get_facecolors()[:, :3] == 1).all(), "all empty"
    assert seeds == 1 or reason in " ".join(figure.get_supxlabel().split())


def test_subjects_of_sites_that_are_not_in_the_mean_do_not_count() -> None:
    table = compare(results(within=("C",)), "psnr", "fedmri")
    assert row(table, "fedavg")["subjects"] == 4
    assert not row(table, "fedavg")["differs"]


def test_only_seeds_in_common_are_paired() -> None:
    frame = results()
    frame = frame[~((frame["method"] == "fedavg") & (frame["seed"] == 3))]
    table = compare(frame, "psnr", "fedmri")
    assert (row(table, "fedavg")["seeds"], row(table, "fedavg")["pairs"]) == (3, 3)
    assert row(table, "single")["pairs"] == 4
    assert "different numbers of seeds" in caption(table, "all")
    apart = frame[(frame["method"] != "fedavg") | (frame["seed"] == 0)]
    apart = apart[(apart["method"] != "fedmri") | (apart["seed"] != 0)]
    said = sentences(compare(apart, "psnr", "fedmri"), "psnr", "fedmri")
    assert "not shown to differ from fedmri (no seed in common): fedavg" in said


@pytest.mark.parametrize(("within", "counted"), [((), "ABC"), (("C",), "AB"), (("A", "B", "C"), "ABC")])
def test_within_subject_sites_are_stamped_and_left_out_of_the_mean(within: tuple[str, ...], counted: str) -> None:
    frame = results(within=within)
    table = compare(frame, "psnr", "fedmri")
    sites = [row(table, "fedavg", site)["mean"] for site in counted]
    assert row(table, "fedavg")["mean"] == pytest.approx(np.mean(sites))
    text = markdown(table, "psnr", "fedmri")
    assert text.count(" † |") == len(within)
    assert ("not in the mean over sites: C" in text) == (within == ("C",))
    assert ("All sites are within subject" in text) == (len(within) == 3)


# Words


def test_what_it_says() -> None:
    table = compare(results(noise=0.01), "psnr", "fedavg")
    found = row(table, "fedmri")
    assert sentences(table, "psnr", "fedavg") == [
        f"fedmri leads fedavg by {found['difference']:.2f} dB, 95 % CI "
        f"[{found['low']:.2f}, {found['high']:.2f}], 4 seeds, p < 0.001 after Holm's correction for 2 comparisons",
        f"fedavg leads single by {-row(table, 'single')['difference']:.2f} dB, 95 % CI "
        f"[{-row(table, 'single')['high']:.2f}, {-row(table, 'single')['low']:.2f}], 4 seeds, "
        "p < 0.001 after Holm's correction for 2 comparisons",
    ]
    assert sentences(compare(results(noise=3), "psnr", "fedavg"), "psnr", "fedavg") == [
        "no method is shown to differ from fedavg (p > 0.05 after Holm's correction for 2 comparisons)"
    ]


def test_lower_nmse_leads() -> None:
    frame = results()
    frame["nmse"] += frame["psnr"] * 1e-5
    (first, *_) = sentences(compare(frame, "nmse", "single"), "nmse", "single")
    assert first.startswith("fedmri leads single by ")


def test_markdown_has_a_row_a_method_best_first_and_a_column_a_site() -> None:
    lines = markdown(compare(results(noise=0.01), "psnr", "fedmri"), "psnr", "fedmri").splitlines()
    assert lines[2] == "| method | n | A | B | C | mean over sites | difference to fedmri | 95 % CI | p (Holm) |"
    assert [line.split(" | ")[0] for line in lines[4:8]] == ["| zero-filled", "| fedmri", "| fedavg", "| single"]
    assert lines[5].endswith("|  |  |  |"), "the reference differs from nothing"
    assert lines[6].split(" | ")[5].startswith("31.90 ± 1.29")


# Figures


def curves(regimes: tuple[str, ...] = ("all",)) -> pd.DataFrame:
    rows = [
        {
            "regime": regime, "method": method, "seed": seed, "round": round_, "psnr": 30 + gain * round_ + 0.1 * seed,
            "ssim": 0.8, "bytes": 0 if method == "single" else 2_000_000 * round_, "clients": 2,
        }
        for regime in regimes
        for method, gain in METHODS.items()
        for seed in range(3)
        for round_ in range(1, 5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_convergence_shows_means_over_seeds_by_round_and_by_bytes() -> None:
    by_round, by_bytes = convergence(curves(), "fedmri").axes
    lines = {line.get_label(): line for line in by_round.lines}
    assert set(lines) == set(METHODS)
    assert list(lines["fedavg"].get_ydata()) == pytest.approx([30.1 + 0.4 * n for n in (1, 2, 3, 4)])
    sent = {line.get_label(): line for line in by_bytes.lines}
    assert list(sent["fedavg"].get_xdata()) == [1, 2, 3, 4]
    assert lines["fedmri"].get_linewidth() > lines["fedavg"].get_linewidth()
    level = next(line for line in by_bytes.lines if line.get_label() not in METHODS)
    assert level.get_ydata()[0] == pytest.approx(30.1), "what single reaches, sending nothing"
    assert len(by_round.collections) == len(METHODS), "a band a method"


def test_scarcity_is_the_gain_over_training_alone() -> None:
    frame = results(regimes=("all", "few"))
    (axis,) = scarcity(frame, "fedmri").axes
    means = by_seed(frame).query("site == @MEAN").pivot_table(index=["regime", "seed"], columns="method", values="psnr")
    gain = (means["fedmri"] - means["single"]).groupby("regime").mean()
    line = next(bar for bar in axis.containers if bar.get_label() == "fedmri").lines[0]
    assert list(line.get_ydata()) == pytest.approx([gain["all"], gain["few"]])
    assert list(line.get_xdata()) == pytest.approx([1, 2], rel=0.02)


def test_differences_are_filled_where_they_are_shown() -> None:
    frame = results(noise=0.01)
    frame.loc[frame["method"] == "single", "psnr"] += 10 * np.sin(1 + frame["seed"])
    table = compare(frame, "psnr", "fedmri")
    (axis,) = differences(table, "psnr", "fedmri").axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    points = axis.collections[-1]
    faces = dict(zip(names, [tuple(face[:3]) for face in points.get_facecolors()], strict=True))
    assert (faces["fedavg"] == (1, 1, 1), faces["single"] == (1, 1, 1)) == (False, True)
    at = dict(zip(names, points.get_offsets()[:, 0], strict=True))
    assert at["fedavg"] == pytest.approx(row(table, "fedavg")["difference"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame", "names"),
    [
        (results(), {"convergence", *DIFFERENCES}),
        (results(1), {"convergence", *DIFFERENCES}),
        (results(regimes=("all", "few")), {"convergence", *DIFFERENCES, "scarcity"}),
        (results(regimes=("all", "few")).query("method != 'single'"), {"convergence", *DIFFERENCES}),
        (results().query("method == 'fedmri'"), {"convergence"}),
    ],
)
def test_figures_are_drawn_where_there_is_something_to_show(frame: pd.DataFrame, names: set[str]) -> None:
    tables = {quality: compare(frame, quality, "fedmri") for quality in ("psnr", "ssim", "nmse")}
    drawn = dict(comparison_figures(frame, curves(), tables, "fedmri"))
    assert set(drawn) == names
    for figure in drawn.values():
        figure.canvas.draw()


# Runs


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
def test_settings_that_differ_beside_the_method_are_named(simulate: Callable[..., Run]) -> None:
    text, runs = StringIO(), (simulate("algorithm.name=fedavg"), simulate("training.lr=2e-3"))
    compare_runs([one.path for one in runs], None, None, Console(file=text, width=120))
    assert "PSNR by site [dB], and the difference to fedmri" in " ".join(text.getvalue().split())
    assert "the runs also differ in training.lr" in text.getvalue()


MIXES = [
    ("metrics.protocol=slice", "metrics.protocol differs (fastmri, slice)"),
    ("federation.normalise=max", "federation.normalise differs (std, max)"),
    ("federation.matrix=[48, 48]", "the matrix of site A differs ([32, 32], [48, 48])"),
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
