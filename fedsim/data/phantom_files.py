"""Phantom volumes as files, in fastMRI's HDF5 layout: for trying out an importer or another program."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from fedsim.core.errors import InputError
from fedsim.core.files import replacing
from fedsim.data.formats.phantom import PhantomSource
from fedsim.data.source import Volume
from fedsim.mri.fft import fft2c
from fedsim.mri.phantom import COVERAGE, FIELD_OF_VIEW

_SPACE = (
    "<{name}><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize>"
    "<fieldOfView_mm><x>{field:g}</x><y>{field:g}</y><z>{spacing:g}</z></fieldOfView_mm></{name}>"
)
_HEADER = (
    '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
    "<experimentalConditions><H1resonanceFrequency_Hz>{hertz:.0f}</H1resonanceFrequency_Hz></experimentalConditions>"
    "<encoding>{encoded}{recon}<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>"
    "<center>{centre}</center></kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>"
    "</ismrmrdHeader>"
)
_HERTZ_PER_TESLA = 42.577e6  # protons


def write_phantoms(folder: Path, source: PhantomSource) -> Iterator[Path]:
    """Write each volume of a resolved phantom source to a separate file in a new folder; yields each path when written.

    Raises:
        InputError: the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists; name a new folder")
    folder.mkdir(parents=True)
    for volume in source.volumes(folder):
        path = folder / f"{volume.name}.h5"
        with replacing(path) as temporary:
            _write(temporary, volume, source)
        yield path


def _write(path: Path, volume: Volume, source: PhantomSource) -> None:
    kspace = fft2c(torch.from_numpy(volume.images)).numpy()
    several = volume.images.ndim == 4
    magnitude = np.linalg.norm(volume.images, axis=1) if several else np.abs(volume.images)
    with h5py.File(path, "w", locking=False) as file:
        file.create_dataset("kspace", data=kspace)
        file.create_dataset("reconstruction_rss" if several else "reconstruction_esc", data=magnitude)
        file.create_dataset("ismrmrd_header", data=_header(source))
        file.attrs.update(
            acquisition=f"AX{volume.name.rpartition('_')[2].upper()}",
            max=float(magnitude.max()),
            norm=float(np.linalg.norm(magnitude)),
            patient_id=volume.subject,
        )


def _header(source: PhantomSource) -> str:
    low, high = COVERAGE
    geometry = {"size": source.size, "field": FIELD_OF_VIEW, "spacing": (high - low) / max(1, source.slices - 1)}
    encoded, recon = (_SPACE.format(name=name, **geometry) for name in ("encodedSpace", "reconSpace"))
    hertz = float(np.mean(source.field_t)) * _HERTZ_PER_TESLA
    return _HEADER.format(hertz=hertz, encoded=encoded, recon=recon, last=source.size - 1, centre=source.size // 2)
