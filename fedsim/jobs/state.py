"""The user's state folder: job receipts, and files of clusters on this machine."""

import os
import tempfile
from pathlib import Path

import platformdirs

from fedsim.core.errors import InputError


def state_folder() -> Path:
    """FEDSIM_STATE, or fedsim's folder in ~/.local/state (XDG_STATE_HOME)."""
    return Path(os.environ.get("FEDSIM_STATE") or platformdirs.user_state_path("fedsim")).expanduser().absolute()


def check_state() -> None:
    """Make sure that the state folder can be written to, before anything is sent.

    Raises:
        InputError: it cannot; says how to name another one.
    """
    folder = state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise InputError(
            f"{folder}: jobs cannot be recorded there ({error.strerror}); name a folder that can be written and that "
            "the cluster's nodes see, with FEDSIM_STATE"
        ) from error
