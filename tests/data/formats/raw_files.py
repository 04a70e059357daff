"""Files of raw data in the real layout of each data set, written from coil images (slices, coils, H, W)."""

from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from numpy.typing import NDArray

Images = NDArray[Any]


def coil_images(slices: int = 3, coils: int = 2, height: int = 24, width: int = 20, seed: int = 0) -> Images:
    """Smooth complex images of a bright ellipse, each coil with another phase and weight."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (np.hypot(y / 0.8, x / 0.7) < 1) * (1 + 0.5 * np.cos(5 * x + 3 * y))
    weights = np.exp(1j * rng.uniform(-3, 3, (coils, 1, 1))) * (1 + rng.uniform(0, 1, (coils, 1, 1)) * x)
    texture = 1 + 0.3 * rng.normal(size=(slices, 1, height, width))
    return (100 * inside * texture * weights).astype(np.complex64)


def transformed(images: Images, axes: tuple[int, ...] = (-2, -1)) -> Images:
    """Centred orthonormal FFT, in NumPy."""
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(images, axes), axes=axes, norm="ortho"), axes)


def fastmri(path: Path, images: Images, mask: Images | None = None, **attributes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = (transformed(images) * (1 if mask is None else mask)).astype(np.complex64)
        file["reconstruction_rss"] = np.linalg.norm(images, axis=1)
        if mask is not None:
            file["mask"] = mask
        file.attrs.update({"acquisition": "AXT2", **attributes})
    return path


def calgary(path: Path, images: Images, mask: Images | float = 1.0) -> Path:
    """(slices, ky, kz, 2 x coils), with the images' origin in their first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kspace = np.moveaxis(np.fft.fftshift(np.fft.fft2(images, norm="ortho"), (-2, -1)) * mask, 1, -1)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ascontiguousarray(kspace, np.complex64).view(np.float32)
    return path


def cmrxrecon(path: Path, images: Images, frames: int = 1, name: str = "kspace_full", mask: Images | float = 1) -> Path:
    """MATLAB's (kx, ky, coils, slices, frames) as HDF5 has it; all frames of a slice follow each other in `images`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kspace = (transformed(images) * mask).astype(np.complex64)
    kspace = kspace.reshape(-1, frames, *images.shape[1:]).transpose(1, 0, 2, 4, 3)
    kspace = kspace[:, :, 0] if "single" in name else kspace
    pairs = np.empty(kspace.shape, [("real", "<f4"), ("imag", "<f4")])
    pairs["real"], pairs["imag"] = kspace.real, kspace.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = pairs
        file[name].attrs["MATLAB_class"] = np.bytes_("single")
    return path


def skm_tea(path: Path, images: Images, echoes: int = 2, mask: Images | float = 1.0) -> Path:
    """(x, ky, kz, echoes, coils), the second echo half as bright, with sensitivities and a target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kspace = np.moveaxis(transformed(images) * mask, 1, -1)
    maps = images / np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-6)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([kspace / 2**echo for echo in range(echoes)], 3).astype(np.complex64)
        file["maps"] = np.moveaxis(maps, 1, -1)[..., None].astype(np.complex64)
        file["target"] = np.zeros((*images.shape[:1], *images.shape[2:], echoes, 1), np.complex64)
    return path


def bart(path: Path, values: Images) -> Path:
    """Any array with BART's dimensions, the first one fastest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, values.shape)) + "\n")
    path.with_suffix(".cfl").write_bytes(values.astype("<c8").tobytes(order="F"))
    return path.with_suffix(".cfl")


MRD_HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <subjectInformation><patientID>{patient}</patientID></subjectInformation>
  <measurementInformation><protocolName>t2_tse</protocolName></measurementInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{fov}</x><y>200</y><z>5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>200</x><y>200</y><z>5</z></fieldOfView_mm></reconSpace>
    <trajectory>{trajectory}</trajectory>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
      </kspace_encoding_step_1></encodingLimits>
  </encoding>
</ismrmrdHeader>"""


class MRDWriter:
    """Writes acquisitions with the ismrmrd package, as a scanner's converter does."""

    def __init__(self, path: Path, shape: tuple[int, int, int], *, patient: str = "Anna", **header: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        x, y, z = shape
        values = {"x": x, "y": y, "z": z, "fov": 200, "last": y - 1, "centre": y // 2, "trajectory": "cartesian"}
        self.path, self.dataset = path, ismrmrd.Dataset(str(path), mode="w")
        self.dataset.write_xml_header(MRD_HEADER.format(**{**values, **header, "patient": patient}).encode())

    def readout(
        self, data: Images, line: int, *, flags: tuple[int, ...] = (), partition: int = 0, centre: int | None = None,
        **counters: int,
    ) -> None:  # fmt: skip
        """One acquisition (coils, samples)."""
        acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64))
        acquisition.center_sample = data.shape[1] // 2 if centre is None else centre
        acquisition.idx.kspace_encode_step_1, acquisition.idx.kspace_encode_step_2 = line, partition
        for name, value in counters.items():
            setattr(acquisition.idx, name, value)
        for flag in flags:
            acquisition.set_flag(flag)
        self.dataset.append_acquisition(acquisition)

    def close(self) -> Path:
        self.dataset.close()
        return self.path


def mrd(path: Path, images: Images, mask: Images | None = None, **header: Any) -> Path:
    """2-D slices, one readout after the other."""
    kspace, (height, width) = transformed(images), images.shape[-2:]
    writer = MRDWriter(path, (height, width, 1), **header)
    lines = range(width) if mask is None else np.flatnonzero(mask)
    for index, one in enumerate(kspace):
        for line in lines:
            writer.readout(one[:, :, line], int(line), slice=index)
    return writer.close()
