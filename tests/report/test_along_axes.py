"""What studies say along an axis: gains against the size of a shift, and the law of client count."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import linregress, ttest_1samp

from fedsim.analysis.comparison import holm
from fedsim.report.ablation_figures import quality_by_axis
from fedsim.report.conclude import conclude
from fedsim.report.decades import of_decades
from fedsim.report.gains import gain_figures, gains, of_gains
from fedsim.report.kinds.ablation import AblationKind
from fedsim.report.kinds.base import Found
from fedsim.workload.reading import write_yaml
from tests.report.conftest import curve_of, point_of, volumes_of
from tests.report.test_study_figures import bars, points, ticks

MASK, CONTRAST = "federation.sites.1.mask.acceleration", "federation.sites.1.source.contrast"
BASE = {MASK: 4, CONTRAST: "t1"}
REGIMES = {
    "base": BASE,
    "acceleration-6": {MASK: 6, CONTRAST: "t1"},
    "acceleration-8": {MASK: 8, CONTRAST: "t1"},
    "contrast-t2": {MASK: 4, CONTRAST: "t2"},
    "contrast-flair": {MASK: 4, CONTRAST: "flair"},
}
PEOPLE = dict.fromkeys(("alone", "fedavg", "fedmri"), 12)


def one_at_a_time(seeds: int = 5) -> Found:
    """A study whose methods differ by 0.1 dB more for every unit of acceleration, and by 0.5 dB at another contrast."""
    draw = np.random.default_rng(2)
    rows = [
        {
            "regime": regime, "method": method, "algorithm": {"alone": "single"}.get(method, method), "seed": seed,
            "psnr": 30 + seed - values[MASK] + gain * (values[MASK] - 4 + 5 * (values[CONTRAST] != "t1") + 2) / 10
            + draw.normal(0, 0.02), "zf_psnr": 25.0, "ssim": 0.8, "zf_ssim": 0.6, "nmse": 0.1, "zf_nmse": 0.2, **values,
        }
        for seed in range(1, 1 + seeds)
        for regime, values in REGIMES.items()
        for method, gain in (("alone", -1), ("fedavg", 0), ("fedmri", 1))
    ]  # fmt: skip
    return Found(
        points=pd.DataFrame(rows), volumes=pd.DataFrame(), curves=pd.DataFrame(), by_quality={}, reference="fedavg",
        note="", base=BASE, alone="alone",
    )  # fmt: skip


def by_hand(found: Found, method: str, against: str) -> list[float]:
    """The slope of a gain against the distance from an acceleration of 4, seed by seed."""
    table = found.points.set_index(["method", "seed", MASK, CONTRAST])["psnr"]
    return [
        linregress([0, 2, 4], [table[method, s, a, "t1"] - table[against, s, a, "t1"] for a in (4, 6, 8)]).slope
        for s in found.points["seed"].unique()
    ]


def test_gains_are_told_along_each_axis_by_hand() -> None:
    found = one_at_a_time()
    said = list(of_gains(found, "psnr", PEOPLE))
    assert len(said) == 8, "two methods, two axes, over two others"
    slopes = {method: by_hand(found, method, "fedavg") for method in ("alone", "fedmri")}
    tested = {method: ttest_1samp(own, 0) for method, own in slopes.items()}
    low, high = tested["fedmri"].confidence_interval(0.95)
    assert holm([one.pvalue for one in tested.values()])[1] < 0.001
    means = found.points.groupby(["method", MASK])["psnr"].mean()
    apart = gains(found.points, "psnr", "fedavg").query("method == 'fedmri'")
    few, many = (apart.loc[apart["regime"] == name, "psnr"].mean() for name in ("base", "acceleration-8"))
    assert many == pytest.approx(means["fedmri", 8] - means["fedavg", 8])
    (line,) = (one for one in said if one.startswith(f"fedmri over fedavg along {MASK}: "))
    assert line == (
        f"fedmri over fedavg along {MASK}: {few:+.2f} dB at 4, {many:+.2f} dB at 8; per unit away from 4: "
        f"{np.mean(slopes['fedmri']):+.2f} dB, 95 % CI [{low:+.2f}, {high:+.2f}], 5 seeds, p < 0.001 after Holm's "
        "correction for 8 comparisons"
    )
    (other,) = (one for one in said if one.startswith(f"fedmri over alone along {CONTRAST}: "))
    assert "+0.39 dB at t1, +1.40 dB at flair; change: +1.01 dB, 95 % CI [" in other
    nothing = one_at_a_time(seeds=2)
    assert all("not shown: only 2 seeds; at least 3 are needed" in one for one in of_gains(nothing, "psnr", PEOPLE))


def test_a_gain_in_nmse_is_how_much_lower_it_is() -> None:
    found = one_at_a_time()
    lower = found.points.assign(nmse=found.points["method"].map({"alone": 0.3, "fedavg": 0.2, "fedmri": 0.1}))
    assert gains(lower, "nmse", "fedavg").groupby("method")["nmse"].first().to_dict() == pytest.approx(
        {"alone": -0.1, "fedmri": 0.1}
    )


def test_only_one_axis_moves_in_a_panel() -> None:
    found = one_at_a_time()
    figures = dict(gain_figures(found))
    assert [name for name in figures if name.endswith("psnr")] == ["gain-over-fedavg-psnr", "gain-over-alone-psnr"]
    mask, contrast = figures["gain-over-fedavg-psnr"].axes
    assert (ticks(mask), ticks(contrast)) == (["4", "6", "8"], ["t1", "t2", "flair"])
    drawn = bars(mask)["fedmri"].lines[0].get_ydata()
    assert list(drawn) == pytest.approx([0.2, 0.4, 0.6], abs=0.03), "not raised by the other contrasts"
    plain = bars(quality_by_axis(found.points, "psnr", "fedavg", BASE).axes[0])["fedavg"].lines[0].get_ydata()
    assert list(plain) == pytest.approx([29, 27, 25], abs=0.03)
    together = Found(**{**vars(found), "base": {}})
    assert list(gain_figures(together)) == []


def test_a_single_method_has_its_best_and_its_worst_value() -> None:
    found = one_at_a_time()
    own = Found(**{**vars(found), "points": found.points.query("method == 'fedavg'"), "alone": ""})
    table = pd.DataFrame([{"site": "mean over sites", "method": "fedavg", "subjects": 12}])
    said = list(AblationKind().findings(Found(**{**vars(own), "by_quality": {"psnr": table}}), "psnr"))
    assert said[0].startswith(f"fedavg: {MASK} has its best mean at 4 (29.0")
    assert "against 8: +4.0" in said[0]


def test_a_table_of_many_axes_names_regimes() -> None:
    frame = one_at_a_time().points
    assert AblationKind().axes(frame) == [MASK, CONTRAST]
    numbers, alone = range(len(frame)), {"training.lr": 1.0, "model.channels": 8}
    assert AblationKind().axes(frame.assign(**alone)) == [MASK, CONTRAST], "of the others only the base has been run"
    assert AblationKind().axes(frame.assign(**{"training.lr": numbers, "model.channels": numbers})) == ["regime"]


def test_the_law_of_client_count_by_hand(made_study: Callable[..., Path]) -> None:
    frame = points(made_study("client-count"))
    draw = np.random.default_rng(5)
    frame = frame.assign(psnr=frame["psnr"] + draw.normal(0, 0.01, len(frame)))
    said = list(of_decades(frame, "psnr", "fedmri", dict.fromkeys(("fedavg", "fedmri"), 12)))
    table = frame.set_index(["method", "seed", "clients"])["psnr"]
    decades = np.log10([4, 16, 64])
    slopes = {
        method: [linregress(decades, [table[method, s, n] for n in (4, 16, 64)]).slope for s in (1, 2, 3)]
        for method in ("fedavg", "fedmri")
    }
    apart = np.subtract(slopes["fedavg"], slopes["fedmri"])
    told = ["fedavg, per tenfold N: ", "fedmri, per tenfold N: ", "fedavg − fedmri, per tenfold N: "]
    for line, begin, own in zip(said, told, (*slopes.values(), apart), strict=False):
        low, high = ttest_1samp(own, 0).confidence_interval(0.95)
        assert line.startswith(f"{begin}{np.mean(own):+.2f} dB, 95 % CI [{low:+.2f}, {high:+.2f}], 3 seeds, ")
    assert said[2].endswith(f"p {ttest_1samp(apart, 0).pvalue:.3f} after Holm's correction for 1 comparison")
    costs = [line for line in said if ", growth with N: " in line]
    assert costs[0].startswith("fedavg, growth with N: time of a round as N^1.00 (95 % CI [1.00, 1.00]), ")
    assert "bytes per client per round as N^0.00 (95 % CI [0.00, 0.00]), " in costs[0]
    memory = linregress(decades, np.log10([200 + 3 * count for count in (4, 16, 64)])).slope
    assert f"memory as N^{memory:.2f} (" in costs[0]
    for fewer in (frame.query("clients != 16"), frame.assign(clients=frame["clients"].replace(64, 32))):
        assert list(of_decades(fewer, "psnr", "fedmri", {"fedavg": 12, "fedmri": 12})) == [], (
            "two numbers, or less than a decade"
        )


@pytest.mark.slow
def test_a_study_of_one_axis_at_a_time_is_told_from_its_tables(tmp_path: Path) -> None:
    found = one_at_a_time()
    rows = [
        {**point_of("ablation", "beta-0.0_norm-instance", "fedmri", row["seed"]), **row}
        for row in found.points.to_dict("records")
    ]
    tables = {"results": pd.DataFrame(rows).drop(columns=["algorithm.beta", "model.norm"]),
              "volumes": pd.DataFrame([one for row in rows for one in volumes_of(row)]),
              "curves": pd.DataFrame([one for row in rows for one in curve_of(row)])}  # fmt: skip
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    mask = {"kind": "equispaced", "acceleration": 4}
    sites = [{"name": name, "source": {"format": "phantom", "subjects": 4}, "mask": mask} for name in ("A", "B")]
    axes = {MASK: [4, 6, 8], CONTRAST: ["t1", "t2", "flair"]}
    methods = {"alone": {"algorithm.name": "single"}, "fedavg": {}, "fedmri": {}}
    study = {"name": "axes", "kind": "ablation", "vary": "one", "workload": "base.yaml", "seeds": [1, 2, 3, 4, 5],
             "methods": methods, "reference": "fedavg", "axes": axes}  # fmt: skip
    (tmp_path / "base.yaml").write_text(write_yaml({"name": "base", "federation": {"sites": sites}}))
    (tmp_path / "study.yaml").write_text(write_yaml(study))
    text = StringIO()
    conclude(tmp_path, Console(file=text, width=160))
    assert f"fedmri over alone along {CONTRAST}: +0.39 dB at t1, +1.40 dB at flair" in text.getvalue()
    assert (tmp_path / "figures" / "gain-over-alone-psnr.png").exists()
    page = (tmp_path / "report.html").read_text()
    assert "Gain over fedavg: PSNR [dB]" in page
    assert "curves are NOT flat at the end in 15 of 15" in page
