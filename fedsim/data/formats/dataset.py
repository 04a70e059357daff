"""A source that reads a user's own PyTorch Dataset, `dataset: module:Class`."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from fedsim.core.errors import InputError
from fedsim.core.own import file_of, own_class
from fedsim.core.section import Text
from fedsim.data.kspace import truth
from fedsim.data.names import safe_name
from fedsim.data.reading import one_line
from fedsim.data.source import Source, Volume
from fedsim.data.subjects import Subject

_KEY = "source.dataset"
_SHAPES = {
    "image": ((3,), "iufc", "real or complex numbers (H, W) or (slices, H, W)"),
    "kspace": ((3, 4), "c", "complex numbers (H, W), (slices, H, W) or (slices, coils, H, W)"),
}
"""By key: allowed numbers of dimensions, kinds of numbers, and both in words."""
_KEYS = ("image", "kspace", "subject", "volume", "slice", "contrast")


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One item, checked."""

    index: int
    """Index in the data set."""
    subject: str
    volume: str
    images: NDArray[Any]  # (slices, H, W)
    place: int | None
    """Position of a single slice in its volume, if given."""
    contrast: str


class DatasetSource(Source):
    """A torch.utils.data.Dataset: any class with `__len__` and `__getitem__` that returns mappings.

    An item has `image`, (H, W) or (slices, H, W), real or complex, or fully sampled `kspace` with its centre at
    H // 2, W // 2, (H, W), (slices, H, W) or (slices, coils, H, W); and a `subject`. It may have a `volume` (default:
    the subject with the contrast), a `slice` (an integer, for items that are single slices) and a `contrast`. Slices
    of one volume must be consecutive items. All items are read once, in order, when the shard is made.
    """

    format: Literal["dataset"] = Field("dataset", description="Your own PyTorch Dataset.")
    dataset: Text = Field(description="module:Class, a file beside the workload and a class in it.")
    arguments: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Arguments of the class, by name; a parameter `root` that is not here receives federation.root.",
    )

    def identity(self) -> str:
        """The class: equal names are one subject, whatever the arguments."""
        return self.dataset

    def files(self, root: Path) -> list[Path]:
        """None that fedsim can know of."""
        return []

    def fingerprint(self, root: Path) -> str:
        """A digest of the class's file, the number of items, and the dataset's own `files`, if it has any.

        Raises:
            InputError: there is no such class, or it cannot be constructed.
        """
        made = self._made(root)
        source = file_of(self.dataset)
        text = source.read_text(encoding="utf-8") if source else ""
        with self._theirs(""):
            stats = [(str(p), Path(p).stat().st_size, Path(p).stat().st_mtime_ns) for p in getattr(made, "files", ())]
            return hashlib.sha256(json.dumps([text, len(made), stats]).encode()).hexdigest()

    def volumes(self, root: Path) -> Iterator[Volume]:
        """The items' volumes, in the items' order.

        Raises:
            InputError: an item is invalid, naming it.
        """
        done: set[str] = set()
        for name, items in groupby(self._items(root), lambda item: item.volume):
            parts = list(items)
            first = parts[0]
            if name in done:
                raise self._wrong(
                    first.index, f"returns to volume {name} after another; give each volume's slices consecutively"
                )
            done.add(name)
            who = Subject.of(first.subject, "the dataset")
            yield Volume(who, name, self._joined(parts), f"{self.dataset}[{first.index}]", contrast=first.contrast)

    def _joined(self, items: list[_Item]) -> NDArray[Any]:
        """The images (slices, H, W) of a volume, by `slice` where items have one."""
        for item in items:
            if item.subject != items[0].subject:
                raise self._wrong(item.index, f"has subject {item.subject}, but its volume has {items[0].subject}")
            if item.images.shape[1:] != items[0].images.shape[1:]:
                sizes = f"{item.images.shape[1:]}, but its volume {item.volume} began with {items[0].images.shape[1:]}"
                raise self._wrong(item.index, f"is {sizes}")
        places = [item.place for item in items if item.place is not None]
        if places and len(set(places)) < len(items):
            raise self._wrong(items[0].index, f"begins volume {items[0].volume}, which lacks distinct slice numbers")
        ordered = sorted(items, key=lambda item: item.place) if places else items  # type: ignore[arg-type, return-value]
        return np.concatenate([item.images for item in ordered])

    def _items(self, root: Path) -> Iterator[_Item]:
        dataset = self._made(root)
        with self._theirs("its length: "):
            count = len(dataset)
        for index in range(count):
            with self._theirs(f"item {index}: "), _seeded():
                given = dataset[index]
            yield self._item(index, given)

    def _item(self, index: int, given: object) -> _Item:
        if not isinstance(given, Mapping):
            raise self._wrong(
                index, f"is a {type(given).__name__}; it must be a mapping with image (or kspace) and subject"
            )
        unknown = [key for key in given if key not in _KEYS]
        if unknown:
            raise self._wrong(index, f"has {unknown[0]!r:.40}; known: {', '.join(_KEYS)}")
        subject = self._name(index, given, "subject")
        contrast = self._name(index, given, "contrast") if given.get("contrast") is not None else ""
        default = f"{subject}_{contrast}" if contrast else subject
        volume = self._name(index, given, "volume") if given.get("volume") is not None else default
        place = given.get("slice")
        if place is not None and (isinstance(place, bool) or not isinstance(place, int | np.integer)):
            raise self._wrong(index, f"slice must be an integer, not {place!r:.40}")
        number = None if place is None else int(place)
        return _Item(
            index=index,
            subject=subject,
            volume=safe_name(volume),
            images=self._images(index, given),
            place=number,
            contrast=contrast,
        )

    def _name(self, index: int, given: Mapping[str, object], key: str) -> str:
        value = given.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | np.integer) or not str(value).strip():
            raise self._wrong(index, f"{key} must be a name (text or an integer), not {value!r:.40}")
        return one_line(str(value))

    def _images(self, index: int, given: Mapping[str, Any]) -> NDArray[Any]:
        """Images (slices, H, W), float32 or complex64."""
        kind = "kspace" if given.get("kspace") is not None else "image"
        if given.get(kind) is None or ("image" in given and kind == "kspace"):
            raise self._wrong(index, "must have either image or kspace")
        with self._theirs(f"item {index}: {kind}: "):
            value = given[kind]
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        array = array[None] if array.ndim == 2 else array
        dimensions, kinds, shapes = _SHAPES[kind]
        if array.ndim not in dimensions or 0 in array.shape or array.dtype.kind not in kinds:
            raise self._wrong(index, f"{kind} is {array.dtype} {array.shape}; it must be {shapes}")
        if kind == "image":
            return array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)
        array = array[:, None] if array.ndim == 3 else array
        try:
            return np.stack([truth(one, (one.shape[-2], one.shape[-1])) for one in array])
        except InputError as error:
            raise self._wrong(index, str(error)) from None

    def _made(self, root: Path) -> Any:  # noqa: ANN401 - the user's own class
        module, kind = own_class(self.dataset, _KEY, "module:Class, a file beside the workload and a class in it")
        if kind is None or not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")):
            name = self.dataset.partition(":")[2]
            raise InputError(
                f"{_KEY}: {module} has no class {name} with __len__ and __getitem__, as PyTorch's Dataset has"
            )
        with self._theirs("constructed with source.arguments: "), _seeded():
            takes_root = "root" in signature(kind).parameters and "root" not in self.arguments
            return kind(**self.arguments, **({"root": root} if takes_root else {}))

    def _wrong(self, index: int, what: str) -> InputError:
        return InputError(f"{self.dataset}: item {index} {what}")

    @contextmanager
    def _theirs(self, where: str) -> Iterator[None]:
        """Turn any exception of the user's class into a message that names the class."""
        try:
            yield
        except (Exception, SystemExit) as error:
            what = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"{self.dataset}: {where}{what}; --debug shows where") from error


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the global random generators inside the block, and restore them afterwards."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's class may use it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
