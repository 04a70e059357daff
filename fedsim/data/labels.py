"""Recognising labels (segmentations, masks, contours) among the images of a data set, by name and by content."""

import re

import numpy as np
from numpy.typing import NDArray

_LABEL = re.compile(
    r"(?:[a-z]*(?:mask|segmentation|label|contour|annotation|parcellation|delineation|groundtruth)s?|labelmaps?|segms?"
    r"|(?:a|d|prob|auto|man|manual|tumou?r|lesion|organ|brain|gm|wm|csf|pve)?segs?|gtv[a-z]{0,2}|ctv|ptv|(?:a|wm)parc"
    r"|prob(?:ability)?(?:maps?)?)"
)
"""A word that marks a label anywhere in a name."""
_AT_END = re.compile(r"msk|gt|rois?|lbls?|ann|anno|outlines?")
"""A word that marks a label only at the end of a name; elsewhere it may be part of a person's number."""
_IMAGE = re.compile(
    r"t[12](?:w|ce?|n|gd)?|flair|pdw?|dwi|adc|t2f|images?|imgs?|scans?|data|dataset|with|without|and|no"
)
_SPIN_LABEL = re.compile(r"p?c?asl")
_ENTITY = re.compile(r"(?i)(?<![a-z0-9])(?:sub|ses|acq|task)-[^_]*")

_MOST_VALUES = 64
_SURELY = 4
_SMALLEST_SIDE = 16


def named_label(name: str, folder: str) -> bool:
    """Whether a file called `name` (without suffix) in `folder` is a label by its name."""
    own = name[len(folder) :] if name.lower().startswith(folder.lower()) and name != folder else name
    words = _words(_ENTITY.sub("", own))
    if re.match(r"[^\W\d_]+[-_]?\d", own) and any(map(_IMAGE.fullmatch, re.split(r"[-_. ]+", own.lower())[1:])):
        words = words[1:]  # mask01_T1: a person's number
    if any(map(_SPIN_LABEL.fullmatch, words)):
        words = [word for word in words if word not in {"label", "labels"}]
    last = next((word for word in reversed(words) if not word.isdecimal()), "")
    return any(map(_LABEL.fullmatch, words)) or _AT_END.fullmatch(last) is not None


def label_folder(name: str) -> bool:
    """Whether a folder of this name holds labels: labelsTr, masks, manual_segmentations, but not images_and_masks."""
    words = [word for word in _words(name) if word not in {"tr", "ts"}]
    if not words or any(word.isdecimal() or _IMAGE.fullmatch(word) for word in words):
        return False
    one = len(words) == 1 and _AT_END.fullmatch(words[0])
    return bool(one or _LABEL.fullmatch(words[0]) or _LABEL.fullmatch(words[-1]))


def _words(name: str) -> list[str]:
    """Words and numbers in lower case; camelCase is two words."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+|\d+", parts)]


def looks_like_label(images: NDArray[np.float32] | NDArray[np.complex64]) -> bool:
    """Whether images (slices, H, W) have the content of a label: areas of a few integers without gradation.

    Up to three numbers besides the background always count. With more, an image with few grey levels differs from a
    label: its neighbouring pixels mostly have neighbouring levels, and noise leaves no uniform area.
    """
    if np.iscomplexobj(images) or min(images.shape[1:]) < _SMALLEST_SIDE:
        return False
    levels = _levels(images)
    if levels is None or len(levels) < 2:
        return False
    if len(levels) <= _SURELY:
        return True
    ranks = np.searchsorted(levels, images)
    steps, pairs = _steps(ranks)
    return steps.size < 0.25 * pairs and float(np.mean(steps > 1)) > 0.3 if steps.size else True


def _levels(images: NDArray[np.float32] | NDArray[np.complex64]) -> NDArray[np.float32] | None:
    """The values, if they are few non-negative integers; for most images the first slices suffice to tell."""
    levels = np.empty(0, np.float32)
    for image in images:
        levels = np.union1d(levels, np.unique(image))
        if len(levels) > _MOST_VALUES or not np.isfinite(levels).all():
            return None
    whole = levels.size and levels[0] >= 0 and np.array_equal(levels, np.round(levels))
    return levels if whole else None


def _steps(ranks: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """The level differences of unequal neighbours outside the background, and the number of all such neighbours."""
    steps: list[NDArray[np.intp]] = []
    pairs = 0
    for one, other in ((ranks[:, 1:], ranks[:, :-1]), (ranks[:, :, 1:], ranks[:, :, :-1])):
        inside = (one > 0) & (other > 0)
        differ = np.abs(one - other)[inside]
        steps.append(differ[differ > 0])
        pairs += int(inside.sum())
    return np.concatenate(steps), pairs
