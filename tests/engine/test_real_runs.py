"""Whole runs on the real images, as the workload files say; minutes each (`make test-long`)."""

from pathlib import Path

import pandas as pd
import pytest

from fedsim import load_workload, run
from fedsim.engine.record.run_directory import Run

WORKLOADS = Path(__file__).parents[2] / "workloads"

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(3000)]


def simulate(name: str, root: Path, out: Path, *overrides: str) -> Run:
    return run(load_workload(WORKLOADS / f"{name}.yaml", [f"federation.root={root}", *overrides]), out)


def gains(run: Run) -> pd.Series:
    """PSNR above the zero-filled image [dB], mean over each client's test volumes."""
    frame = run.evaluation[run.evaluation["split"] == "test"]
    return (frame["psnr"] - frame["zf_psnr"]).groupby(frame["client"]).mean()


@pytest.mark.parametrize("domain", ["image", "dual"])
def test_four_hospitals_gain_over_zero_filled(real_data: Path, tmp_path: Path, domain: str) -> None:
    gain = gains(simulate("fedmri-tcga", real_data, tmp_path / "run", f"model.domain={domain}"))
    assert len(gain) == 4
    assert gain.mean() > 0
    assert gain.min() > -0.3


def test_nine_sites_train_together(real_data: Path, tmp_path: Path) -> None:
    result = simulate("fedmri-nine-sites", real_data, tmp_path / "run", "training.rounds=2")
    assert result.clients["site"].nunique() == 9
    assert set(result.manifest.loc[result.manifest["within_subject"], "site"]) == {
        "kidney-GE", "kidney-Philips", "kidney-Siemens", "knee",
    }  # fmt: skip
    assert set(gains(result).index) == set(result.clients["site"]) - {"heart"}


def test_unequal_sites_weighted_by_samples_keep_the_bound(real_data: Path, tmp_path: Path) -> None:
    result = simulate("fedmri-tcga", real_data, tmp_path / "run", "algorithm.weighting=samples", "training.rounds=3")
    clients = result.clients
    assert clients["weight"].nunique() > 1
    largest = clients.groupby("round")["weight"].max()
    assert (clients["contrastive_ratio"].dropna() <= largest.max()).all()


def test_the_quickstart_gains_at_every_site(tmp_path: Path) -> None:
    assert gains(run(load_workload(WORKLOADS / "quickstart.yaml"), tmp_path / "run")).min() > 2
