"""Renamed keys: read under their new names, also in old run directories."""

import logging
from collections.abc import Mapping
from typing import Any

from fedsim.core.errors import InputError

log = logging.getLogger("fedsim")

_RENAMED = {"engine": {"on_error": "on_client_error", "on_failure": "on_lost_process"}}
"""By section: old names and new ones."""


def current_key(key: str) -> str:
    """The present name of a dotted key; an old name is noted in the log."""
    section, _, name = key.partition(".")
    new = _RENAMED.get(section, {}).get(name)
    if new is None:
        return key
    log.info("%s is the old name of %s.%s; use the new one", key, section, new)
    return f"{section}.{new}"


def with_current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and their values with every key by its present name.

    Raises:
        ValueError: a key is given under both names.
    """
    for section, names in _RENAMED.items():
        for old, new in names.items():
            if {f"{section}.{old}", f"{section}.{new}"} <= settings.keys():
                raise ValueError(f"{section}.{old} is the old name of {section}.{new}; delete one of them")
    return {current_key(key): value for key, value in settings.items()}


def with_current_keys(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The content of a workload file with every key by its present name.

    Raises:
        InputError: a key is given under both names; the message begins with `where`.
    """
    sections = {name: content[name] for name in _RENAMED if isinstance(content.get(name), Mapping)}
    return {**content, **{name: _renamed(name, given, where) for name, given in sections.items()}}


def _renamed(section: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    for old, new in _RENAMED[section].items():
        if old in given and new in given:
            raise InputError(f"{where}{section}.{old}: is the old name of {section}.{new}; delete one of them")
    return {current_key(f"{section}.{key}").partition(".")[2]: value for key, value in given.items()}
