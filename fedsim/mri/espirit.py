"""Sensitivities by ESPIRiT (Uecker et al., Magn Reson Med 71:990, 2014), as sigpy computes them."""

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.mri.coils import CALIBRATION

_CROP = 0.8  # of the eigenvalue, which is 1 where the coils see one object: below it there is no signal


def espirit_maps(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Sensitivities (coils, H, W) from fully sampled k-space (coils, H, W), 0 where there is no signal.

    Raises:
        InputError: sigpy is not installed.
    """
    try:
        from sigpy.mri.app import EspiritCalib  # noqa: PLC0415 - optional, and takes seconds
    except ImportError as error:
        what = "espirit needs sigpy, which is not installed; pip install 'fedsim[raw]', or set maps to estimate"
        raise InputError(f"maps: {what}") from error
    width = min(CALIBRATION, *kspace.shape[-2:])
    maps: NDArray[np.complex64] = EspiritCalib(kspace, calib_width=width, crop=_CROP, show_pbar=False).run()
    return np.ascontiguousarray(maps, dtype=np.complex64)
