"""The how-tos: what they have their reader write and run, done as they say."""

from pathlib import Path

import pytest

from .blocks import DOCS, blocks, perform, workplace


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [
        "howto-cluster.md",
        "howto-data.md",
        "howto-gpu.md",
        "howto-method.md",
        "howto-network.md",
        "howto-trackers.md",
        "howto-tuning.md",
    ],
)
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    folder = workplace(tmp_path)
    for step in blocks(DOCS / page):
        perform(step, folder)
