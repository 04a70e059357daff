"""Damaged and odd files of raw data: what is wrong, how it is written below site/, and what the message must say."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import scipy.io
from numpy.typing import NDArray

from . import raw_files as write
from .raw_files import MRDWriter, coil_images, transformed

IMAGES = coil_images(2)
KSPACE = transformed(IMAGES).astype(np.complex64)  # (2 slices, 2 coils, 24, 20)
LINE = KSPACE[0, :, :, 0]
NOISE = 19
"""Number of ISMRMRD's flag of noise scans."""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One file, or several, that cannot be read."""

    format: str
    what: str
    name: str
    """The file that the message must name."""
    make: Callable[[Path], object]
    """Called with the path of that file, in an existing folder."""
    says: str
    """Regular expression that the message must match."""
    folder: bool = False
    """Whether it names the folder instead."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Of the source."""


def to_bart(kspace: NDArray[Any]) -> NDArray[Any]:
    return kspace.transpose(2, 3, 1, 0).reshape(24, 20, 1, 2, *[1] * 9, -1)


WHOLE: dict[str, tuple[str, Callable[[Path, NDArray[Any]], object]]] = {
    "fastmri": ("file1.h5", write.fastmri),
    "m4raw": ("2022061003_T201.h5", write.fastmri),
    "calgary_campinas": ("e14089s3_P53248.7.h5", write.calgary),
    "cmrxrecon": ("cine_sax.mat", write.cmrxrecon),
    "skm_tea": ("MTR_005.h5", write.skm_tea),
    "bart": ("head.cfl", lambda p, images: write.bart(p, to_bart(transformed(images)))),
    "mrd": ("meas.mrd", write.mrd),
    "numpy": ("case.npy", lambda p, images: np.save(p, transformed(images).astype(np.complex64))),
}
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty; expected a"),
    "cut in its header": (
        lambda content: content[:70],
        r"truncated file|file signature not found|reading array header",
    ),
    "cut in its data": (lambda content: content[: len(content) * 2 // 3], r"truncated file|mmap length is greater"),
    "noise": (lambda _: np.random.default_rng(1).bytes(3000), "file signature not found|magic string is not correct"),
    "a web page": (
        lambda _: b"<!DOCTYPE html><html><body>404</body></html>",
        "file signature not found|magic string is not correct",
    ),
}
"""What is done to a whole file, and what is then said; of BART's, which has no header of its own, how long it is."""
BART_LENGTH = r"has \d+ bytes; 24 x 20 x 1 x 2 x .* complex64 of its \.hdr need 15360"
NO_NUMBER = r"has NaN or infinite values \(\d+\); set nan: zero to read NaN as 0"


def spoiled(value: float) -> NDArray[Any]:
    images = IMAGES.copy()
    images[1, 0, 12, 10] = value
    return images


def array(name: str, value: Any) -> Callable[[Path], object]:
    """An HDF5 file with one array."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file[name] = value

    return make


def mrd(change: Callable[[MRDWriter], object], shape: tuple[int, int, int] = (24, 20, 1), **header: Any) -> Any:
    """An ISMRMRD file with a whole slice, changed."""

    def make(path: Path) -> None:
        out = MRDWriter(path, shape, **header)
        change(out)
        out.close()

    return make


def lines(out: MRDWriter, partition: int = 0) -> None:
    for line in range(20):
        out.readout(KSPACE[0, :, :, line], line, partition=partition)


def damaged_acquisition(out: MRDWriter) -> None:
    lines(out)
    values = out.dataset._dataset["data"]
    last = values[19]
    last["data"] = last["data"][:-6]
    values[19] = last


def header(text: bytes) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with ismrmrd.Dataset(str(path)) as dataset:
            dataset.write_xml_header(text)
            dataset.append_acquisition(ismrmrd.Acquisition.from_array(KSPACE[0, :, :, 0].copy()))

    return make


def bart(text: str, content: bytes = KSPACE.tobytes()) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.with_suffix(".hdr").write_text(text)
        path.with_suffix(".cfl").write_bytes(content)

    return make


def npz_that_claims(shape: tuple[int, ...]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive, archive.open("kspace.npy", "w") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "<c8", "fortran_order": False, "shape": shape})

    return make


def repetitions(path: Path) -> None:
    write.fastmri(path.with_name("2022061003_T201.h5"), IMAGES)
    write.fastmri(path, IMAGES[:1])


def two_of(path: Path) -> None:
    write.cmrxrecon(path, IMAGES)
    with h5py.File(path, "a") as file:
        file["kspace_sub04"] = file["kspace_full"]


GROUPS = "has 0 groups with xml and data"
SPECIAL: dict[str, list[tuple[Any, ...]]] = {
    "m4raw": [
        ("another name", "brain.h5", lambda p: write.fastmri(p, IMAGES), "is not named like M4Raw's"),
        ("a repetition of another shape", "2022061003_T202.h5", repetitions, "but repetition 2022061003_T201.h5 has"),
    ],
    "calgary_campinas": [
        ("an odd last axis", "a.h5", array("kspace", np.ones((2, 24, 20, 3))), "its last axis must be even"),
        ("complex", "a.h5", array("kspace", KSPACE), r"kspace is complex64 .*; it must be real \(slices, ky, kz"),
        ("three axes", "a.h5", array("kspace", np.ones((2, 24, 20))), "it must be real"),
        ("no slices", "a.h5", array("kspace", np.ones((0, 24, 20, 4))), "it must be real"),
        ("slices that it lacks", "a.h5", lambda p: write.calgary(p, IMAGES), "has 2 slices", {"slices": [0, 3]}),
    ],
    "cmrxrecon": [
        ("no array like kspace", "a.mat", array("img", KSPACE), "has 0 arrays named like kspace_full.* it holds img"),
        ("two arrays", "a.mat", two_of, "has 2 arrays named like"),
        ("a real array", "a.mat", array("kspace", np.ones((2, 3, 4, 5))), r"kspace is float64 .*; it must be complex"),
        ("three axes", "a.mat", array("kspace", KSPACE[0]), "it must be complex"),
        ("other pairs", "a.mat", array("kus", np.zeros((1, 2, 2, 4, 4), "f4, f4")), "must be complex"),
        ("MATLAB 5", "a.mat", lambda p: scipy.io.savemat(p, {"kspace_full": KSPACE}), "a CMRxRecon MATLAB 7.3 file"),
    ],
    "skm_tea": [
        ("four axes", "a.h5", array("kspace", KSPACE), r"kspace is complex64 .*\(x, ky, kz, echoes, coils\)"),
        ("no kspace", "a.h5", array("target", KSPACE), "has no dataset kspace, only target"),
        ("a third echo", "a.h5", lambda p: write.skm_tea(p, IMAGES), "no contrast echo3; it holds echo1, echo2",
         {"contrast": "echo3"}),
        ("slices that it lacks", "a.h5", lambda p: write.skm_tea(p, IMAGES), "needs more", {"slices": [1, 9]}),
    ],
    "bart": [
        ("no header", "a.cfl", lambda p: p.write_bytes(KSPACE.tobytes()), "has no a.hdr beside it"),
        ("a header alone", "a.hdr", lambda p: p.write_text("# Dimensions\n1 2 3\n"), "has no a.cfl beside it"),
        ("an empty header", "a.hdr", bart(""), "is empty"),
        ("no dimensions", "a.hdr", bart("# Command\nfft\n"), "16 positive numbers below `# Dimensions`, not nothing"),
        ("words as dimensions", "a.hdr", bart("# Dimensions\n24 x 20\n"), "not 24 x 20"),
        ("a dimension of 0", "a.hdr", bart("# Dimensions\n24 0 20\n"), "not 24 0 20"),
        ("a negative dimension", "a.hdr", bart("# Dimensions\n24 -20\n"), "not 24 -20"),
        ("17 dimensions", "a.hdr", bart("# Dimensions\n" + "2 " * 17), "up to 16"),
        ("bytes in the header", "a.hdr", lambda p: (bart("x")(p), p.write_bytes(b"\xff\xfe" * 40)), "cannot be read"),
        ("another size", "a.cfl", bart("# Dimensions\n24 20 1 3\n"), r"has 15360 bytes; 24 x 20 x 1 x 3 .* need 11520"),
        ("claims 10^60 values", "a.cfl", bart("# Dimensions\n" + "99999 " * 12), "complex64 of its .hdr need"),
        ("two sets of maps", "a.cfl", bart("# Dimensions\n24 20 1 2 2\n"), "holds 2 sets of maps"),
        ("one readout", "a.cfl", bart("# Dimensions\n1 960 1 2\n"), "holds no plane of k-space"),
        ("images", "a.cfl", lambda p: write.bart(p, to_bart(IMAGES)), "seems to hold images"),
    ],
    "numpy": [
        ("pickled objects", "a.npy", lambda p: np.save(p, np.array([{}, None], object)), "holds object"),
        ("text", "a.npy", lambda p: np.save(p, np.array([["a", "b"]])), "real or complex numbers are needed"),
        ("one axis", "a.npy", lambda p: np.save(p, np.ones(9)), "set axes"),
        ("five axes", "a.npy", lambda p: np.save(p, KSPACE[None]), "set axes to a letter for each of its axes"),
        ("no slices", "a.npy", lambda p: np.save(p, KSPACE[:0]), "set axes"),
        ("k-space of three axes", "a.npy", lambda p: np.save(p, KSPACE[0]), "name its axes: axes: shw"),
        ("too few axes named", "a.npy", lambda p: np.save(p, KSPACE), "set axes", {"axes": "chw"}),
        ("real k-space", "a.npy", lambda p: np.save(p, np.abs(KSPACE)), "is complex", {"domain": "kspace"}),
        ("two arrays", "a.npz", lambda p: np.savez(p, a=KSPACE, b=KSPACE), "has 2 arrays .*; set variable"),
        ("no such array", "a.npz", lambda p: np.savez(p, a=KSPACE), "has no array b; .*: a", {"variable": "b"}),
        ("no array at all", "a.npz", np.savez, "has 0 arrays that may be images"),
        ("another zip file", "a.npz", lambda p: zipfile.ZipFile(p, "w").writestr("a.txt", "x"), "cannot be read"),
        ("claims 4 TB", "a.npz", npz_that_claims((1000, 32, 4000, 4000)), "claims to hold"),
    ],
    "mrd": [
        ("no group", "a.h5", array("kspace", KSPACE), f"{GROUPS}.* it holds kspace"),
        ("no header", "a.h5", array("dataset/data", KSPACE), GROUPS),
        ("other data", "a.h5", lambda p: (mrd(lines)(p), replace_data(p)), "its data are no ISMRMRD acquisitions"),
        ("a header that is no XML", "a.h5", header(b"<x"), "cannot be read"),
        ("a header with entities", "a.h5", header(b'<!DOCTYPE x [<!ENTITY a "b">]><x/>'), "declares a document type"),
        ("a header without a matrix", "a.h5", header(b"<ismrmrdHeader/>"), "has no encodedSpace/matrixSize"),
        ("a spiral", "a.h5", mrd(lines, trajectory="spiral"), "its trajectory is 'spiral'"),
        ("a matrix of 0", "a.h5", mrd(lines, x=0), "matrixSize is"),
        ("a matrix of words", "a.h5", mrd(lines, y="many"), "cannot be read"),
        ("a matrix that the file cannot fill", "a.h5", mrd(lines, x=65_000, y=65_000), "claims to hold"),
        ("no readout", "a.h5", mrd(lambda out: None), GROUPS),
        ("noise alone", "a.h5", mrd(lambda out: out.readout(LINE, 0, flags=(NOISE,))), "no readout of an image"),
        ("a line outside the matrix", "a.h5", mrd(lambda out: (lines(out), out.readout(LINE, 20))),
         r"acquisition 20 \(line 20, .*lies outside"),
        ("an echo outside the matrix", "a.h5", mrd(lambda out: out.readout(LINE, 0, centre=20)), "lies outside"),
        ("another number of coils", "a.h5", mrd(lambda out: (lines(out), out.readout(LINE[:1], 0))),
         "acquisition 20 has 1 coils, but the first has 2"),
        ("too few values", "a.h5", mrd(damaged_acquisition), "acquisition 19 has 90 values, but 2 coils x 24 samples"),
        ("every second partition", "a.h5", mrd(lambda out: [lines(out, p) for p in (0, 2)], (24, 20, 4)), "partitions"),
    ],
}  # fmt: skip


def replace_data(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["dataset/data"]
        file["dataset/data"] = KSPACE


def bad_files() -> Iterator[Bad]:
    for format_, (name, make) in WHOLE.items():
        for what, (change, said) in BYTES.items():

            def damage(path: Path, make: Any = make, change: Any = change) -> None:
                make(path, IMAGES)
                path.write_bytes(change(path.read_bytes()))

            says = BART_LENGTH if format_ == "bart" and what != "empty" else said
            yield Bad(format=format_, what=what, name=name, make=damage, says=says)
        for value in (np.nan, np.inf, 1e30):

            def spoil(path: Path, make: Any = make, value: float = value) -> None:
                with np.errstate(all="ignore"):
                    make(path, spoiled(value))

            says = "seems to hold images; transform" if (format_, value) == ("bart", 1e30) else NO_NUMBER
            yield Bad(format=format_, what=f"a value of {value:g}", name=name, make=spoil, says=says)
        silent = lambda path, make=make: make(path, IMAGES * 0)  # noqa: E731
        yield Bad(format=format_, what="no signal", name=name, make=silent, says="/site: holds no image", folder=True)
    for format_, cases in SPECIAL.items():
        for what, name, make_it, says, *keys in cases:
            yield Bad(format=format_, what=what, name=name, make=make_it, says=says, keys=keys[0] if keys else {})
