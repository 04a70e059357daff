"""What training did, in words: nothing is called flat, oscillating or aligned that is not."""

import pandas as pd
import pytest

from fedsim.analysis.endpoint import judged
from fedsim.report.endpoint import Judgement
from fedsim.report.training_told import discriminators, flatness, oscillation, training_told
from tests.analysis.test_curves import ALTERNATING, NAN, STEADY, curve
from tests.analysis.test_endpoint import volumes

SWINGING = [24.0, 25.0, 25.7, 25.1, 25.9, 25.2, 26.0, 25.2]
SMOOTH = [24.0, 25.0, 25.4, 25.6, 25.7, 25.75, 25.77, 25.78]


def test_flat_curves_and_others() -> None:
    flat = curve("fedavg", [20, 24, 24.5, 24.6, 24.62])
    rising = curve("fedmri", [20, 21, 22, 23, 24])
    assert list(flatness(flat)) == [
        "curves are flat at the end: in the last fifth of the rounds the best validation PSNR rises by less than "
        "0.05 dB everywhere (most: +0.02 dB)"
    ]
    assert list(flatness(pd.concat([flat, rising]))) == [
        "curves are NOT flat at the end in 1 of 2: in the last fifth of the rounds the best validation PSNR rises by "
        "0.05 dB or more in fedmri (+1.00 dB)"
    ]
    (said,) = flatness(pd.concat([flat, rising, rising.assign(regime="few")]))
    assert said.endswith("in all/fedmri (+1.00 dB), few/fedmri (+1.00 dB)")
    many = pd.concat([curve(f"m{number}", [20, 21, 22, 23, 24]) for number in range(10)])
    assert next(flatness(many)).endswith("m7 (+1.00 dB) and 2 others")
    unscored = curve("single", [NAN, 24, NAN, 25, NAN])
    assert list(flatness(unscored)) == [
        "whether curves are flat is not known in 1 of 1: too few rounds were scored",
    ]
    assert len(list(flatness(pd.concat([flat, unscored])))) == 2


def test_an_oscillation_and_its_removal() -> None:
    runs = [
        curve("no-term", SMOOTH),
        *(curve("published", SWINGING, ALTERNATING, seed=seed) for seed in (1, 2)),
        *(curve("damped", SMOOTH, STEADY, seed=seed) for seed in (1, 2)),
    ]
    published, damped = oscillation(pd.concat(runs), "no-term")
    assert published == (
        "published: the term oscillates: the ratio alternates in 2 of 2 runs and lies above 0.9 of its bound in 3.0 of "
        "7 rounds; validation PSNR lies 0.73 dB off the mean of its neighbouring rounds (no-term: 0.04 dB); these "
        "deviations correlate with those of the ratio by +1.00"
    )
    assert damped.startswith(
        "damped: the term does not oscillate: the ratio alternates in 0 of 2 runs and lies above 0.9 of its bound in "
        "0.0 of 7 rounds; "
    )
    some = pd.concat([curve("published", SWINGING, ALTERNATING), curve("published", SMOOTH, STEADY, seed=2)])
    assert next(oscillation(some, "no-term")).startswith("published: the term oscillates in some runs: ")
    assert list(oscillation(curve("fedavg", SMOOTH), "fedavg")) == []


def test_discriminators_are_told_at_first_at_best_and_at_last() -> None:
    def of(accuracy: list[float], seed: int) -> pd.DataFrame:
        return curve("aligned", SMOOTH[:4], seed=seed).assign(discriminator_accuracy=accuracy)

    runs = pd.concat([of([0.5, 0.8, 0.7, 0.5], 1), of([0.52, 0.9, 0.6, 0.54], 2), curve("fedavg", SMOOTH[:4])])
    assert list(discriminators(runs)) == [
        "aligned: discriminators tell sites apart with accuracy 0.51 in round 1, at most 0.85 in round 2, 0.52 in "
        "round 4 (chance 0.50; mean over clients and 2 runs)"
    ]
    assert training_told(curve("fedavg", SMOOTH), "fedavg") == list(flatness(curve("fedavg", SMOOTH)))


@pytest.mark.slow
def test_verdicts_by_regime_against_scipy_and_statsmodels() -> None:
    """The words follow from Wilcoxon's p and two one-sided t tests, computed here, in each regime."""
    from scipy.stats import wilcoxon  # noqa: PLC0415
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415 - takes a second
    from statsmodels.stats.weightstats import ttost_paired  # noqa: PLC0415

    frame, margin = volumes(patient=0.05, regimes=("slow", "fast")), 0.2
    swapped = {"ditto": "single", "single": "ditto"}  # in one regime it helps, in the other it harms
    frame.loc[frame["regime"] == "fast", "method"] = frame.loc[frame["regime"] == "fast", "method"].replace(swapped)
    shown = Judgement(
        metric="psnr", margin=margin, reference="fedmri", table=judged(frame, "psnr", "fedmri", margin),
        floors=pd.DataFrame(), alone="",
    )  # fmt: skip
    people = frame.groupby(["regime", "method", "site", "subject"])["psnr"].mean()
    cases = [(regime, method) for regime in ("slow", "fast") for method in ("single", "fedavg", "ditto")]
    own, theirs = ([people[regime, name] for regime, name in of] for of in (cases, [(r, "fedmri") for r, _ in cases]))
    apart = [one - other for one, other in zip(own, theirs, strict=True)]
    differs = multipletests([wilcoxon(one).pvalue for one in apart], method="holm")[0]
    alike = multipletests(
        [ttost_paired(one, other, -margin, margin)[0] for one, other in zip(own, theirs, strict=True)], method="holm"
    )[0]
    by_hand = {
        case: "within the margin" if same else ("helps" if one.mean() > 0 else "harms") if other else "not shown"
        for case, one, other, same in zip(cases, apart, differs, alike, strict=True)
    }
    assert {by_hand[regime, "ditto"] for regime in ("slow", "fast")} == {"helps", "harms"}
    for line in shown.verdicts():
        method, _, rest = line.partition(" against fedmri (margin 0.2 dB): ")
        said = {part.rpartition(" in ")[0] and part for part in rest.split("; ")}
        for regime in ("slow", "fast"):
            word = by_hand[regime, method]
            (part,) = (one for one in said if one.startswith(f"{word} in "))
            assert regime in part, (line, by_hand)
    assert next(shown.verdicts()) == (
        "single against fedmri (margin 0.2 dB): helps in 1 of 2 (fast); harms in 1 of 2 (slow); within the margin in "
        "none of 2; not shown in none of 2"
    )
