"""Phantom sites: heads generated from seeds, so that thousands of sites need no files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from fedsim.core.section import distinct
from fedsim.core.seeds import numpy_stream
from fedsim.data.coils import Maps
from fedsim.data.source import Source, StoredVolume, Volume
from fedsim.data.subjects import Subject
from fedsim.mri.geometry import Matrix
from fedsim.mri.loops import Layout, ReceiveArray, receive_array
from fedsim.mri.phantom import Sequence, anatomy, image, nulling_time, relaxation_times

Weighting = Literal["t1", "t2", "pd", "flair"]

_TIMES: dict[Weighting, tuple[float, float]] = {
    "t1": (400.0, 8.0),
    "t2": (4500.0, 95.0),
    "pd": (3000.0, 15.0),
    "flair": (9000.0, 110.0),
}
"""Default TR and TE [ms] of each contrast."""

_DRAWN = ("field_t", "tr", "te", "ti", "noise", "bias", "lesions", "noise_correlation")
"""The keys that may be a range, besides `coils`."""


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"[low, high] must ascend, got {list(value)}")
    return value


def _form(value: object) -> str:
    """Whether a number or a range is meant, so that an error mentions only that form."""
    return "list" if isinstance(value, list | tuple) else "value"


T = TypeVar("T")
OrRange = Annotated[
    Annotated[T, Tag("value")] | Annotated[tuple[T, T], AfterValidator(_ascending), Tag("list")], Discriminator(_form)
]
"""A number, or [low, high] to draw it from."""

Tesla = Annotated[float, Field(ge=0.05, le=11.7)]
Milliseconds = Annotated[float, Field(gt=0, le=60_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=64)]
Correlation = Annotated[float, Field(ge=0, le=0.95)]
Contrasts = Annotated[
    Annotated[Weighting, Tag("value")]
    | Annotated[list[Weighting], Field(min_length=1), AfterValidator(distinct), Tag("list")],
    Discriminator(_form),
]


class PhantomSource(Source):
    """Random head-like subjects imaged by a spin echo; [low, high] is drawn for each site from the seed."""

    format: Literal["phantom"] = Field("phantom", description="Heads generated from seeds; needs no files.")
    subjects: int = Field(6, ge=1, le=100_000, description="Number of subjects of the site.")
    slices: int = Field(10, ge=1, le=128, description="Axial slices of each volume, over 60 mm of the brain.")
    size: int = Field(128, ge=32, le=512, description="Pixels along each edge of the 230 mm field of view.")
    contrast: Contrasts = Field(
        "t1", description="t1, t2, pd or flair; a list makes one volume of each subject for each contrast."
    )
    field_t: OrRange[Tesla] = Field(3.0, description="Field strength [T].")
    tr: OrRange[Milliseconds] | None = Field(None, description="Repetition time [ms]; default by contrast.")
    te: OrRange[Milliseconds] | None = Field(None, description="Echo time [ms]; default by contrast.")
    ti: OrRange[Milliseconds] | None = Field(
        None, description="Inversion time of flair [ms]; default nulls cerebrospinal fluid."
    )
    noise: OrRange[Share] = Field(
        0.02, description="Standard deviation of real and imaginary noise, relative to the brain's mean signal."
    )
    bias: OrRange[Share] = Field(
        0.5, description="Strength of the coil's smooth bias field, 0 to 1; at 1 it varies by about 30 %."
    )
    lesions: OrRange[Share] = Field(0.2, description="Probability that a subject has a lesion with oedema.")
    coils: OrRange[Count] | None = Field(
        None, description="Receive coils, loops around the head; null: one coil that sees everything alike."
    )
    coil_layout: Layout = Field(
        "ring", description="Where the coils are: ring (at one height) or helmet (in two staggered rows)."
    )
    noise_correlation: OrRange[Correlation] = Field(
        0.2, description="Correlation of the noise of the two closest coils; it falls with their distance."
    )
    maps: Maps = Field(
        "estimate",
        description="Where the sensitivities of the coils come from: estimate (the centre of k-space), espirit, or "
        "file (the simulated ones).",
    )
    seed: int | None = Field(None, ge=0, description="Seed of the site's subjects; default from the workload's seed.")

    @model_validator(mode="after")
    def _possible_sequence(self) -> Self:
        contrasts = self._contrasts()
        given = [key for key in ("tr", "te", "ti") if getattr(self, key) is not None]
        if given and len(contrasts) > 1:
            raise ValueError(f"{given[0]} can be set for one contrast, got {', '.join(contrasts)}; use a site for each")
        if self.ti is not None and contrasts != ["flair"]:
            raise ValueError(f"ti belongs to contrast flair, got contrast {contrasts[0]}")
        tr, te = _TIMES[contrasts[0]]
        tr, te, ti = _ends(self.tr, tr)[0], _ends(self.te, te)[1], _ends(self.ti, 0.0)[1]
        if ti + te >= tr:
            times = f"ti + te ({ti + te:g} ms)" if ti else f"te ({te:g} ms)"
            raise ValueError(f"{times} must be shorter than tr ({tr:g} ms) for contrast {contrasts[0]}")
        return self

    def resolve(self, seed: int, site: str) -> Self:
        """This source with its ranges drawn and its seed set, each from a stream named by the site and the key."""
        drawn: dict[str, float | int] = {}
        if self.seed is None:  # 53 bits: no collisions among 10,000 sites, and exact in every YAML or JSON reader
            drawn["seed"] = int(numpy_stream(seed, "phantom", site, "seed").integers(2**53))
        for key in _DRAWN:
            value = getattr(self, key)
            if isinstance(value, tuple):
                drawn[key] = float(numpy_stream(seed, "phantom", site, key).uniform(*value))
        if isinstance(self.coils, tuple):
            low, high = self.coils
            drawn["coils"] = int(numpy_stream(seed, "phantom", site, "coils").integers(low, high, endpoint=True))
        return self.model_copy(update=drawn)

    def identity(self) -> str:
        """The seed."""
        return f"phantom {self.seed}"

    def population(self, who: Subject) -> str:
        """All people drawn from this seed."""
        return self.identity()

    def files(self, root: Path) -> list[Path]:
        """None."""
        return []

    def volumes(self, root: Path) -> Iterator[Volume]:
        """Every contrast of every subject; the same for the same seed.

        Raises:
            ValueError: `resolve` has not been called.
        """
        if self.seed is None:
            raise ValueError("a phantom source has no seed yet; call resolve(seed, site) first")
        field_t, noise, bias = _number(self.field_t), _number(self.noise), _number(self.bias)
        array = self._array(self.seed)
        for index in range(1, self.subjects + 1):
            rng = numpy_stream(self.seed, "anatomy", index)
            head = anatomy(rng, self.slices, self.size, _number(self.lesions))
            for contrast in self._contrasts():
                rng = numpy_stream(self.seed, "acquisition", index, contrast)
                images = image(head, self._sequence(contrast), field_t, rng, noise, bias, array)
                who, name = _names(index, contrast)
                maps = array.maps if array else None
                yield Volume(who, name, images, self.identity(), contrast=contrast, maps=maps)

    def _array(self, seed: int) -> ReceiveArray | None:
        """The site's receive array."""
        if self.coils is None:
            return None
        rng, correlation = numpy_stream(seed, "array"), _number(self.noise_correlation)
        return receive_array(rng, int(_number(self.coils)), self.coil_layout, correlation, self.slices, self.size)

    def foreseen(self, matrix: Matrix) -> list[StoredVolume]:
        """Every volume with all its slices, none of which is empty."""
        sides = (self.size, self.size)
        height, width = sides if matrix == "native" else matrix
        support = (min(self.size, height), min(self.size, width))
        slices, coils = tuple(range(self.slices)), int(_number(self.coils, 1))
        return [
            StoredVolume(
                name=name,
                who=who,
                origin=self.identity(),
                slices=slices,
                support=support,
                contrast=contrast,
                coils=coils,
                shape=sides,
            )
            for index in range(1, self.subjects + 1)
            for contrast in self._contrasts()
            for who, name in (_names(index, contrast),)
        ]

    def _contrasts(self) -> list[Weighting]:
        return self.contrast if isinstance(self.contrast, list) else [self.contrast]

    def _sequence(self, contrast: Weighting) -> Sequence:
        """The times of the contrast [ms], as set or by default."""
        tr, te = _TIMES[contrast]
        tr, te = _number(self.tr, tr), _number(self.te, te)
        if contrast != "flair":
            return Sequence(tr, te)
        csf, _ = relaxation_times("csf", _number(self.field_t))
        return Sequence(tr, te, _number(self.ti, nulling_time(csf, tr, te)))


def _names(index: int, contrast: Weighting) -> tuple[Subject, str]:
    """The subject and the volume."""
    subject = f"subject-{index:03d}"
    return Subject(subject, "the seed", subject), f"{subject}_{contrast}"


def _ends(value: float | tuple[float, float] | None, default: float) -> tuple[float, float]:
    """The lowest and the highest value it can take."""
    return value if isinstance(value, tuple) else (default, default) if value is None else (value, value)


def _number(value: float | tuple[float, float] | None, default: float = 0.0) -> float:
    if isinstance(value, tuple):
        raise ValueError(f"{list(value)} has not been drawn yet; call resolve(seed, site) first")
    return default if value is None else value
