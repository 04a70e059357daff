"""Synthetic phase of magnitude images."""

from pathlib import Path

import numpy as np
import torch

from fedsim.data.shard import Shard, ensure_shard
from fedsim.mri.fft import ifft2c

from .arrays import Arrays


def test_magnitudes_stay_and_phase_is_smooth_and_repeatable(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(1, 9, (3, 24, 32)).astype(np.float32)
    for name in ("a", "b"):
        (tmp_path / "site").mkdir(exist_ok=True)
        np.save(tmp_path / "site" / f"{name}.npy", images)

    def read(seed: int = 0, site: str = "A", synthetic: bool = True, cache: str = "cache") -> dict[str, np.ndarray]:
        source = Arrays(path="site", synthetic_phase=synthetic).resolve(seed, site)
        with Shard(ensure_shard(source, tmp_path, tmp_path / cache, "native")) as shard:
            assert {volume.phase for volume in shard.volumes()} == {synthetic}
            return {n: ifft2c(torch.from_numpy(shard.kspace(n, slice(None)))).numpy() for n in ("a", "b")}

    found, again, plain = read(), read(cache="another"), read(synthetic=False)
    np.testing.assert_array_equal(found["a"], again["a"])
    np.testing.assert_allclose(np.abs(found["a"]), images, rtol=1e-4)
    np.testing.assert_allclose(plain["a"], images, atol=1e-4)
    phase = np.angle(found["a"])
    assert phase.std() > 0.2
    assert np.abs(np.angle(found["a"][:, 1:] * found["a"][:, :-1].conj())).max() < 0.5
    for other in (found["b"], read(seed=1)["a"], read(site="B")["a"]):
        assert np.abs(np.angle(found["a"] * other.conj())).max() > 0.2, "each seed, site and volume has its own"
