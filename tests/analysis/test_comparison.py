"""Comparing: sites, paired differences, intervals and corrections by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from fedsim.analysis.comparison import MEAN, by_seed, compare, holm, interval
from fedsim.mri.references import UNTRAINED, ZERO_FILLED
from fedsim.report.comparison_figures import differences
from fedsim.report.tables import markdown
from fedsim.report.wording import caption, sentences
from tests.analysis.compared import results, row


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


def test_a_reference_has_a_mean_over_sites_only_where_it_suits_all_of_them() -> None:
    """Several coils at A alone: CG-SENSE has numbers there, and total variation everywhere."""
    frame = results().assign(tv_psnr=27.0, tv_ssim=0.7, tv_nmse=0.1)
    frame = frame.assign(sense_psnr=np.where(frame["site"] == "A", 28.0, np.nan))
    table = compare(frame, "psnr", "fedmri")
    assert row(table, UNTRAINED["tv"])["mean"] == 27
    assert row(table, UNTRAINED["sense"], "A")["mean"] == 28
    assert set(table.loc[table["method"] == UNTRAINED["sense"], "site"]) == {"A"}


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


def test_holm_is_that_of_statsmodels() -> None:
    for size in (1, 2, 17):
        p_values = np.random.default_rng(size).uniform(size=size) ** 3
        assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


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
    everywhere = results()
    scored = everywhere[(everywhere["site"] != "A") | (everywhere["seed"] != 3)]
    assert "different numbers of seeds" not in caption(compare(scored, "psnr", "fedmri"), "all"), "of sites alone"
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
