"""Numbers in readable form: sizes, durations, counted nouns, and the values of keys."""

import json

from humanize.filesize import naturalsize


def bytes_text(size: float) -> str:
    """A number of bytes in three digits and a decimal unit: `12 bytes`, `1.08 kB`, `26 MB`."""
    return naturalsize(size, format="%.3g").replace("Byte", "byte")


def duration(seconds: float) -> str:
    """A time to the second or, from an hour on, to the minute: `12 s`, `1 min 30 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def precise_duration(seconds: float) -> str:
    """A measured time; under a minute with decimals: `4.2 ms`, `1.50 s`, `1 min 15 s`."""
    if seconds >= 60:
        return duration(seconds)
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def counted(number: int, noun: str) -> str:
    """A number with its noun, which gets an s in the plural: `1 seed`, `3 seeds`, `1,000 sites`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit for an axis of times up to this one: its seconds, and its name."""
    units = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"))
    return next((unit for unit in units if seconds >= 3 * unit[0]), (1.0, "s"))


def value_text(value: object) -> str:
    """The value of a key as a file has it: `4`, `buffered`, `[20, 400]`, `null`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
