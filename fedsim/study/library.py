"""Optuna, which draws the trials of a search and prunes them: an optional dependency."""

from types import ModuleType

from fedsim.core.errors import InputError


def optuna() -> ModuleType:
    """The library, telling of warnings only.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna as library  # noqa: PLC0415 - optional, and takes a second
    except ImportError as error:
        what = "a search needs optuna, which is not installed; pip install 'fedsim[tune]', or use sampler grid"
        raise InputError(f"tune.sampler: {what}") from error
    library.logging.set_verbosity(library.logging.WARNING)
    return library
