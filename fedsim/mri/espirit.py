"""Sensitivities by ESPIRiT (Uecker et al., Magn Reson Med 71:990, 2014), as sigpy computes them."""

import numpy as np
from numpy.typing import NDArray

from fedsim.core.errors import InputError
from fedsim.mri.coils import CALIBRATION

_KERNEL = 6  # side of its kernels [samples]
_CROP = 0.8  # of the eigenvalue, which is 1 where the coils see one object: below it there is no signal


def espirit_maps(kspace: NDArray[np.complex64], complete: tuple[int, int] | None = None) -> NDArray[np.complex64]:
    """Sensitivities (coils, H, W) from k-space (coils, H, W), 0 where there is no signal.

    Args:
        kspace: Sampled completely around its centre.
        complete: How many samples along each axis; None: all.

    Raises:
        InputError: sigpy is not installed, or fewer samples are complete than ESPIRiT's kernels span.
    """
    try:
        from sigpy.mri.app import EspiritCalib  # noqa: PLC0415 - optional, and takes seconds
    except ImportError as error:
        what = "espirit needs sigpy, which is not installed; pip install 'fedsim[raw]', or set maps to estimate"
        raise InputError(f"maps: {what}") from error
    width = min(CALIBRATION, *(complete or kspace.shape[-2:]))
    if width < _KERNEL:
        what = f"espirit needs {_KERNEL} x {_KERNEL} samples of the centre of k-space, and {width} are complete"
        raise InputError(f"maps: {what}; set maps to estimate")
    maps: NDArray[np.complex64] = EspiritCalib(
        kspace, calib_width=width, kernel_width=_KERNEL, crop=_CROP, show_pbar=False
    ).run()
    return np.ascontiguousarray(maps, dtype=np.complex64)
