"""Whether a folder is a run, told before torch is loaded."""

from pathlib import Path

from fedsim.core.errors import InputError


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run, finished or not."""
    return (folder / "workload.yaml").is_file()


def check_run(folder: Path) -> Path:
    """The folder.

    Raises:
        InputError: it is not a run.
    """
    if not is_run(folder):
        raise InputError(f"{folder}: is not a run (it has no workload.yaml)")
    return folder
