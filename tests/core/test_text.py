"""Sizes, durations and counts read as people write them."""

import pytest

from fedsim.core.text import bytes_text, counted, duration, precise_duration


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (12, "12 bytes"),
        (1080, "1.08 kB"),
        (2.7e6, "2.7 MB"),
        (999.9e6, "1 GB"),
        (1.2e12, "1.2 TB"),
    ],
)
def test_bytes(size: float, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12 s"), (59.6, "1 min 0 s"), (90, "1 min 30 s"), (7500, "2 h 5 min")]
)
def test_durations_to_the_second(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0042, "4.2 ms"), (1.5, "1.50 s"), (75, "1 min 15 s")])
def test_measured_times_keep_their_decimals(seconds: float, text: str) -> None:
    assert precise_duration(seconds) == text


def test_only_one_is_singular() -> None:
    assert [counted(number, "seed") for number in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
