"""Tests over patients: pairing by subject, and scipy's numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from fedsim.analysis.comparison import MEAN, compare, holm
from fedsim.analysis.endpoint import judged
from fedsim.analysis.patients import differences_by_patient, signed_rank
from fedsim.mri.references import ZERO_FILLED
from fedsim.report.compared import summary
from fedsim.report.tables import markdown
from fedsim.report.wording import P_SUBJECTS, caption, sentences
from tests.analysis.compared import results, row


def many(subjects: int = 4, seeds: int = 2, **keys: object) -> pd.DataFrame:
    """The made results with more subjects: every volume becomes several people's, who differ."""
    generator = np.random.default_rng(3)
    frames = [results(seeds, **keys).query("volume == 'one'") for _ in range(subjects)]  # type: ignore[arg-type]
    return pd.concat(
        [
            frame.assign(subject=f"s{n}", volume=f"v{n}", psnr=frame["psnr"] + generator.normal(0, 0.05, len(frame)))
            for n, frame in enumerate(frames)
        ],
        ignore_index=True,
    )


def of_subject(apart: pd.DataFrame, subject: str) -> pd.DataFrame:
    return apart[apart["subject"] == subject]


def test_a_subjects_difference_is_between_means_of_one_seed_and_then_a_mean_over_seeds() -> None:
    frame = many()
    found = of_subject(differences_by_patient(frame, "psnr", "fedmri"), "s1").set_index("site")["single"]["A"]
    by_hand = []
    for seed in (0, 1):
        own = frame[(frame["seed"] == seed) & (frame["site"] == "A") & (frame["subject"] == "s1")]
        means = own.groupby("method")["psnr"].mean()
        by_hand.append(means["single"] - means["fedmri"])
    assert found == pytest.approx(np.mean(by_hand))


def test_a_subject_is_paired_within_a_seed_alone() -> None:
    """Tested under one seed by the reference and under the other by the method: there is no pair."""
    frame = many()
    gone = (frame["subject"] == "s0") & (
        ((frame["method"] == "single") & (frame["seed"] == 0)) | ((frame["method"] == "fedmri") & (frame["seed"] == 1))
    )
    assert of_subject(differences_by_patient(frame[~gone], "psnr", "fedmri"), "s0")["single"].isna().all()
    assert row(compare(frame[~gone], "psnr", "fedmri"), "single")["patients"] == 9
    assert row(compare(frame, "psnr", "fedmri"), "single")["patients"] == 12


def test_p_values_are_scipys_and_corrected_for_the_methods_of_a_regime() -> None:
    frame = many(seeds=3, noise=0.5)
    table, apart = compare(frame, "psnr", "fedmri"), differences_by_patient(frame, "psnr", "fedmri")
    expected = {method: wilcoxon(apart[method]).pvalue for method in ("single", "fedavg")}
    rows = {method: row(table, method) for method in expected}
    assert {method: one["patient_p"] for method, one in rows.items()} == pytest.approx(expected)
    assert [one["patient_p_holm"] for one in rows.values()] == pytest.approx(holm(list(expected.values())))
    assert rows["single"]["patient_median"] == pytest.approx(np.median(apart["single"]))
    assert np.isnan([row(table, name)["patient_p"] for name in (ZERO_FILLED, "fedmri")]).all()
    assert np.isnan(row(table, "single", "A")["patient_p"]), "four subjects at a site are too few"


def test_equal_names_under_two_seeds_are_two_people_where_the_seed_draws_them() -> None:
    """Sites A and B are phantoms; at C the seeds share their subjects."""
    frame = many(seeds=3, noise=0.5)
    drawn = frame.assign(drawn=frame["site"] != "C")
    apart, same = (differences_by_patient(one, "psnr", "fedmri") for one in (drawn, frame))
    assert dict(apart.groupby("site").size()) == {"A": 12, "B": 12, "C": 4}
    assert dict(same.groupby("site").size()) == {"A": 4, "B": 4, "C": 4}
    pd.testing.assert_frame_equal(*(one[one["site"] == "C"].reset_index(drop=True) for one in (apart, same)))
    means = drawn[(drawn["site"] == "A") & (drawn["subject"] == "s1")].groupby(["seed", "method"])["psnr"].mean()
    by_seed = means.unstack()["single"] - means.unstack()["fedmri"]
    ours = apart[(apart["site"] == "A") & apart["subject"].str.startswith("s1")]
    assert ours["single"].tolist() == pytest.approx(by_seed.tolist())
    table = compare(drawn, "psnr", "fedmri")
    for site, people in ((MEAN, 28), ("A", 12), ("C", 4)):
        assert row(table, "single", site)[["patients", "subjects"]].tolist() == [people, people]
    found = judged(drawn, "psnr", "fedmri", 0.2).set_index("method")
    assert found.loc["single", "patients"] == 28
    assert found.loc["single", "p"] == pytest.approx(wilcoxon(apart["single"]).pvalue)
    assert "not over patients. At 2 of 3 sites every seed draws other subjects." in caption(table, "all")


def test_a_site_within_subject_does_not_count() -> None:
    assert row(compare(many(within=("C",)), "psnr", "fedmri"), "single", MEAN)["patients"] == 8


def test_signed_ranks_by_hand() -> None:
    """All five of one sign: 2 of 2^5 arrangements; rank sums of 1 and 14 or less: 2 x 2 of them."""
    assert signed_rank([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert signed_rank([-1, 2, 3, 4, 5]) == pytest.approx(4 / 32)
    assert signed_rank([0.0] * 6) == 1
    assert np.isnan(signed_rank([1, 2, 3, 4]))


def test_one_seed_can_show_a_difference_over_patients_and_says_which_test_it_was() -> None:
    table = compare(many(seeds=1), "psnr", "fedmri")
    first, *others = sentences(table, "psnr", "fedmri")
    assert first == "no method is shown to differ from fedmri (only 1 seed; at least 3 are needed)"
    assert others[0].startswith("over 12 test subjects, fedmri leads ")
    assert "Wilcoxon's signed-rank test" in others[0]
    assert P_SUBJECTS in caption(table, "all")
    assert P_SUBJECTS in markdown(table, "psnr", "fedmri")
    tables = dict.fromkeys(("psnr", "ssim", "nmse"), table)
    assert P_SUBJECTS in [str(column.header) for column in summary(tables, "all", "fedmri").columns]
