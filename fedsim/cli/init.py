"""fedsim init and fedsim schema: starting points for writing a workload."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fedsim.core.errors import InputError
from fedsim.core.shipped import shipped


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to create; may exist if it is empty.", metavar="DIR")],
) -> None:
    """Write starter workloads and cluster files into a new folder.

    DIR/workloads holds workloads and studies that run as they are on generated phantoms (quickstart, phantom-sites,
    robustness, scaling-*, client-count-*) and examples for your own images (fedmri-*, paper-scenario-*), whose comments
    say which files they expect. DIR/clusters holds a commented file for each kind of cluster. Edit them freely.
    """
    from fedsim.core.files import making

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; name a new or an empty one")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError(f"{folder}: {parent} is not a folder that you may write to; name another DIR")
    with making(folder) as part:
        for name in ("workloads", "clusters"):
            shutil.copytree(shipped(name), part / name, ignore=shutil.ignore_patterns("__pycache__"))
    for line in (
        f"cd {shlex.quote(str(folder))}",
        "fedsim run workloads/quickstart.yaml    # four phantom hospitals, under 3 minutes on 2 cores",
        "fedsim submit workloads/quickstart.yaml --cluster slurm --dry-run    # what would be sent to a cluster",
    ):
        typer.echo(line)


def schema() -> None:
    """Print the JSON schema of workload files, for editors."""
    from fedsim.workload.schema import Workload

    print(json.dumps(Workload.model_json_schema(), indent=2))  # noqa: T201 - meant for a pipe
