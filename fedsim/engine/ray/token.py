"""The user's token for Ray clusters, and what is said when it is missing, wrong, or no secret."""

import os
import stat
from pathlib import Path

from fedsim.core.errors import InputError

_HOW = "RAY_AUTH_TOKEN_PATH names the file that it is in (mode 600), by default ~/.ray/auth_token"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def user_token() -> str:
    """The token, found where Ray itself looks for it; empty if there is none.

    Raises:
        InputError: other users can read its file.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return ""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not path.is_file():
        return ""
    mode = path.stat().st_mode
    if mode & _OTHERS:
        raise InputError(
            f"{path}: other users have access to this token (mode {mode & 0o777:o}), and with it to the cluster; "
            f"change the token if they are not to be trusted, and run: chmod 600 {path}"
        )
    return path.read_text(encoding="utf-8").strip()


def refused(given: bool) -> str:
    """What a cluster's refusal means, and how to give the right token.

    Args:
        given: Whether it was given one.
    """
    return f"{'the token is not the one of this cluster' if given else 'it asks for a token'}; {_HOW}"
