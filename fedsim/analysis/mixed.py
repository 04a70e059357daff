"""The mean over sites of differences between two methods: site a fixed effect, patient a random one.

Patients of one site are alike, so a site is a fixed effect; the study's sites are all there are. Differences of one
patient under several seeds are alike, too, so a patient is a random effect, and not each of them a patient:

    difference[patient, seed] = mean[site of the patient] + deviation[patient] + rest[patient, seed]

What is estimated is the mean over sites of mean[site], by restricted maximum likelihood (Laird and Ware, Biometrics
38:963, 1982). Its interval is Student's t with as many degrees of freedom as there are patients less sites: with the
same number of seeds for every patient it is exactly the one from the patients' means.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

_NO_REST = 1e-9  # of the largest difference: what rounding leaves
_HARDLY = 0.01  # standard deviation over one patient's seeds, of that over all rows


class Estimate(NamedTuple):
    """The mean over sites, in the quality's unit, with its interval; NaN where there are too few patients for one."""

    mean: float
    low: float
    high: float
    freedom: int
    """Degrees of freedom: patients less sites."""


def mean_over_sites(differences: pd.DataFrame, confidence: float) -> Estimate:
    """The mean over sites and its interval.

    Args:
        differences: One row per patient and seed: site, subject, difference.
        confidence: Level of the interval.
    """
    patients = differences["site"] + "/" + differences["subject"]
    sites = pd.get_dummies(differences["site"], dtype=float)
    freedom = int(patients.nunique()) - sites.shape[1]
    found = differences["difference"]
    means = found.groupby(differences["site"]).mean()
    mean = float(means.mean()) if len(means) else np.nan
    if freedom < 1:
        return Estimate(mean, np.nan, np.nan, freedom)
    rest = (found - differences["site"].map(means)).abs().max()
    if rest <= _NO_REST * found.abs().max():
        return Estimate(mean, mean, mean, freedom)
    scale = float(found.std())
    effects, covariance = _fitted(found / scale, sites, patients)
    weights = np.full(len(effects), 1 / len(effects))
    mean, error = float(weights @ effects) * scale, float(np.sqrt(weights @ covariance @ weights)) * scale
    half = float(student.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, freedom)


def _fitted(
    found: "pd.Series[float]", sites: pd.DataFrame, patients: "pd.Series[str]"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sites' means (sites,) and their covariance (sites, sites).

    By least squares over the patients' means where the seeds of one patient hardly differ, or each has only one: then
    the two agree, and the mixed model, whose rest has no variance, would give a wrong one or none.
    """
    # takes a second, and few commands need it
    from statsmodels.regression.linear_model import OLS  # noqa: PLC0415
    from statsmodels.regression.mixed_linear_model import MixedLM  # noqa: PLC0415

    rest = found - found.groupby(patients).transform("mean")
    if rest.std() > _HARDLY * found.std():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a deviation of 0: then the rest is all there is
            fit = MixedLM(found.to_numpy(), sites.to_numpy(), groups=patients.to_numpy()).fit(reml=True)
            effects, covariance = np.asarray(fit.fe_params), np.asarray(fit.cov_params())
        size = sites.shape[1]
        if fit.converged and np.isfinite(covariance[:size, :size]).all():
            return effects, covariance[:size, :size]
    simple = OLS(found.groupby(patients).mean().to_numpy(), sites.groupby(patients).mean().to_numpy()).fit()
    return simple.params, simple.cov_params()
