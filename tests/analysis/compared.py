"""Rows of a comparison made from numbers, where no run is needed."""

import numpy as np
import pandas as pd

from fedsim.analysis.comparison import MEAN

METHODS = {"single": 0.0, "fedavg": 0.4, "fedmri": 0.7}
"""Gain in PSNR."""


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
