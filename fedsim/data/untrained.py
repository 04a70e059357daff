"""Reconstructions without training of a client's volumes, made once for each volume and mask and kept.

They lie beside the shard, in a folder of its name, and are shared by a site's clients, the rounds of a run and the
methods of a study.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.files import replacing
from fedsim.data.batch import Batch
from fedsim.data.samples import VolumeSlices
from fedsim.mri.references import PARAMETERS, Reference, conjugate_filled, sense, total_variation

Images = NDArray[np.float32]


def references_of(
    volume: VolumeSlices, batches: Sequence[Batch], names: Sequence[Reference]
) -> dict[Reference, Images]:
    """Images (slices, H, W) of a volume in its units, by reference; none of those that do not suit its data.

    Args:
        volume: Whose they are.
        batches: All of its slices, in order.
        names: Conjugate filling needs images of one coil without phase, SENSE several coils.
    """
    coils = 1 if batches[0].maps is None else batches[0].maps.shape[1]
    suit = {"conjugate": coils == 1 and not volume.piece.phase, "sense": coils > 1, "tv": True}
    return {name: _kept(volume, name, partial(_made, name, batches)) for name in names if suit[name]}


def _made(name: Reference, batches: Sequence[Batch]) -> Images:
    """Slice by slice, so that neither memory nor bits depend on the size of a batch."""
    with torch.inference_mode():
        slices = [_slice(name, batch, at) * batch.scale[at] for batch in batches for at in range(len(batch.mask))]
        return torch.stack(slices).numpy()


def _slice(name: Reference, batch: Batch, at: int) -> Tensor:
    kspace, mask = batch.kspace[at], batch.mask[at]
    coils = kspace if batch.maps is not None else kspace[None]
    if name == "conjugate":
        return conjugate_filled(coils[0], mask)
    maps = torch.ones_like(coils) if batch.maps is None else batch.maps[at]
    return (sense if name == "sense" else total_variation)(coils, maps, mask)


def _kept(volume: VolumeSlices, name: Reference, make: Callable[[], Images]) -> Images:
    """What is stored for a volume and its mask, or is made and stored now."""
    piece = volume.piece
    what = [piece.volume, piece.start, piece.stop, volume.normalise, PARAMETERS, torch.get_num_threads()]
    digest = hashlib.sha256(json.dumps(what).encode() + np.packbits(volume.mask).tobytes()).hexdigest()[:20]
    path = volume.shard.with_suffix("") / f"{name}-{digest}.h5"
    with suppress(OSError, KeyError), h5py.File(path, "r", locking=False) as file:
        images: Images = file["images"][()]
        return images
    images = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.create_dataset("images", data=images, fletcher32=True)
    return images
