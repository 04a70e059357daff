"""The anatomy of a random head: the share of each tissue in every pixel of an axial plane.

Every tissue is a region given by an approximate signed distance [mm], positive inside, so that a pixel's share follows
from its distance to the boundary. Cortical folding: the zero sheets of band-limited noise, stretched along the radius,
are the sulci; grey matter is what lies within a cortical thickness of the hull, of a sulcus or of a fissure.
Head axes [mm]: x across, y anterior (up in the image), z superior, origin between the thalami.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.floating]
"""float32, unless said otherwise."""

Regions = list[tuple[str, Array]]
"""Tissue names and distances [mm] inside them, front to back: each region hides those after it."""

FIELD_OF_VIEW = 230.0
"""Edge length of the field of view [mm]."""
COVERAGE = (-6.0, 54.0)
"""Height of the lowest and the highest slice [mm]: from the third ventricle to the centrum semiovale."""
GYRI = 20.0
"""Wavelength of the folding noise [mm]: two gyri and the sulci between them."""
LATTICE = 3.6
"""Spacing of the folding noise's lattice [mm]."""


def slice_heights(slices: int) -> Array:
    """(slices,) heights [mm], ascending; a single slice is in the middle."""
    low, high = COVERAGE
    return np.linspace(low, high, slices, dtype=np.float32) if slices > 1 else np.array([(low + high) / 2], np.float32)


def pixel_centres(n: int) -> Array:
    """(n,) coordinates [mm] of the points along one edge of the field of view, ascending."""
    return (((np.arange(n) + 0.5) / n - 0.5) * FIELD_OF_VIEW).astype(np.float32)


class SmoothNoise:
    """Smooth random field of about unit variance: a uniform cubic B-spline with Gaussian coefficients."""

    def __init__(self, rng: Generator, spacing: float) -> None:
        self.spacing = spacing  # [mm]
        n = int(FIELD_OF_VIEW / spacing) + 5
        self.coefficients: Array = rng.standard_normal((n, n, n), dtype=np.float32) / np.float32(0.33)

    def plane(self, height: float, edge: Array) -> Array:
        """(n, n) values at a height [mm], over rows and columns at `edge` [mm]."""
        flat = self._along_first(self.coefficients, np.array([height], np.float32))[0]
        return self._along_first(np.ascontiguousarray(self._along_first(flat, edge).T), edge)

    def _along_first(self, values: Array, at: Array) -> Array:
        """Four taps instead of a matrix product, since the bits of that may depend on the number of threads."""
        position = (at + FIELD_OF_VIEW / 2) / self.spacing
        index = np.floor(position).astype(np.intp)
        t = (position - index).astype(np.float32).reshape((-1,) + (1,) * (values.ndim - 1))
        weights = [(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
        result: Array = values[index] * (weights[0] / 6)
        for tap in range(1, 4):
            result += values[index + tap] * (weights[tap] / 6)
        return result


class Head:
    """One subject: everything drawn, and the tissues of any axial plane."""

    def __init__(self, rng: Generator, lesions: float) -> None:
        self.rotation = _rotation(*np.radians(rng.normal(0.0, [4.0, 2.5, 3.0])))
        self.shift = rng.normal(0.0, 2.0, size=2)
        self.axes = np.array([68.0, 86.0, 73.0]) * rng.normal(1.0, [0.035, 0.035, 0.03]) * rng.normal(1.0, 0.025)
        self.age = rng.uniform()  # widens ventricles and sulci
        self.ventricle = rng.uniform(0.75, 1.15) + 0.7 * self.age**2
        self.cortex = rng.normal(3.0, 0.15)
        self.scalp = rng.uniform(3.0, 7.0)
        self.warp = [SmoothNoise(rng, 38.0) for _ in range(2)]
        self.varied = SmoothNoise(rng, 26.0)
        self.texture = SmoothNoise(rng, 5.0)
        self.folds = _folds(rng)
        self.has_lesion = rng.uniform() < lesions
        self.lesion = rng.uniform([-40, -42, 5], [40, 38, 42])
        self.lesion[0] += np.copysign(18 - 0.45 * abs(self.lesion[0]), self.lesion[0])  # 18 to 40 mm off the midline
        self.radius, self.margin = rng.uniform(5, 12), rng.uniform(4, 10)

    def tissues(self, height: float, size: int) -> dict[str, Array]:
        """Each tissue's share of every pixel, times the local texture of proton density, (size, size)."""
        edge = pixel_centres(2 * size)
        varied = self.varied.plane(height, edge)
        x, y, z = self._coordinates(height, edge)
        rho, inside = self._skull(x, y, z)
        shells = self._shells(x, y, z, inside, varied)
        x += 3 * self.warp[0].plane(height, edge)  # the brain is irregular, the skull much less
        y += 3 * self.warp[1].plane(height, edge)
        pial = self._pial(x, y, z, rho, inside, varied)
        white = pial - self.cortex
        brain = [*self._deep(x, y, z), ("white", white), ("grey", pial)]
        lesion = self._lesion(x, y, z, inside, varied, white) if self.has_lesion else []
        texture = 1 + 0.025 * self.texture.plane(height, edge)
        return _shares([*lesion, *brain, *shells], texture, pixel=FIELD_OF_VIEW / len(edge))

    def _coordinates(self, height: float, edge: Array) -> tuple[Array, Array, Array]:
        """Head coordinates of a plane's points; row 0 is the most anterior."""
        column, row = edge[None, :] - self.shift[0], -edge[:, None] - self.shift[1]
        x, y, z = ((column * a + row * b + height * c).astype(np.float32) for a, b, c in self.rotation)
        return x, y, z

    def _skull(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Radius relative to the skull's inner surface, an ellipsoid narrower in front, and the distance inside it."""
        a, b, c = (float(axis) for axis in self.axes)
        u, v, w = x / (a * (1 - 0.09 * y / b)), y / b, z / c
        rho = _norm(u, v, w) + 1e-3
        return rho, (1 - rho) * rho / (_norm(u / a, v / b, w / c) + 1e-5)

    def _shells(self, x: Array, y: Array, z: Array, inside: Array, varied: Array) -> Regions:
        """Everything around the brain, from the cerebrospinal fluid to the skin."""
        off_temple = _norm((y - 22) / 26, (np.minimum(z, 60) + 12) / 24, np.minimum(np.abs(x) - 62, 0) / 14)
        muscle = 0.8 + 8 * np.exp(-off_temple * off_temple)
        marrow, fat = 2.2 + 0.6 * varied, self.scalp + 0.5 * varied
        thin = np.full_like(inside, 1.6)
        layers = [("bone", thin), ("marrow", marrow), ("bone", thin), ("muscle", muscle), ("fat", fat), ("skin", thin)]
        shells = [("csf", inside)]
        for name, thickness in layers:
            shells.append((name, shells[-1][1] + np.maximum(thickness, 0.3)))
        return shells

    def _deep(self, x: Array, y: Array, z: Array) -> Regions:
        """Ventricles and deep grey nuclei."""
        side, v = np.abs(x), self.ventricle
        t = (y + 8) / 40  # along the lateral ventricle: -1 at the back, 1 at the tip of the frontal horn
        square = t * t
        end = np.sqrt(np.clip(1 - square * square * square, 0, 1)) + 0.01
        width = (2.5 + 3 * square) * v * end
        centre = 4.5 + 2 * v + square * (12.5 - 5.5 * np.sign(t))
        up = z - 26 + 24 * square
        tail = np.clip(0.5 + 0.8 * t, 0.02, 1) * 5.5 * end
        return [
            ("csf", _tube(side - centre, up, width, 1.6 * width)),
            ("csf", _ellipsoid(x, y + 4, z, (1.4 * v, 13, 13))),  # third ventricle
            ("striatum", _tube(side - centre - width - 0.7 * tail, up + 4, tail, 1.7 * tail)),  # caudate
            ("thalamus", _ellipsoid(side - 11, y + 10, z - 3, (7.5, 14, 11), 0.45)),
            ("pallidum", _ellipsoid(side - 21, y - 4, z + 1, (4, 10, 7), 0.42)),
            ("striatum", _ellipsoid(side - 26, y - 5, z - 3, (5, 17, 12), 0.25)),  # putamen
        ]

    def _pial(self, x: Array, y: Array, z: Array, rho: Array, inside: Array, varied: Array) -> Array:
        """Distance inside the brain's folded surface [mm]."""
        side, open_ = np.abs(x), 0.5 + 0.8 * self.age
        callosum = 34 - 34 * _norm((y + 6) / 47, z / 34)  # positive where the fissure between the hemispheres ends
        midline = _norm(x, np.maximum(callosum, 0)) - 0.6 - 0.6 * open_
        above = np.maximum(z - 20, 0)
        insula = _norm(side - 39 + 0.014 * (y - 5) ** 2 - 3 * varied, np.maximum(np.abs(y - 5) - 15, 0), above)
        sylvian = _norm(y - 14 + 0.5 * z - 4 * varied + 0.3 * side, np.maximum(35 - side, 0), above)
        hull = inside - 1.6 - open_ - 0.5 * varied
        reach = np.minimum(hull, 1.5 * midline + 3)
        sulcus = _norm(self._sulci(x, y, z, rho, inside), np.maximum(reach - 17 - 5 * varied, 0))
        sulcus = sulcus - open_ * (1.1 - 0.04 * np.clip(reach, 0, 20))
        lateral = np.minimum(insula, sylvian) - 0.7 - open_
        folded: Array = np.minimum(np.minimum(hull, midline), np.minimum(lateral, sulcus))
        return folded

    def _sulci(self, x: Array, y: Array, z: Array, rho: Array, inside: Array) -> Array:
        """Approximate distance [mm] to the nearest sulcal sheet: the noise over its slope."""
        near = (inside > -6) & (inside < 45)
        stretch = rho[near] ** np.float32(-0.6) / np.float32(LATTICE)  # along the radius, so that sheets run inwards
        points = np.stack([z[near], y[near], x[near]]) * stretch
        value = np.ones_like(rho)
        value[near] = ndimage.map_coordinates(self.folds, points, order=1, mode="grid-wrap")
        slopes: list[Array] = [np.gradient(value, FIELD_OF_VIEW / len(value), axis=axis) for axis in (0, 1)]
        through = np.full_like(value, 3 / GYRI)  # typical slope through the plane
        return np.abs(value) / _norm(*slopes, through)

    def _lesion(self, x: Array, y: Array, z: Array, inside: Array, varied: Array, white: Array) -> Regions:
        """A tumour within the hull, and its oedema, which stays within white matter."""
        a, b, c = (float(centre) for centre in self.lesion)
        distance = self.radius * (1 + 0.3 * varied) - _norm(x - a, y - b, z - c)
        oedema = distance + self.margin * (1 + 0.5 * varied)
        return [("lesion", np.minimum(distance, inside - 4)), ("oedema", np.minimum(oedema, white))]


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """(3, 3) rotation about z, x and y [rad]."""
    c, s = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[c[0], -s[0], 0], [s[0], c[0], 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c[1], -s[1]], [0, s[1], c[1]]])
    about_y = np.array([[c[2], 0, s[2]], [0, 1, 0], [-s[2], 0, c[2]]])
    return np.asarray(about_z @ about_x @ about_y)


def _folds(rng: Generator) -> Array:
    """(n, n, n) periodic noise of unit variance, its wavelengths about GYRI, on a lattice of LATTICE mm."""
    n = 64
    spectrum = fft.rfftn(rng.standard_normal((n, n, n), dtype=np.float32))
    full, half = fft.fftfreq(n, LATTICE), fft.rfftfreq(n, LATTICE)
    frequency = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    band = np.exp(-(((frequency * GYRI - 1) / 0.25) ** 2)).astype(np.float32)
    noise: Array = np.asarray(fft.irfftn(spectrum * band, s=(n, n, n)), np.float32)
    noise /= noise.std()
    return noise


def _norm(*parts: Array) -> Array:
    """Euclidean length of a vector of arrays; several times faster than np.hypot."""
    total: Array = parts[0] * parts[0]
    for part in parts[1:]:
        total = total + part * part
    return np.asarray(np.sqrt(total))


def _tube(across: Array, up: Array, width: Array, height: Array) -> Array:
    """Approximate distance [mm] inside an elliptic tube."""
    return (1 - _norm(across / width, up / height)) * width


def _ellipsoid(x: Array, y: Array, z: Array, radii: tuple[float, float, float], turn: float = 0.0) -> Array:
    """Approximate distance [mm] inside an ellipsoid turned about z [rad]."""
    c, s = float(np.cos(turn)), float(np.sin(turn))
    a, b, d = radii
    return (1 - _norm((x * c + y * s) / a, (y * c - x * s) / b, z / d)) * min(radii)


def _shares(regions: Regions, texture: Array, pixel: float) -> dict[str, Array]:
    """Each tissue's share (n/2, n/2), averaged over 2x2 points `pixel` mm apart, times `texture` (n, n)."""
    shares: dict[str, Array] = {}
    rest = texture / 4
    for name, distance in regions:
        cover = np.clip(distance / pixel + 0.5, 0, 1) * rest
        rest = rest - cover
        share = cover[::2, ::2] + cover[1::2, ::2] + cover[::2, 1::2] + cover[1::2, 1::2]
        shares[name] = shares[name] + share if name in shares else share
    return shares
