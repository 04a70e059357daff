"""The user's state folder: job receipts, and files of clusters on this machine."""

import os
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """FEDSIM_STATE, or fedsim's folder in ~/.local/state (XDG_STATE_HOME)."""
    return Path(os.environ.get("FEDSIM_STATE") or platformdirs.user_state_path("fedsim")).expanduser().absolute()
