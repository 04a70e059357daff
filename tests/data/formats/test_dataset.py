"""A class of the user's own as a source: what its items must be, in which volumes they come, and what is refused."""

import itertools
import random
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsim.core.errors import InputError
from fedsim.core.own import find_own
from fedsim.data.formats.dataset import DatasetSource
from fedsim.data.shard import Shard, ensure_shard, shard_path
from fedsim.data.source import Volume
from fedsim.engine.record.run_directory import Run
from fedsim.engine.simulation import run
from fedsim.mri.fft import fft2c
from fedsim.workload.reading import load_workload, write_yaml

Made = Callable[..., DatasetSource]

_numbers = itertools.count()  # a module's name is known for the whole process


@pytest.fixture
def source(tmp_path: Path) -> Made:
    """The source of a class `Items` whose list of items is the given text."""

    def make(items: str, **arguments: Any) -> DatasetSource:
        module = f"items_{next(_numbers)}"
        body = f"""
            import random
            import numpy as np
            import torch
            from torch.utils.data import Dataset

            ONE = np.ones((8, 8))

            class Items(Dataset):
                def __init__(self, root, more=0):
                    self.items = {items}

                def __len__(self):
                    return len(self.items)

                def __getitem__(self, index):
                    item = self.items[index]
                    return item() if callable(item) else item
        """
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(body))
        find_own(f"{module}:Items", [tmp_path])
        return DatasetSource(format="dataset", dataset=f"{module}:Items", arguments=arguments)

    return make


def volumes(source: DatasetSource) -> list[Volume]:
    return list(source.volumes(Path("/data")))


def test_slices_become_volumes_in_their_order(source: Made) -> None:
    items = "[{'image': ONE * k, 'subject': s, 'slice': -k, 'contrast': 't1'} for s in (1, 'b') for k in (1, 2)]"
    one, two = volumes(source(items))
    assert [(v.name, v.subject, v.contrast, v.images.dtype) for v in (one, two)] == [
        ("1_t1", "1", "t1", np.float32), ("b_t1", "b", "t1", np.float32)
    ]  # fmt: skip
    assert one.images[:, 0, 0].tolist() == [2, 1], "by the slice's number, not the item's"


def test_an_item_may_be_a_whole_volume_and_complex(source: Made) -> None:
    (only,) = volumes(source("[{'image': torch.ones(3, 8, 6) * 1j, 'subject': 'a', 'volume': 'a 1'}]"))
    assert (only.name, only.images.shape, only.images.dtype) == ("a-1", (3, 8, 6), np.complex64)


@pytest.mark.parametrize("shape", ["(8, 8)", "(2, 8, 8)", "(2, 3, 8, 8)"])
def test_kspace_becomes_its_image(source: Made, shape: str) -> None:
    text = f"[{{'kspace': np.random.default_rng(1).normal(size={shape}) + 1j, 'subject': 'a'}}]"
    (only,) = volumes(source(text))
    kspace = np.random.default_rng(1).normal(size=eval(shape)) + 1j
    again = fft2c(torch.from_numpy(only.images)).numpy().reshape(kspace.shape)
    np.testing.assert_allclose(again, kspace, atol=1e-4)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("[(ONE, 0)]", "item 0 is a tuple; it must be a mapping with image"),
        ("[{'image': ONE}]", "item 0 subject must be a name .* not None"),
        ("[{'image': ONE, 'subject': ''}]", "item 0 subject must be a name"),
        ("[{'image': ONE, 'subject': 1.5}]", "item 0 subject must be a name .* not 1.5"),
        ("[{'subject': 1}]", "item 0 must have either image or kspace"),
        ("[{'image': ONE, 'kspace': ONE, 'subject': 1}]", "item 0 must have either image or kspace"),
        ("[{'image': ONE[0], 'subject': 1}]", r"item 0 image is float64 \(8,\); it must be real or complex"),
        ("[{'image': ONE[None, None], 'subject': 1}]", r"image is float64 \(1, 1, 8, 8\)"),
        ("[{'image': ONE[:0], 'subject': 1}]", r"image is float64 \(1, 0, 8\)"),
        ("[{'image': ONE > 0, 'subject': 1}]", "image is bool"),
        ("[{'image': [[1], [2, 3]], 'subject': 1}]", "item 0: image: ValueError"),
        ("[{'kspace': ONE, 'subject': 1}]", r"kspace is float64 \(1, 8, 8\); it must be complex"),
        ("[{'kspace': 1j * ONE * (np.arange(8) % 2), 'subject': 1}]", "item 0 its k-space is undersampled"),
        ("[{'image': ONE, 'subject': 1, 'label': 3}]", "item 0 has 'label'; known: image, kspace, subject"),
        ("[{'image': ONE, 'subject': 1, 'slice': 'x'}]", "item 0 slice must be an integer"),
        ("[{'image': ONE, 'subject': 1, 'slice': k} for k in (1, 1)]", "which lacks distinct slice numbers"),
        ("[{'image': ONE, 'subject': s} for s in 'aba']", "item 2 returns to volume a after another"),
        ("[{'image': ONE, 'subject': s, 'volume': 'v'} for s in 'ab']", "item 1 has subject b, but its volume has a"),
        ("[{'image': ONE[k:], 'subject': 's'} for k in (0, 1)]", r"item 1 is \(7, 8\), but its volume s began with"),
        ("[{'image': ONE, 'subject': 1}, lambda: 1 / 0]", "item 1: ZeroDivisionError: division by zero"),
        ("[lambda: exit(0)]", "item 0: SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
        ("None", "its length: TypeError"),
    ],
)
def test_what_an_item_must_not_be(source: Made, items: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^items_[0-9]+:Items: .*{message}") as error:
        volumes(source(items))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Items", "source.dataset: nowhere cannot be imported"),
        ("items", "source.dataset: 'items' must be module:Class"),
        ("collections:Nothing", "source.dataset: collections has no class Nothing"),
        ("torch.utils.data:IterableDataset", "has no class IterableDataset with __len__ and __getitem__"),
    ],
)
def test_a_class_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        volumes(DatasetSource(format="dataset", dataset=name))


def test_arguments_that_do_not_fit_are_said(source: Made) -> None:
    with pytest.raises(InputError, match=r"TypeError: .*unexpected keyword argument 'nothing'"):
        volumes(source("[]", nothing=1))


def test_what_it_draws_is_the_same_each_time_and_nobody_elses(source: Made) -> None:
    drawing = source("[{'image': ONE * torch.rand(1).item() * random.random() * np.random.rand(), 'subject': 1}]")
    before = random.getstate(), torch.get_rng_state().tolist()
    one, two = volumes(drawing), volumes(drawing)
    np.testing.assert_array_equal(one[0].images, two[0].images)
    assert before == (random.getstate(), torch.get_rng_state().tolist())


def test_its_shard_is_found_again_until_what_it_depends_on_changes(source: Made, tmp_path: Path) -> None:
    items = source("[{'image': ONE * np.arange(8), 'subject': 1}] * (1 + more)", more=0)
    path = ensure_shard(items, tmp_path, tmp_path / "cache", (8, 8))
    assert path == shard_path(items, tmp_path, tmp_path / "cache", (8, 8))
    with Shard(path) as shard:
        assert [(v.name, v.subject) for v in shard.volumes()] == [("1", "1")]
    more = items.model_copy(update={"arguments": {"more": 1}})
    assert shard_path(more, tmp_path, tmp_path / "cache", (8, 8)) != path
    file = next(tmp_path.glob("items_*.py"))
    file.write_text(file.read_text() + "# changed\n")
    assert shard_path(items, tmp_path, tmp_path / "cache", (8, 8)) != path


def test_a_run_keeps_it_and_goes_on_with_nothing_else(source: Made, tmp_path: Path) -> None:
    made = source("[{'image': ONE * np.arange(8) + s, 'subject': s, 'slice': k} for s in range(4) for k in range(2)]")
    content = {
        "name": "own", "federation": {
            "cache": str(tmp_path / "cache"), "matrix": [32, 32], "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [{"name": "A", "source": {"format": "dataset", "dataset": made.dataset}}],
        },
        "model": {"channels": 2, "pools": 1}, "training": {"rounds": 1}, "engine": {"backend": "serial"},
    }  # fmt: skip
    path = tmp_path / "own.yaml"
    path.write_text(write_yaml(content))
    done = run(load_workload(path), tmp_path / "run")
    assert sorted(done.manifest["subject"].unique()) == ["0", "1", "2", "3"]
    file = next(tmp_path.glob("items_*.py"))
    assert (done.path / file.name).read_text() == file.read_text()
    assert Run(done.path).workload.federation.own_datasets() == [made.dataset]
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(InputError, match="a resumed run must keep its own code"):
        run(load_workload(path), done.path, resume=True)
