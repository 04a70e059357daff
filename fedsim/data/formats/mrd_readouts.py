"""The readouts of an ISMRMRD file, sorted into k-space by their encoding counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import InputError
from fedsim.data.kspace import gaps
from fedsim.data.left_out import leave_out
from fedsim.data.reading import afford
from fedsim.mri.coils import compressed, whitening
from fedsim.mri.fft import ifft1c

_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSE = 19, 20, 21, 22
"""Numbers of flags, as in ismrmrd.h: bit n - 1 of `flags`."""
_NO_IMAGE = (_NOISE, _CALIBRATION, 23, 24, 26, 27, 28, 29, 30, 31)
"""Flags of readouts that are no part of an image: noise, calibration, navigators, phase correction, dummies, ..."""
_COUNTERS = ("slice", "phase", "repetition", "set")
"""Counters of what becomes slices, the first varying slowest."""
_HEAD = {
    "flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample",
    "encoding_space_ref", "idx",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How k-space is encoded."""

    shape: tuple[int, int, int]
    """Samples of a readout, phase encodings, partitions."""
    centre: tuple[int, int]
    """Counters of the phase encoding and the partition of k = 0."""
    size: tuple[int, int]
    """(h, w) to crop images to."""
    depth: int
    """Partitions to crop a 3-D volume to."""


Stack = NDArray[np.intp]
"""Indices of the readouts of a slice, or of all partitions of a 3-D volume."""


class Readouts:
    """The readouts of an open file."""

    def __init__(self, file: Path, data: h5py.Dataset, encoding: Encoding) -> None:
        """Read what their headers say.

        Raises:
            InputError: they are no acquisitions, or the matrix is larger than the file can fill.
        """
        self._file, self._data, self._encoding = file, data, encoding
        names = data.dtype.names or ()
        if not {"head", "data"} <= {*names} or not {*(data.dtype["head"].names or ())} >= _HEAD:
            raise InputError("its data are no ISMRMRD acquisitions, with a head and data each")
        self._heads: NDArray[Any] = data.fields("head")[()].ravel()
        self._imaging = np.flatnonzero(self._is_imaging())
        self._reversed, self._noise = self._has(_REVERSE), self._has(_NOISE)
        if not self._imaging.size:
            raise InputError(f"has no readout of an image among its {len(self._heads)} acquisitions")
        self._coils = int(self._heads["active_channels"][self._imaging[0]])
        x, y, z = encoding.shape
        afford(file, (z, self._coils, x, y), 8)

    def contrasts(self) -> list[int]:
        """The numbers of its contrasts (echoes)."""
        return [int(number) for number in np.unique(self._heads["idx"]["contrast"][self._imaging])]

    def stacks(self, contrast: int) -> list[Stack]:
        """The readouts of each slice of a contrast."""
        counters = self._heads["idx"][self._imaging]
        mine = self._imaging[counters["contrast"] == contrast]
        keys = np.stack([self._heads["idx"][name][mine] for name in _COUNTERS], 1)
        return [mine[(keys == key).all(1)] for key in np.unique(keys, axis=0)]

    def kspace(self, stack: Stack) -> NDArray[np.complex64]:
        """k-space (slices, coils, H, W) of a stack; repeated readouts are averaged, partitions transformed to slices.

        Raises:
            InputError: a readout has other coils, data of another size, or does not belong into this matrix; or
                partitions are undersampled.
        """
        x, y, z = self._encoding.shape
        total = np.zeros((z, self._coils, x, y), np.complex64)
        times = np.zeros((z, x, y), np.int32)
        stored = self._data.fields("data")[stack]
        for number, values in zip(stack, stored, strict=True):
            line, partition, start, samples = self._placed(int(number), values)
            inside = slice(start, start + samples.shape[1])
            total[partition, :, inside, line] += samples
            times[partition, inside, line] += 1
        total /= np.maximum(times, 1)[:, None]
        decorrelating = self._whitening()
        if decorrelating is not None:
            total = compressed(torch.from_numpy(total), decorrelating).numpy()
        return self._slices(total, times.max(1) > 0)

    def _whitening(self) -> Tensor | None:
        """The matrix that decorrelates the coils' noise; None without a noise scan that can."""
        scans = np.flatnonzero(self._noise)
        if not scans.size:
            return None
        stored = self._data.fields("data")[scans]
        noise = [self._samples(int(number), values) for number, values in zip(scans, stored, strict=True)]
        try:
            found = whitening(torch.from_numpy(np.concatenate(noise, 1)))
            if len(found) != self._coils:
                raise ValueError(f"noise of {len(found)} coils")
            return found
        except ValueError:  # also from joining scans of several numbers of coils
            leave_out(self._file, "noise scan that does not fit the coils, or has too few samples")
            return None

    def _is_imaging(self) -> NDArray[np.bool_]:
        left_out = np.logical_or.reduce([self._has(flag) for flag in _NO_IMAGE])
        of_an_image = ~left_out | self._has(_CALIBRATION_AND_IMAGING)
        imaging: NDArray[np.bool_] = of_an_image & (self._heads["encoding_space_ref"] == 0)
        return imaging

    def _has(self, flag: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self._heads["flags"] >> np.uint64(flag - 1)) & np.uint64(1) == 1
        return found

    def _samples(self, number: int, values: Sequence[float]) -> NDArray[np.complex64]:
        """Samples (coils, samples) of a readout."""
        head = self._heads[number]
        coils, samples = int(head["active_channels"]), int(head["number_of_samples"])
        data = np.asarray(values, np.float32)
        if data.size != 2 * coils * samples:
            raise InputError(f"acquisition {number} has {data.size} values, but {coils} coils x {samples} samples")
        return data.view(np.complex64).reshape(coils, samples)

    def _placed(self, number: int, values: Sequence[float]) -> tuple[int, int, int, NDArray[np.complex64]]:
        """Phase encoding, partition and first sample of a readout in k-space, and its samples (coils, samples)."""
        head, samples = self._heads[number], self._samples(number, values)
        if len(samples) != self._coils:
            raise InputError(f"acquisition {number} has {len(samples)} coils, but the first has {self._coils}")
        before, after = int(head["discard_pre"]), int(head["discard_post"])
        samples = samples[:, before : samples.shape[1] - after]
        echo = int(head["center_sample"]) - before
        if self._reversed[number]:
            samples, echo = samples[:, ::-1], samples.shape[1] - 1 - echo
        x, y, z = self._encoding.shape
        line = int(head["idx"]["kspace_encode_step_1"]) + y // 2 - self._encoding.centre[0]
        partition = int(head["idx"]["kspace_encode_step_2"]) + z // 2 - self._encoding.centre[1]
        start = x // 2 - echo
        if not (0 <= line < y and 0 <= partition < z and start >= 0 and 0 < samples.shape[1] <= x - start):
            where = f"line {line}, partition {partition}, samples {start} to {start + samples.shape[1]}"
            raise InputError(f"acquisition {number} ({where}) lies outside its header's matrix {x} x {y} x {z}")
        return line, partition, start, samples

    def _slices(self, kspace: NDArray[np.complex64], sampled: NDArray[np.bool_]) -> NDArray[np.complex64]:
        """(slices, coils, H, W) of (partitions, coils, H, W), given which lines (partitions, W) have samples."""
        if len(kspace) == 1:
            return kspace
        if gaps(sampled, 0).any() or gaps(np.asarray(sampled.any(1)), 0).any():
            raise InputError(
                "is undersampled along its partitions (kspace_encode_step_2); only the in-plane phase encoding "
                "of 3-D scans may be"
            )
        start = len(kspace) // 2 - self._encoding.depth // 2
        slices: NDArray[np.complex64] = ifft1c(kspace, 0)[start : start + self._encoding.depth].astype(np.complex64)
        return slices
