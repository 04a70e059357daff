"""Replacing a run or a study: the old one is set aside, and deleted once its successor has begun."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsim.core.errors import InputError
from fedsim.core.files import remove
from fedsim.core.own import is_own
from fedsim.core.yaml import read_yaml
from fedsim.engine.record.claim import LOCK, Claim

_OF_A_RUN = {
    "workload.yaml", "manifest.parquet", "rounds.parquet", "clients.parquet", "evaluation.parquet", "failures.parquet",
    "unseen.parquet", "cross.parquet", "floor.parquet", "checkpoints", "figures", "images", "unseen", "report.html",
    "log.txt", "trackers", "wandb", LOCK,
}  # fmt: skip
_OF_A_STUDY = {
    "study.yaml", "base.yaml", "runs", "tables", "figures", "results.parquet", "volumes.parquet", "curves.parquet",
    "tuning.parquet", "failed.parquet", "search.journal", "report.html", "stopping", "log.txt", "trackers",
    "wandb", "mlflow.db", "mlflow-artifacts", ".mlflow.lock", LOCK,
}  # fmt: skip
_EVENTS = "events.out.tfevents.*"  # of TensorBoard

_UNFINISHED = {".part", ".next", ".previous"}
"""The end of names that files have while they are written, or a table while it takes another form."""


@contextmanager
def overwriting(folder: Path) -> Iterator[Callable[[], None]]:
    """Set a run's or a study's folder aside for the block, which creates another under the same name.

    Yields what deletes the old one, to be called when the new one has begun. Where it never was, the old one is put
    back when the block ends.

    Raises:
        InputError: the folder holds anything that no run and no study wrote, or another process writes there.
    """
    if not folder.exists():
        yield lambda: None
        return
    _check_ours(folder)
    aside = folder.absolute().with_name(f".{folder.name}.replaced")
    remove(aside)
    with Claim(folder):
        folder.rename(aside)
    with suppress(OSError):
        (aside / LOCK).unlink()
    try:
        yield lambda: remove(aside)
    finally:
        if aside.exists():
            remove(folder)
            aside.rename(folder)


def _check_ours(folder: Path) -> None:
    """Refuse to delete anything but a run or a study."""
    study = (folder / "study.yaml").is_file()
    file = folder / ("study.yaml" if study else "workload.yaml")
    if folder.is_symlink() or not folder.is_dir() or not file.is_file():
        raise InputError(f"--overwrite: {folder} is not the folder of a run or a study, so it is left as it is")
    content = read_yaml(file)
    written = content.get("workload") == "base.yaml" if study else isinstance(content.get("provenance"), dict)
    if not written:
        raise InputError(f"--overwrite: {file} was not written by a run or a study, so {folder} is left as it is")
    known = (_OF_A_STUDY if study else _OF_A_RUN) | {f"{module}.py" for module in _modules(content)}
    for path in sorted(folder.iterdir()):
        unfinished, own = path.suffix in _UNFINISHED, study and path.suffix == ".py"
        if path.name not in known and not (unfinished or own or path.match(_EVENTS)):
            raise InputError(f"--overwrite: {path} was not written by a run or a study; move it, then repeat")


def _modules(node: object) -> Iterator[str]:
    """The modules of the user's own classes that a workload names; their files are kept with it."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        if is_own(value):
            yield str(value).partition(":")[0]
        else:
            yield from _modules(value)
