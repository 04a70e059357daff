"""ISMRMRD files, written with the ismrmrd package: how readouts become k-space."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.data.formats.mrd import MRD
from fedsim.data.kspace import is_undersampled, measured
from fedsim.data.left_out import noting

from .raw_files import MRDWriter, coil_images, mrd, transformed
from .test_raw_formats import magnitude

NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE, NAVIGATOR = 19, 20, 21, 22, 23
IMAGES = coil_images(1)
KSPACE = transformed(IMAGES)[0]  # (coils, 24 samples, 20 lines)


def writer(root: Path, shape: tuple[int, int, int] = (24, 20, 1), **header: Any) -> MRDWriter:
    return MRDWriter(root / "site" / "a.h5", shape, **header)


def read(root: Path, **keys: Any) -> list[NDArray[Any]]:
    return [magnitude(volume.images) for volume in MRD(path="site", **keys).volumes(root)]


def close_to(images: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(images, magnitude(expected), rtol=1e-5, atol=1e-3)


def test_averages_and_repeated_lines_are_averaged(tmp_path: Path) -> None:
    out = writer(tmp_path)
    for line in range(20):
        out.readout(2 * KSPACE[:, :, line], line, average=0)
        out.readout(0 * KSPACE[:, :, line], line, average=1)
    out.close()
    close_to(read(tmp_path)[0], IMAGES)


def test_slices_phases_and_repetitions_stay_in_one_volume_and_echoes_do_not(tmp_path: Path) -> None:
    images, out = coil_images(1, width=4), writer(tmp_path, (24, 4, 1))
    keys = [(slice_, phase, repetition) for slice_ in range(2) for phase in range(2) for repetition in range(2)]
    for contrast in range(2):
        for number, (slice_, phase, repetition) in reversed([*enumerate(keys)]):
            for line in range(4):
                data = transformed(images)[0, :, :, line] * (number + 1) / (1 + contrast)
                out.readout(data, line, slice=slice_, phase=phase, repetition=repetition, contrast=contrast)
    out.close()
    volumes = list(MRD(path="site").volumes(tmp_path))
    assert [(v.name, v.contrast, v.subject) for v in volumes] == [
        ("a_echo1", "echo1", "Anna"),
        ("a_echo2", "echo2", "Anna"),
    ]
    close_to(magnitude(volumes[0].images), np.concatenate([images * (n + 1) for n in range(8)]))
    close_to(read(tmp_path, contrast="echo2")[0], np.concatenate([images * (n + 1) / 2 for n in range(8)]))


def test_what_is_no_image_is_left_out_and_reversed_readouts_are_turned(tmp_path: Path) -> None:
    out = writer(tmp_path)
    for flag in (NAVIGATOR, CALIBRATION):
        out.readout(KSPACE[:, :, 0] * 1000, 3, flags=(flag,))
    for line in range(20):
        calibrates = (CALIBRATION, CALIBRATION_AND_IMAGING) if 8 <= line < 12 else ()
        if line % 2:
            out.readout(KSPACE[:, ::-1, line], line, flags=(REVERSE, *calibrates), centre=11)
        else:
            out.readout(KSPACE[:, :, line], line, flags=calibrates)
    out.close()
    close_to(read(tmp_path)[0], IMAGES)


def test_oversampling_is_removed_by_the_field_of_view(tmp_path: Path) -> None:
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (12, 12), (0, 0)))
    mrd(tmp_path / "site" / "a.h5", wide, fov=400)
    close_to(read(tmp_path)[0], IMAGES)


def test_partial_fourier_and_partial_echoes_keep_their_centre(tmp_path: Path) -> None:
    """The header's centre is line 4 of 14, and the echo is the 6th sample of 18; the rest was not measured."""
    out = writer(tmp_path, centre=4)
    for line in range(14):
        out.readout(KSPACE[:, 6:, line + 6], line, centre=6)
    out.close()
    (raw,) = MRD(path="site").raw(tmp_path)
    kspace = next(raw.slices)
    assert not is_undersampled(kspace)
    np.testing.assert_allclose(kspace[:, 6:, 6:], KSPACE[:, 6:, 6:], atol=1e-3)
    assert not measured(kspace)[:6].any()
    assert not measured(kspace)[:, :6].any()


def test_samples_to_discard_are_discarded(tmp_path: Path) -> None:
    import ismrmrd  # noqa: PLC0415 - only here

    out = writer(tmp_path)
    for line in range(20):
        padded = np.pad(KSPACE[:, :, line], ((0, 0), (3, 2)), constant_values=99)
        acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(padded))
        acquisition.center_sample, acquisition.discard_pre, acquisition.discard_post = 15, 3, 2
        acquisition.idx.kspace_encode_step_1 = line
        out.dataset.append_acquisition(acquisition)
    out.close()
    close_to(read(tmp_path)[0], IMAGES)


def test_noise_scans_decorrelate_the_coils(tmp_path: Path) -> None:
    """The images' noise, correlated between coils and ten times stronger in one, becomes white, its power kept."""
    mixing = np.array([[1, 0], [6 + 3j, 10]])
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> NDArray[Any]:
        return np.tensordot(mixing, rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape)), 1)

    out, kspace = writer(tmp_path), noise(24, 20)
    out.readout(noise(2000), 0, flags=(NOISE,))
    for line in range(20):
        out.readout(kspace[:, :, line], line)
    out.close()
    (raw,) = MRD(path="site").raw(tmp_path)
    whitened = next(raw.slices).reshape(2, -1)
    covariance = whitened @ whitened.conj().T / whitened.shape[1]
    power = np.abs(np.diag(covariance))
    assert abs(covariance[0, 1]) < 0.15 * power.min()
    np.testing.assert_allclose(power, np.trace(mixing @ mixing.conj().T), rtol=0.15)


@pytest.mark.parametrize("noise", [np.ones((2, 1)), np.ones((3, 50)), np.zeros((2, 50))])
def test_noise_scans_that_do_not_fit_are_left_out(noise: NDArray[Any], tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.readout(noise, 0, flags=(NOISE,))
    for line in range(20):
        out.readout(KSPACE[:, :, line], line)
    out.close()
    with noting(tmp_path) as left_out:
        close_to(read(tmp_path)[0], IMAGES)
    assert ["noise scan" in one.reason for one in left_out] == [True]


def volume(tmp_path: Path, partitions: range) -> NDArray[Any]:
    """Writes a 3-D scan of some of its 6 partitions, and returns its images (6, coils, H, W)."""
    images = coil_images(6)
    kspace, out = transformed(images, (0, -2, -1)), writer(tmp_path, (24, 20, 6))
    for partition in partitions:
        for line in range(20):
            out.readout(kspace[partition][:, :, line], line, partition=partition)
    out.close()
    return images


def test_partitions_become_slices(tmp_path: Path) -> None:
    images = volume(tmp_path, range(6))
    close_to(read(tmp_path)[0], images)


def test_partitions_must_be_fully_sampled(tmp_path: Path) -> None:
    volume(tmp_path, range(0, 6, 2))
    with pytest.raises(InputError, match=r"a\.h5: is undersampled along its partitions"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"trajectory": "radial"}, "its trajectory is 'radial'; only cartesian"),
        ({"x": 0}, "encodedSpace/matrixSize"),
        ({"x": "many"}, "cannot be read"),
        ({"centre": 40}, r"acquisition 0 \(line -30, .* lies outside its header's matrix 24 x 20 x 1"),
        ({"x": 60_000, "y": 60_000}, "claims to hold"),
    ],
)
def test_headers_that_do_not_fit_are_refused(header: dict[str, Any], reason: str, tmp_path: Path) -> None:
    mrd(tmp_path / "site" / "a.h5", IMAGES, **header)
    with pytest.raises(InputError, match=rf"a\.h5: .*{reason}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
