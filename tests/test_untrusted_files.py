"""fedsim runs nothing of what files from others say: each payload here would write a file if anything ran it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from nibabel.nifti1 import Nifti1Extension
from PIL import Image, PngImagePlugin
from ruamel.yaml import YAML

from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import Simulation, run
from fedsim.report.inspect import inspect_path
from fedsim.study.study import load_study
from fedsim.workload.reading import load_workload
from fedsim.workload.schema import Workload

MakeWorkload = Callable[..., Workload]
IMAGES = np.random.default_rng(0).integers(1, 255, (3, 32, 32), dtype=np.uint8)
"""(slices, height, width)."""


class Payload:
    """Writes the witness when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    return tmp_path / "witness"


@pytest.fixture
def pickled(witness: Path) -> bytes:
    return pickle.dumps(Payload(witness))


def tagged(witness: Path) -> str:
    return f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{witness}']]"


def torch_checkpoint(path: Path, witness: Path) -> None:
    torch.save({"model": Payload(witness)}, path)


# The payloads work


def test_unpickling_a_payload_writes_the_witness(pickled: bytes, witness: Path) -> None:
    assert not witness.exists()
    pickle.loads(pickled)
    assert witness.exists()


def test_torch_runs_the_payload_where_it_is_let(tmp_path: Path, witness: Path) -> None:
    torch_checkpoint(tmp_path / "a.pt", witness)
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert witness.exists()


@pytest.mark.filterwarnings("ignore")
def test_an_unsafe_reader_of_yaml_runs_the_payload(witness: Path) -> None:
    YAML(typ="unsafe").load(tagged(witness))
    assert witness.exists()


# Images


def png(path: Path, payload: bytes) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("XML:com.adobe.xmp", entity(path.parent / "secret"))
    text.add(b"piKl", payload)
    Image.fromarray(IMAGES[0]).save(path, pnginfo=text)


def tiff(path: Path, payload: bytes) -> None:
    extra = [(65000, 7, len(payload), payload, True), (700, 7, None, entity(path.parent / "secret").encode(), True)]
    tifffile.imwrite(path, IMAGES, photometric="minisblack", extratags=extra)


def nifti(path: Path, payload: bytes) -> None:
    image = nibabel.Nifti1Image(np.moveaxis(IMAGES, 0, 2), np.eye(4))
    image.header.extensions.append(Nifti1Extension("pypickle", payload))
    nibabel.save(image, path)


def fastmri(path: Path, payload: bytes) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = IMAGES.astype(np.complex64)
        file["ismrmrd_header"] = entity(path.parent / "secret")
        file["pickle"] = np.void(payload)


def matlab(path: Path, payload: bytes) -> None:
    scipy.io.savemat(path, {"img": IMAGES, "pickle": np.frombuffer(payload, np.uint8), "code": "system('touch x')"})


def entity(secret: Path) -> str:
    """An XML document whose entity is another file's content."""
    return (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY secret SYSTEM "file://{secret}">]>'
        "<ismrmrdHeader><encoding>&secret;</encoding></ismrmrdHeader>"
    )


KINDS = {"a.png": png, "a.tif": tiff, "a.nii": nifti, "a.h5": fastmri, "a.mat": matlab}


def shown_of(path: Path, picture: Path) -> str:
    """What `fedsim inspect` says of a file, be it a refusal."""
    try:
        table, lines = inspect_path(path, picture)
    except InputError as error:
        return str(error)
    return " ".join(map(str, [*(cell for column in table.columns for cell in column.cells), *lines]))


@pytest.mark.parametrize("name", KINDS)
def test_an_image_that_carries_a_payload_runs_nothing(name: str, pickled: bytes, witness: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").write_text("sesame")
    KINDS[name](tmp_path / "data" / name, pickled)
    said = shown_of(tmp_path / "data" / name, tmp_path / "look.png")
    assert name.partition(".")[0] in said
    assert "sesame" not in said
    assert not witness.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
@pytest.mark.parametrize("name", [*KINDS, "a.dcm", "a.nii.gz", "a.npy", "a.pt"])
def test_a_payload_by_the_name_of_an_image_is_refused(name: str, kind: str, witness: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        if kind == "numpy":
            np.lib.format.write_array(file, np.array([Payload(witness)], object), allow_pickle=True)
        elif kind == "torch":
            torch.save(Payload(witness), file)
        else:
            pickle.dump(Payload(witness), file)
    with pytest.raises(InputError):
        inspect_path(path, tmp_path / "look.png")
    assert not witness.exists()


# Workloads and studies


def test_yaml_tags_run_nothing(make_workload: MakeWorkload, witness: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    for text in (tagged(witness), f"name: {tagged(witness)}\n"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"small\.yaml"):
            load_workload(path)
        with pytest.raises(InputError, match=r"small\.yaml"):
            load_study(path)
    with pytest.raises(InputError, match="seed"):
        make_workload(f"seed={tagged(witness)}")
    assert not witness.exists()


# Run directories


@pytest.fixture
def made(make_workload: MakeWorkload, tmp_path: Path) -> Run:
    return run(make_workload("training.rounds=1"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_file_of_a_run_that_is_a_payload_runs_nothing(
    made: Run, make_workload: MakeWorkload, witness: Path, kind: str
) -> None:
    """Every file of the run in turn; some are read only by some commands, so that each may be refused or not."""
    files = [path for path in made.path.rglob("*") if path.suffix in {".parquet", ".safetensors", ".json", ".yaml"}]
    assert {path.suffix for path in files} == {".parquet", ".safetensors", ".json", ".yaml"}
    refused = 0
    for path in files:
        before = path.read_bytes()
        torch_checkpoint(path, witness) if kind == "torch" else path.write_bytes(pickle.dumps(Payload(witness)))
        for use in (opened, evaluated):
            try:
                use(made.path, make_workload("training.rounds=1"))
            except InputError:
                refused += 1
        path.write_bytes(before)
    assert refused >= len(files) - 1
    assert not witness.exists()


def opened(path: Path, _: Workload) -> None:
    held = Run(path)
    for table in ("rounds", "clients", "evaluation", "manifest"):
        getattr(held, table)


def evaluated(path: Path, workload: Workload) -> None:
    with Simulation(workload, path, resume=True) as simulation:
        simulation.evaluate("test", "last")
