"""Finding the cluster that --cluster names; it is described entirely by its native file."""

import difflib
from pathlib import Path

from fedsim.core.errors import InputError
from fedsim.core.shipped import shipped
from fedsim.core.yaml import read_yaml
from fedsim.jobs.kuberay import KubeRay
from fedsim.jobs.local import Local
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.slurm import Slurm
from fedsim.jobs.target import Target

_SUFFIXES = (".sh", ".sbatch", ".yaml")
_SCHEMES = ("http://", "https://")


def find_target(cluster: str | None) -> Target:
    """The cluster for a URL, a file, or the name of a file in clusters/ without its suffix.

    Raises:
        InputError: there is no cluster of that name, or its file is of no known kind.
    """
    known = _known()
    listed = f"{', '.join(known)}, a file ending in {', '.join(_SUFFIXES)}, or http://HOST:PORT of a Ray dashboard"
    if not cluster:
        raise InputError(f"--cluster: missing; choose one of {listed}")
    if cluster.startswith(_SCHEMES):
        return RayJobs(cluster, cluster)
    path = Path(cluster).expanduser()
    if path.suffix not in _SUFFIXES:
        near = difflib.get_close_matches(cluster, known, n=1)
        if cluster not in known:
            raise InputError(
                f"--cluster {cluster}: " + (f"did you mean {near[0]!r}? " if near else "") + f"choose {listed}"
            )
        path = known[cluster]
    elif not path.is_file():
        raise InputError(f"--cluster {cluster}: no such file; choose {listed}")
    return _target_of(cluster, path.absolute())


def source_of(target: Target) -> str:
    """The URL or the path of a target's file, with which it is found again from any folder."""
    return str(getattr(target, "path", target.name))


def shares_files(target: Target) -> bool:
    """Whether a target's nodes certainly see this machine's folders: SLURM's and local ones do."""
    return target.out is None and (isinstance(target, Local) or not isinstance(target, RayJobs))


def _known() -> dict[str, Path]:
    """The files in clusters/ of the working directory and those that come with fedsim, by name."""
    folders = (shipped("clusters"), Path.cwd() / "clusters")  # the later one takes precedence
    files = {path.stem: path for folder in folders for path in folder.glob("*") if path.suffix in _SUFFIXES}
    return dict(sorted(files.items()))


def _target_of(cluster: str, path: Path) -> Target:
    if path.suffix == ".sh":
        return Local(cluster, path)
    if path.suffix == ".sbatch":
        return Slurm(cluster, path)
    content = read_yaml(path)
    group, kind = str(content.get("apiVersion", "")).partition("/")[0], content.get("kind")
    if group == "ray.io" and kind == "RayJob":
        return KubeRay(cluster, path)
    then = "then --cluster http://127.0.0.1:8265"
    if group == "ray.io":
        name = "its head's service"
        raise InputError(f"--cluster {cluster}: is a {kind}; kubectl apply it, kubectl port-forward {name}, {then}")
    if {"cluster_name", "provider"} <= content.keys():
        raise InputError(f"--cluster {cluster}: is for Ray's launcher; ray up {path}, ray dashboard {path}, {then}")
    raise InputError(f"--cluster {cluster}: {path} is neither a RayJob (apiVersion ray.io/v1) nor Ray's launcher file")
