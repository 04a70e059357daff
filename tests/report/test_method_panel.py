from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fedsim import Run, run
from fedsim.analysis.latents import embed, latents, separation, vectors_of
from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble
from fedsim.report.latents import latent_figure
from fedsim.report.method_panel import collect, method_panels
from fedsim.workload.schema import Workload

from .conftest import png, texts


@pytest.fixture(scope="module")
def runs(
    finished: Run, make_workload: Callable[..., Workload], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    def other(method: str) -> Run:
        return run(make_workload(f"algorithm.name={method}"), tmp_path_factory.mktemp("panel") / "run")

    return {"FedMRI": finished, "SingleSet": other("single"), "pooled": other("centralised")}


def cells(figure: Figure, rows: int) -> list[list[object]]:
    """The images of the figure, row by row; colour bars left out."""
    images = [axis.images[0] for axis in figure.axes if axis.images]
    return [images[row * len(images) // rows :][: len(images) // rows] for row in range(rows)]


@pytest.mark.slow
def test_methods_are_shown_on_the_same_slice(runs: dict[str, Run]) -> None:
    panels = collect(runs, 4)
    assert [of_site[0].site for of_site in panels] == ["A", "B", "W"]
    for of_site in panels:
        assert [panel.client for panel in of_site][2] == "all"
        for panel in of_site[1:]:
            np.testing.assert_array_equal(panel.target, of_site[0].target)
            assert not np.array_equal(panel.reconstruction, of_site[0].reconstruction)


@pytest.mark.slow
def test_panel_has_a_row_of_images_and_one_of_errors_a_site(runs: dict[str, Run]) -> None:
    figure, panels = next(method_panels(runs)), collect(runs, 4)
    rows = cells(figure, 6)
    assert [len(row) for row in rows] == [5] * 6
    for index, of_site in enumerate(panels):
        above, below = rows[2 * index], rows[2 * index + 1]
        assert len({image.get_clim() for image in above}) == 1
        np.testing.assert_array_equal(below[0].get_array(), of_site[0].mask)
        assert len({image.get_clim() for image in below[1:]}) == 1
        shown = [of_site[0].target, of_site[0].zero_filled, *(panel.reconstruction for panel in of_site)]
        for image, expected in zip(above, shown, strict=True):
            np.testing.assert_array_equal(image.get_array(), expected)
    written = [text.get_text() for text in figure.findobj(Text)]
    bold = [text.get_text() for text in figure.findobj(Text) if text.get_fontweight() == "bold"]
    for of_site in panels:
        for name, form in (("psnr", "{:.2f} "), ("ssim", "/ {:.3f}")):
            scores = [panel.score[name] for panel in of_site]
            assert {form.format(score) for score in scores} <= set(written)
            assert form.format(max(scores)) in bold, "each number for itself"
            assert form.format(min(scores)) not in bold or len({form.format(score) for score in scores}) == 1
    for words in (*runs, "Ground truth", "Zero-filled", "WITHIN SUBJECT", "validation split", "protocol fastmri"):
        assert words in texts(figure)


@pytest.mark.slow
def test_panel_is_readable_and_not_blank(runs: dict[str, Run]) -> None:
    image = np.asarray(Image.open(BytesIO(png(next(method_panels(runs, 2))))).convert("RGB"))
    height, width, _ = image.shape
    assert width > 700
    assert height > 500
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500
    assert png(next(method_panels(runs, 1))) == png(next(method_panels(runs, 1)))


@pytest.mark.slow
def test_many_methods_are_spread_over_figures_on_one_scale(runs: dict[str, Run]) -> None:
    figures = list(method_panels(runs, most_sites=1, most_methods=2))
    rows = [cells(figure, 2) for figure in figures]
    assert [[len(row) for row in of] for of in rows] == [[4, 4], [3, 3]]
    assert rows[0][1][1].get_clim() == rows[1][1][1].get_clim()


def test_other_slices_are_refused(runs: dict[str, Run], make_workload: Callable[..., Workload]) -> None:
    other = Run(runs["SingleSet"].path)
    other.workload = make_workload("algorithm.name=single", "federation.sites.0.mask.acceleration=2")
    with pytest.raises(InputError, match="FedMRI and other do not show the same slices"):
        next(method_panels({"FedMRI": runs["FedMRI"], "other": other}))
    with pytest.raises(InputError, match="no run"):
        next(method_panels({}))


def test_latents_are_the_deployed_networks_features(runs: dict[str, Run]) -> None:
    trained = runs["FedMRI"]
    table = latents(trained)
    assert set(table.loc[table["site"] == "B", "split"]) == {"val"}
    assert set(table.loc[table["site"] != "B", "split"]) == {"test"}
    client = next(c for c in assemble(trained.workload).clients if c.name == "A.2")
    (batch,) = (batch for volume in client.data.volumes("test", 8) for batch in volume.batches)
    with torch.inference_mode():
        features = trained.model("A.2").with_latent(batch.kspace, batch.mask)[1]
    mine = table[table["client"] == "A.2"]
    np.testing.assert_allclose(vectors_of(mine), features.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-6)
    assert list(mine["index"]) == list(range(len(features)))
    assert set(table["round"]) == {trained.round("best")}


def test_latents_of_pooled_data_know_their_site(runs: dict[str, Run]) -> None:
    assert set(latents(runs["pooled"])["site"]) == {"A", "B", "W"}


@pytest.mark.slow
def test_latent_figure_is_the_same_every_time_and_not_blank(runs: dict[str, Run]) -> None:
    shown = {name: runs[name] for name in ("FedMRI", "SingleSet")}
    figure = latent_figure(shown)
    for words in ("FedMRI", "SingleSet", f"silhouette by site {separation(latents(runs['FedMRI'])):+.2f}", "A", "W"):
        assert words in texts(figure)
    assert png(figure) == png(latent_figure(shown))
    image = np.asarray(Image.open(BytesIO(png(figure))).convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


@pytest.mark.slow
def test_silhouette_tells_apart_from_mixed() -> None:
    draws = np.random.default_rng(0)
    noise = pd.DataFrame(draws.normal(size=(60, 4))).add_prefix("z")
    site = ["A", "B", "C"] * 20
    mixed = noise.assign(site=site)
    apart = (noise + 50 * np.array([[i % 3] for i in range(60)])).assign(site=site)
    assert separation(apart) > 0.9
    assert abs(separation(mixed)) < 0.1
    assert np.isnan(separation(mixed.assign(site="A")))
    points = embed(vectors_of(apart), 1)
    assert separation(pd.DataFrame(points).add_prefix("z").assign(site=site)) > 0.5
    np.testing.assert_array_equal(points, embed(vectors_of(apart), 1))


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5"):
        embed(np.zeros((4, 2), np.float32), 0)
