"""Receive arrays of loops around the head: their sensitivities and the correlation of their noise."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedsim.mri.head import pixel_centres, slice_heights

Layout = Literal["ring", "helmet"]
Points = NDArray[np.floating]

_SEGMENTS = 16
_RADIUS = 135.0  # of the array [mm]; the head's is at most about 110
_MIDDLE = 24.0  # height of the array's centre [mm]
_ROWS = 45.0  # from the centre to either row of a helmet [mm]


@dataclass(frozen=True)
class ReceiveArray:
    """What an image is seen through."""

    maps: NDArray[np.complex64]
    """(slices, C, size, size) sensitivities; their mean energy within the head is 1."""
    mixing: NDArray[np.float32]
    """(C, C) lower triangular: turns independent noise of unit variance into the coils' noise."""

    def receive(self, seen: NDArray[np.complex64], index: int, level: float, rng: Generator) -> NDArray[np.complex64]:
        """Coil images (C, n, n) of a slice (n, n), with noise of standard deviation `level` in either part."""
        coils, size = len(self.mixing), len(seen)
        white = rng.standard_normal((coils, size, size, 2), dtype=np.float32).view(np.complex64)[..., 0]
        noise = np.einsum("cd,dyx->cyx", self.mixing, white)  # no BLAS: its bits vary with the threads
        received: NDArray[np.complex64] = (seen * self.maps[index] + np.float32(level) * noise).astype(np.complex64)
        return received


def receive_array(
    rng: Generator, coils: int, layout: Layout, correlation: float, slices: int, size: int
) -> ReceiveArray:
    """An array whose radii, turn and loops vary a little with the stream.

    Args:
        rng: the site's own stream.
        coils: number of loops.
        layout: ring: all at one height; helmet: in two staggered rows.
        correlation: of the noise of the two closest loops; others correlate less, exponentially with their distance.
        slices: axial slices, as for `anatomy`.
        size: pixels along each edge of the field of view.
    """
    centres, normals, radius = _loops(rng, coils, layout)
    edge = pixel_centres(size)
    y, x = np.meshgrid(-edge, edge, indexing="ij")
    maps = np.stack([_plane(centres, normals, radius, x, y, float(z)) for z in slice_heights(slices)])
    inside = np.hypot(x, y) < 0.6 * _RADIUS
    energy = np.square(np.abs(maps)).sum(1)[:, inside].mean()
    return ReceiveArray((maps / np.sqrt(energy)).astype(np.complex64), _mixing(centres, correlation))


def _loops(rng: Generator, coils: int, layout: Layout) -> tuple[Points, Points, float]:
    """Centres (C, 3) [mm] and unit normals (C, 3), pointing inwards, and the loops' radius [mm]."""
    across, along = _RADIUS * rng.uniform(0.92, 1.0), _RADIUS * rng.uniform(1.0, 1.1)
    angle = 2 * np.pi * (np.arange(coils) + rng.uniform()) / coils
    height = np.full(coils, _MIDDLE + rng.uniform(-10, 10))
    if layout == "helmet":
        height += _ROWS * np.where(np.arange(coils) % 2, 1, -1)
    centres = np.stack([across * np.cos(angle), along * np.sin(angle), height], axis=1)
    normals = np.stack([-np.cos(angle), -np.sin(angle), (_MIDDLE - height) / _RADIUS], axis=1)
    neighbours = max(coils // 2 if layout == "helmet" else coils, 3)
    radius = min(1.1 * np.pi * _RADIUS / neighbours, 80.0)  # neighbours overlap a little
    return centres, normals / np.linalg.norm(normals, axis=1, keepdims=True), float(radius)


def _plane(centres: Points, normals: Points, radius: float, x: Points, y: Points, z: float) -> NDArray[np.complex64]:
    """Sensitivities (C, n, n) in a plane: conj(Bx + i By) of a unit current, by the law of Biot and Savart."""
    maps = [_field(*loop, radius, x, y, z) for loop in zip(centres, normals, strict=True)]
    return np.stack(maps).astype(np.complex64)


def _field(centre: Points, normal: Points, radius: float, x: Points, y: Points, z: float) -> NDArray[np.complex128]:
    """Bx - i By (n, n) of a loop, from straight segments [arbitrary units]."""
    first = np.array([-normal[1], normal[0], 0.0]) / np.hypot(normal[0], normal[1])
    second = np.array([
        normal[1] * first[2] - normal[2] * first[1],
        normal[2] * first[0] - normal[0] * first[2],
        normal[0] * first[1] - normal[1] * first[0],
    ])  # fmt: skip
    field = np.zeros(x.shape, np.complex128)
    for angle in 2 * np.pi * np.arange(_SEGMENTS) / _SEGMENTS:
        place = centre + radius * (np.cos(angle) * first + np.sin(angle) * second)
        step = np.cos(angle) * second - np.sin(angle) * first
        dx, dy, dz = x - place[0], y - place[1], z - place[2]
        cubed = (dx * dx + dy * dy + dz * dz) ** 1.5
        field += ((step[1] * dz - step[2] * dy) - 1j * (step[2] * dx - step[0] * dz)) / cubed
    return field


def _mixing(centres: Points, correlation: float) -> NDArray[np.float32]:
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    closest = distance[distance > 0].min(initial=np.inf)
    covariance = np.where(distance > 0, correlation ** (distance / closest), 1.0)
    return np.asarray(np.linalg.cholesky(covariance), np.float32)
