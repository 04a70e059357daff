"""Weights & Biases: folders in the run directory, for `wandb sync`; nothing is sent unless WANDB_MODE says so."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.tracked import Tracked

_FLUSH_EVERY_S = 0.1
"""Seconds that a round may wait in the memory of W&B's own process, which a kill loses."""


class WandB(Tracker):
    """A run of a project. A study is a project; its points are the runs of a group."""

    packages: ClassVar[tuple[str, ...]] = ("wandb",)

    name: Literal["wandb"] = Field(
        description="Weights & Biases: offline, in the run directory; online only if WANDB_MODE=online is set."
    )

    _run: Any = PrivateAttr(None)

    def begin(self, run: Tracked) -> None:
        """A resumed run has the same id, and a folder for each time that it ran."""
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        if "run" not in run.notes:
            run.note(run=uuid.uuid4().hex[:8])
        study = run if run.is_study else run.study
        self._run = wandb.init(
            dir=run.folder,
            id=str(run.notes["run"]),
            resume="allow",
            project=run.experiment,
            name=run.name,
            config=run.params,
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                x_disable_stats=True,
                x_transaction_log_flush_interval=_FLUSH_EVERY_S,
            ),
            group=study.folder.name if study else None,
            job_type="point" if run.study else None,
        )

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """A step for each round."""
        self._run.log(dict(values), step=round_, commit=True)

    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """Digest and figures belong to the summary: as a step, figures would take that of a round to come."""
        import wandb

        images = {f"figures/{figure.stem}": wandb.Image(str(figure)) for figure in figures}
        self._run.summary.update({"status": status} | ({"digest": digest} if digest else {}) | images)
        self._run.finish(exit_code=0 if status == "finished" else 1)
