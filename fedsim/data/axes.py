"""Arrays whose axes the user names, one letter each: h and w of the image, s for slices, c for coils."""

import re
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from fedsim.core.section import Text


def _plane(axes: str | None) -> str | None:
    if axes is not None and not re.fullmatch(r"(?=[^h]*h[^h]*$)(?=[^w]*w[^w]*$)(?=[^c]*c?[^c]*$)[hwsc]+", axes):
        raise ValueError(f"{axes!r} must have one h, one w, at most one c, and any number of s, such as hwcs")
    return axes


Axes = Annotated[Text | None, AfterValidator(_plane)]
"""Names of an array's axes, or None for a format's own order."""


def arranged(values: NDArray[Any], axes: str) -> NDArray[Any]:
    """Values as (slices, coils, H, W), float32 or complex64; one coil if `axes` has no c.

    Args:
        values: At most as many axes as `axes` has letters; those that it lacks at the end have size one.
        axes: As in `Axes`; several s become one axis, the first varying slowest.
    """
    values = values.reshape(values.shape + (1,) * (len(axes) - values.ndim))
    order = [at for letter in "schw" for at, name in enumerate(axes) if name == letter]
    coils = values.shape[axes.index("c")] if "c" in axes else 1
    ordered = values.transpose(order)
    turned = ordered.reshape(-1, coils, *ordered.shape[-2:])
    return turned.astype(np.complex64 if turned.dtype.kind == "c" else np.float32, order="C")
