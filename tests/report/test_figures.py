from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from fedsim import Run
from fedsim.analysis.curves import accuracy_by_round
from fedsim.cli.tables import evaluation_table
from fedsim.report import figures
from fedsim.report.alignment import discriminator_accuracy
from fedsim.report.headline import headline_rows
from fedsim.report.panels import Panel, panels_of
from fedsim.report.quality_figure import MOST_BARS, quality

from .conftest import png, texts


@pytest.fixture(scope="module")
def panels(finished: Run) -> dict[str, Panel]:
    return {panel.site: panel for panel in panels_of(finished, 24)}


def crowd(clients: int) -> pd.DataFrame:
    rows = [
        {"round": round_, "client": f"C-{i:03d}", "loss": 1 / (i + round_), "psnr": 20 + i / 10, "ssim": 0.5}
        for round_ in (1, 2, 3)
        for i in range(clients)
    ]
    return pd.DataFrame(rows)


def test_a_panel_is_the_volume_that_was_evaluated(finished: Run, panels: dict[str, Panel]) -> None:
    panel = panels["A"]
    row = finished.evaluation.set_index("client").loc[panel.client]
    assert (panel.client, panel.part, panel.volume) == ("A.1", "test", row["volume"])
    assert panel.score["psnr"] == row["psnr"]
    assert panel.acceleration == finished.manifest.query("site == 'A' and split == 'test'")["acceleration"].iloc[0]
    assert panel.mask.shape == panel.target.shape == panel.reconstruction.shape == (32, 32)


@pytest.mark.slow
def test_a_site_without_test_data_says_so(panels: dict[str, Panel]) -> None:
    assert panels["B"].part == "val"
    assert "validation split: no test data" in texts(figures.site_panel(panels["B"]))
    assert "no test data" not in texts(figures.site_panel(panels["A"]))


def test_within_subject_is_stamped(panels: dict[str, Panel]) -> None:
    assert "WITHIN SUBJECT" in texts(figures.site_panel(panels["W"]))
    assert "WITHIN SUBJECT" not in texts(figures.site_panel(panels["A"]))


def test_only_the_first_sites_are_shown_and_unchanged(finished: Run, panels: dict[str, Panel]) -> None:
    (first,) = panels_of(finished, 1)
    assert first.client == panels["A"].client
    np.testing.assert_array_equal(first.reconstruction, panels["A"].reconstruction)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "W"])
def test_error_maps_share_a_scale_and_images_a_window(panels: dict[str, Panel], name: str) -> None:
    panel = panels[name]
    *images, mask, zero_filled, reconstruction = [
        image for axis in figures.site_panel(panel).axes for image in axis.images
    ][:6]
    assert {image.get_clim() for image in images} == {(0, np.percentile(panel.target, 99.5))}
    assert zero_filled.get_clim() == reconstruction.get_clim()
    assert mask.get_clim() == (0, 1)
    np.testing.assert_array_equal(mask.get_array(), panel.mask)


def test_panel_text_is_taken_literally(panels: dict[str, Panel]) -> None:
    assert png(figures.site_panel(replace(panels["A"], contrast="$\\frac{$ <b>")))  # mathematics that does not parse


@pytest.mark.slow
def test_a_figure_is_the_same_every_time(finished: Run, panels: dict[str, Panel]) -> None:
    for draw in (
        lambda: figures.learning_curves(finished.clients, 2),
        lambda: quality(finished.evaluation, ["A.1", "A.2", "B", "W"]),
        lambda: figures.time_and_bytes(finished.rounds, finished.clients),
        lambda: figures.site_panel(panels["A"]),
    ):
        assert png(draw()) == png(draw())


def test_png_has_a_readable_size(finished: Run) -> None:
    width, height = Image.open(BytesIO(png(figures.learning_curves(finished.clients, None)))).size
    assert 800 < width < 2000
    assert 250 < height < 1000


def test_clients_keep_their_colour(finished: Run) -> None:
    clients = list(finished.clients["client"].unique())
    lines = {
        line.get_label(): line.get_color() for line in figures.learning_curves(finished.clients, None).axes[0].lines
    }
    bars = quality(finished.evaluation, clients).axes[0].containers
    heights = next(c for c in bars[::-1] if hasattr(c, "patches"))
    colours = [to_hex(patch.get_facecolor()).upper() for patch in heights.patches]
    assert colours == [lines[name] for name in finished.evaluation["client"].unique()]


def test_many_clients_become_a_median_and_a_band() -> None:
    figure = figures.learning_curves(crowd(300), best=2)
    assert "median client" in texts(figure)
    assert "100 of 300 clients" in texts(figure)
    assert figure.axes[0].get_ylabel() == "training loss", "MSE or another: what training.loss says"
    assert len(figure.axes[0].lines) == 100 + 1 + 1  # the median and the mark of the best round


def test_cohorts_of_very_many_clients_need_no_table_of_all_rounds_and_clients() -> None:
    """Twenty new ones in each of two thousand rounds: such a table would have 80 million cells."""
    at = np.arange(40_000)
    values = np.sin(at)
    clients = pd.DataFrame({"round": at // 20 + 1, "client": [f"P-{i:07d}" for i in at], "psnr": values})
    axis = figures.learning_curves(clients.assign(loss=values, ssim=np.nan), None).axes[0]
    (median,) = (line for line in axis.lines if line.get_label() == "median client")
    assert np.asarray(median.get_ydata()) == pytest.approx(np.median(values.reshape(-1, 20), axis=1))


def test_twelve_clients_can_be_told_apart() -> None:
    figure = figures.learning_curves(crowd(figures.MOST_NAMED), best=None)
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == figures.MOST_NAMED


def test_what_was_not_measured_is_said() -> None:
    assert "not measured" in texts(figures.learning_curves(crowd(2).assign(psnr=np.nan), best=None))


def test_bars_of_many_clients_are_bars_of_sites(finished: Run) -> None:
    figure = quality(finished.evaluation, [f"C{i}" for i in range(20)])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["A", "W †"]
    assert "protocol fastmri" in figure.axes[0].get_ylabel()


def test_of_very_many_sites_the_distribution_is_drawn() -> None:
    rng = np.random.default_rng(1)
    names = [f"P-{i:04d}" for i in range(MOST_BARS + 1)]
    found = pd.DataFrame({"client": names, "site": names, "within_subject": False, "protocol": "fastmri"})
    for column, mean in (("psnr", 30), ("ssim", 0.8), ("zf_psnr", 25), ("zf_ssim", 0.7)):
        found[column] = mean + rng.normal(size=len(found))
    found.loc[0, "zf_psnr"] = np.nan
    axis, _ = (figure := quality(found.assign(ssim=np.nan), names)).axes
    lines = {line.get_label(): np.asarray(line.get_xdata())[1:] for line in axis.lines}
    assert lines.keys() == {"zero-filled, 64 sites", "reconstruction, 65 sites"}
    assert lines["reconstruction, 65 sites"] == pytest.approx(np.sort(found["psnr"]))
    assert "within subject" not in texts(figure)
    assert "1 of 65 sites within subject" in texts(quality(found.assign(within_subject=found.index == 3), names))
    assert quality(found[1:], names).axes[0].containers, "bars"


def test_bars_of_references_stand_beside_zero_filled_and_reconstruction(finished: Run) -> None:
    found = finished.evaluation
    found = found.assign(tv_psnr=found["zf_psnr"] + 1, tv_ssim=found["zf_ssim"], sense_psnr=np.nan, sense_ssim=np.nan)
    figure = quality(found, list(finished.clients["client"].unique()))
    assert [text.get_text() for text in figure.legends[0].texts[:2]] == ["zero-filled", "total variation"]
    bars = [container for container in figure.axes[0].containers if hasattr(container, "patches")]
    zero_filled, by_reference, _ = ([bar.get_height() for bar in own.patches] for own in bars)
    assert by_reference == pytest.approx([height + 1 for height in zero_filled])


def test_a_single_round_gets_a_bound_and_no_fractions_of_rounds() -> None:
    figure = figures.contrastive_ratio(pd.DataFrame({"ratio": [0.1], "bound": [0.25]}, index=[2]))
    figure.canvas.draw()
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    (bound,) = (line for line in figure.axes[0].lines if line.get_label() == "bound")
    assert np.asarray(bound.get_xydata()).tolist() == [[1.5, 0.25], [2.5, 0.25]]


def test_the_accuracy_of_discriminators_is_drawn_against_chance() -> None:
    clients = pd.DataFrame({"round": [1, 1, 2, 2], "discriminator_accuracy": [0.8, 0.6, 0.5, np.nan]})
    by_round = accuracy_by_round(clients)
    (axis,) = discriminator_accuracy(by_round).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert lines == {"discriminators": pytest.approx([0.7, 0.5]), "chance": [0.5, 0.5]}
    assert accuracy_by_round(clients[["round"]]).empty


def test_of_very_many_sites_the_first_are_listed_and_all_are_counted() -> None:
    scores = {f"{prefix}{name}": 0.5 for prefix in ("", "zf_") for name in ("nmse", "psnr", "ssim")}
    rows = [{"client": f"P-{i}", "site": f"P-{i}", "within_subject": False, **scores} for i in range(300)]
    frame = pd.DataFrame(rows).assign(split="test", round=1, protocol="fastmri", algorithm="fedavg")
    headline = headline_rows(frame)
    assert headline is not None
    assert (len(headline["rows"]), headline["count"], headline["mean"]["volumes"]) == (256, 300, 300)
    table = evaluation_table(frame)
    assert [*table.columns[0].cells][-2:] == ["and 260 more", "mean of sites"]
    assert len(table.rows) == 42
