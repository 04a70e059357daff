"""Reading untrusted files: every error becomes one line, and no stated size is trusted."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from fedsim.core.errors import InputError


@contextmanager
def reading(file: Path, expected: str) -> Iterator[None]:
    """Turn any exception inside into one line that names `file`; silence warnings of libraries about odd files.

    Raises:
        InputError: the reason of the exception, followed by what was `expected`.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            if file.stat().st_size == 0:
                raise InputError(f"is empty; expected {expected}")
            yield
        except InputError as error:
            raise InputError(f"{file}: {one_line(str(error))}") from None
        except Exception as error:  # readers raise nearly any exception for a damaged file
            reason = one_line(str(error))[:200] or type(error).__name__
            raise InputError(f"{file}: cannot be read ({reason}); expected {expected}") from error
        finally:
            logging.disable(disabled)


def one_line(text: str) -> str:
    """`text` made safe for a message, whatever the file contained."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:400]


_HARMLESS = 2**24
_MOST_PACKED = 4096


def afford(file: Path, shape: Sequence[int], itemsize: int) -> None:
    """Refuse an array that `file` cannot really hold, before any memory is allocated for it.

    Deflate compresses zeros 1032-fold, LZW 2600-fold, and images far less; small arrays are always accepted.

    Raises:
        InputError: the array is larger than the file can decompress to, or than this machine's memory.
    """
    claimed, size = math.prod(shape) * itemsize, file.stat().st_size
    array = " x ".join(map(str, shape)) + f" values of {itemsize} bytes"
    if min(shape, default=0) < 0 or claimed > max(_HARMLESS, _MOST_PACKED * size):
        raise InputError(f"claims to hold {array:.200}, which a file of {size} bytes cannot")
    if claimed > psutil.virtual_memory().total:
        raise InputError(f"holds {array:.200}, more than this machine's memory; cut it into several files")
