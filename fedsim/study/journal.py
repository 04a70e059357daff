"""The file of a study's searches: an Optuna journal, lines of JSON, appended to as trials begin and end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.core.errors import DamagedError, WriteError
from fedsim.study.library import optuna

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

FILE = "search.journal"
REMEDY = "delete it, and the same command finds the same trials again from their runs"


def journal(folder: Path, *, writes: bool = False) -> "JournalStorage":
    """The journal of a study's folder; to be read, it must exist.

    Raises:
        InputError: optuna is not installed.
        DamagedError: the file is not what was written.
        WriteError: it cannot be written, now or later.
    """
    path, library = folder / FILE, optuna()
    try:
        if writes and path.exists():
            _drop_cut_line(path)
        return library.storages.JournalStorage(_backend(path))  # type: ignore[no-any-return]
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
        raise DamagedError(f"{path}: is damaged; {REMEDY}") from error


def _backend(path: Path) -> "JournalFileBackend":
    """The file, without a lock: its writer has claimed the study's folder, and a killed process leaves no lock."""
    library = optuna().storages.journal

    class Unlocked(library.JournalFileOpenLock):  # type: ignore[misc, name-defined]
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    class Backend(library.JournalFileBackend):  # type: ignore[misc, name-defined]
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:
                raise WriteError(f"{path}: {error.strerror}") from error

    return Backend(str(path), Unlocked(str(path)))


def _drop_cut_line(path: Path) -> None:
    """Remove a last line that was not written to its end."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
