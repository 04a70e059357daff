"""The base of every section of a workload file: frozen, typed, and closed to unknown keys.

A section is also the thing it describes: a mask section samples masks, an algorithm section is the algorithm. So a new
method, network, importer or mask is one new file that declares its keys beside the code that uses them.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints


class Section(BaseModel):
    """One section of a workload; its fields are the keys, their descriptions the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""An id that may become part of a file name: letters, digits, '_' and '-', at most 64, not starting with '_' or '-'."""


def _inside(path: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "~")) or ".." in parts or ":" in parts[0] or "\0" in path:
        raise ValueError("must be a path inside federation.root: relative, without '..'; set federation.root instead")
    return path


InsidePath = Annotated[str, AfterValidator(_inside)]
"""A path relative to federation.root that cannot leave it."""
