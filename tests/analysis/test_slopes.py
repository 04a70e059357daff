"""Slopes along an axis, against scipy's and statsmodels' lines, and their intervals over seeds by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, ttest_1samp

from fedsim.analysis.comparison import interval, p_value
from fedsim.analysis.slopes import away_from, exponents, per_decade, slopes

COUNTS = [4, 10, 100, 1000]


def table(noise: float = 0.05, seeds: int = 5) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    lines = np.log10(COUNTS)[:, None] * -0.3 + 25 + draw.normal(0, 1, seeds) + draw.normal(0, noise, (4, seeds))
    return pd.DataFrame(lines, index=COUNTS, columns=range(1, 1 + seeds))


def test_slopes_per_decade_and_their_interval_by_hand() -> None:
    found = per_decade(table())
    by_scipy = [linregress(np.log10(COUNTS), table()[seed]).slope for seed in table()]
    assert found.tolist() == pytest.approx(by_scipy)
    tested = ttest_1samp(by_scipy, 0)
    low, high = tested.confidence_interval(0.95)
    assert interval(found.tolist())[3:] == pytest.approx((low, high))
    assert p_value(interval(found.tolist())) == pytest.approx(tested.pvalue)


@pytest.mark.slow
def test_their_mean_is_the_slope_of_one_line_with_an_intercept_for_every_seed() -> None:
    import statsmodels.formula.api as formulas  # noqa: PLC0415 - takes a second

    rows = table().melt(ignore_index=False, var_name="seed", value_name="psnr").reset_index(names="clients")
    fit = formulas.ols("psnr ~ np.log10(clients) + C(seed)", rows, eval_env=0).fit()
    assert per_decade(table()).mean() == pytest.approx(fit.params["np.log10(clients)"])


def test_exponents_of_powers() -> None:
    powers = pd.DataFrame({1: [3 * count**0.97 for count in COUNTS], 2: [5.0] * 4}, index=COUNTS)
    assert exponents(powers).tolist() == pytest.approx([0.97, 0.0])
    assert exponents(powers.assign(**{"3": 0.0})).index.tolist() == [1, 2], "what sends nothing has no exponent"


def test_the_size_of_a_shift_is_a_distance() -> None:
    fields = pd.DataFrame({1: [0.1, 0.4, 0.6]}, index=[3.0, 1.5, 0.5])
    assert slopes(fields, away_from(3.0)).tolist() == pytest.approx([linregress([0, 1.5, 2.5], [0.1, 0.4, 0.6]).slope])
    assert slopes(fields, away_from(3.0))[1] > 0


def test_a_seed_without_all_values_and_two_values_have_no_slope() -> None:
    lacking = table()
    lacking.loc[10, 2] = np.nan
    assert list(per_decade(lacking).index) == [1, 3, 4, 5]
    assert per_decade(table().iloc[:2]).empty
