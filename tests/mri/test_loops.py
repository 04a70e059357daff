"""Laws of the phantom's receive arrays, and what is found of them in its images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.source import Volume
from fedsim.mri.coils import combined, estimated_maps, normalised, rss
from fedsim.mri.espirit import espirit_maps
from fedsim.mri.fft import fft2c
from fedsim.mri.loops import Layout, ReceiveArray, receive_array


def array(seed: int = 0, coils: int = 8, layout: Layout = "ring", correlation: float = 0.3) -> ReceiveArray:
    return receive_array(np.random.default_rng(seed), coils, layout, correlation, slices=2, size=32)


def scanned(**keys: object) -> Volume:
    source = PhantomSource(subjects=1, slices=1, size=40, coils=4, **keys).resolve(0, "A")
    return next(source.volumes(Path()))


def images(volume: Volume) -> Tensor:
    """(coils, H, W) of its only slice."""
    return torch.from_numpy(volume.images[0])


@pytest.mark.parametrize("layout", ["ring", "helmet"])
def test_same_stream_same_array_another_stream_another(layout: Layout) -> None:
    np.testing.assert_array_equal(array(layout=layout).maps, array(layout=layout).maps)
    assert np.abs(array(1, layout=layout).maps - array(layout=layout).maps).max() > 0.1


def test_each_coil_sees_its_own_side_and_its_phase_varies() -> None:
    maps = array().maps[0]
    row, column = np.mgrid[-1:1:32j, -1:1:32j]
    energy = np.abs(maps) ** 2 * (np.hypot(row, column) < 0.9)
    angles = np.unwrap(np.arctan2((energy * row).sum((1, 2)), (energy * column).sum((1, 2))))
    np.testing.assert_allclose(np.abs(np.diff(angles)), 2 * np.pi / 8, atol=0.15)
    assert len({int(np.sign(step)) for step in np.diff(angles)}) == 1, "in the order of the ring"
    assert np.abs(np.angle(maps * maps[:, 16:17, 16:17].conj())).max() > 0.5


def test_sensitivities_are_smooth() -> None:
    maps = normalised(torch.from_numpy(array().maps)).numpy()
    inside = maps[..., 6:26, 6:26]
    assert max(np.abs(np.diff(inside, axis=axis)).max() for axis in (-2, -1)) < 0.15


@pytest.mark.parametrize("layout", ["ring", "helmet"])
@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_noise_has_the_given_correlation(layout: Layout, correlation: float) -> None:
    nothing, rng = np.zeros((32, 32), np.complex64), np.random.default_rng(3)
    seen = array(layout=layout, correlation=correlation)
    noise = np.concatenate([seen.receive(nothing, 0, 0.5, rng).reshape(8, -1) for _ in range(40)], axis=1)
    found = (noise @ noise.conj().T).real / noise.shape[1] / (2 * 0.5**2)
    np.testing.assert_allclose(found, seen.mixing @ seen.mixing.T, atol=0.02)
    off = found - np.eye(8)
    assert off.max() == pytest.approx(correlation, abs=0.02)
    assert off.min() < max(0.5 * correlation, 0.01)


def test_the_coils_see_one_object() -> None:
    """Without noise, weighting by the true sensitivities gives one image, seen through each of them."""
    volume = scanned(noise=0.0)
    assert volume.maps is not None
    maps = normalised(torch.from_numpy(volume.maps[0]))
    torch.testing.assert_close(maps * combined(images(volume), maps), images(volume), atol=1e-5, rtol=1e-4)


def by_espirit(kspace: Tensor) -> Tensor:
    return torch.from_numpy(espirit_maps(kspace.numpy()))


@pytest.mark.parametrize("method", [estimated_maps, by_espirit])
def test_sensitivities_are_found_in_the_images(method: Callable[[Tensor], Tensor]) -> None:
    volume = scanned(noise=0.005)
    assert volume.maps is not None
    found = method(fft2c(images(volume)))
    head = rss(images(volume)) > 0.25 * rss(images(volume)).amax()
    true = normalised(torch.from_numpy(volume.maps[0]))
    assert combined(true, found).abs()[head].quantile(0.05) > 0.98, "1 for equal maps of unit energy"
    energy = found.abs().square().sum(0)
    torch.testing.assert_close(energy[head], torch.ones_like(energy[head]), atol=1e-4, rtol=0)


def test_sites_differ_in_count_and_geometry_and_a_site_is_always_the_same() -> None:
    source = PhantomSource(subjects=2, slices=1, size=32, coils=(4, 12), noise_correlation=(0.1, 0.4))
    sites = [source.resolve(7, f"P-{number}") for number in range(8)]
    assert len({site.coils for site in sites}) > 3
    assert all(isinstance(site.coils, int) and 4 <= site.coils <= 12 for site in sites)
    assert sites[0] == source.resolve(7, "P-0")
    one, other = sites[0].volumes(Path())
    assert one.coils == sites[0].coils
    np.testing.assert_array_equal(one.maps, other.maps, err_msg="one scanner has one array")


def test_what_is_foreseen_says_the_coils() -> None:
    (foreseen,) = PhantomSource(subjects=1, slices=1, coils=5).resolve(0, "A").foreseen((32, 32))
    assert foreseen.coils == 5
    (plain,) = PhantomSource(subjects=1, slices=1).resolve(0, "A").foreseen((32, 32))
    assert plain.coils == 1
