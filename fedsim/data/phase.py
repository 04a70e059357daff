"""Synthetic phase for magnitude images, whose k-space would otherwise have a symmetry that no scanner measures."""

from dataclasses import replace

import numpy as np

from fedsim.data.source import FileSource, Source, Volume
from fedsim.mri.geometry import centre_crop_or_pad
from fedsim.mri.head import SmoothNoise, pixel_centres, slice_heights

_SMOOTH = 110.0  # of a field of view of 230: the distance over which phase varies, as in phantoms


def with_phase(volume: Volume, source: Source) -> Volume:
    """The volume with a smooth random phase, if it has magnitudes and its source says `synthetic_phase`."""
    images = volume.images
    rng = source.phase_of(volume.name) if isinstance(source, FileSource) else None
    if rng is None or np.iscomplexobj(images):
        return volume
    phase = SmoothNoise(rng, _SMOOTH)
    edge, heights = pixel_centres(max(images.shape[-2:])), slice_heights(len(images)).tolist()
    planes = (centre_crop_or_pad(phase.plane(height, edge), (images.shape[-2], images.shape[-1])) for height in heights)
    turned = [image * np.exp(1j * plane) for image, plane in zip(images, planes, strict=True)]
    return replace(volume, images=np.stack(turned).astype(np.complex64))
