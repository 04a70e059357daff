"""MLflow: a run of an experiment, in a local database or on the server that MLFLOW_TRACKING_URI names."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from fedsim.core.files import lease
from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.tracked import Tracked

_ENDS: dict[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_AT_ONCE, _LONGEST = 100, 6000  # parameters in a request, characters of a value


class MLflow(Tracker):
    """A run of an experiment. A study is an experiment whose points are child runs of one parent run."""

    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy")

    name: Literal["mlflow"] = Field(
        description="MLflow: mlflow.db beside the run directory, or what MLFLOW_TRACKING_URI names."
    )

    _client: Any = PrivateAttr(None)
    _id: str = PrivateAttr("")

    def begin(self, run: Tracked) -> None:
        """Points of a study that begin together make one experiment and one parent."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        run.store.mkdir(parents=True, exist_ok=True)
        with lease(run.store / ".mlflow.lock"):
            self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.store / 'mlflow.db'}")
            self._id = self._run(run)
        self._client.update_run(self._id, status="RUNNING")

    def reached(self, run: Tracked) -> int:
        """As MLflow has it: a round is written as a whole or not at all."""
        return max((point.step for point in self._client.get_metric_history(self._id, "rounds/seconds")), default=0)

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """One request, which its database takes as one transaction."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(tag, value, now, round_) for tag, value in values.items()])

    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """The digest is a tag, the figures are artifacts."""
        if digest:
            self._client.set_tag(self._id, "digest", digest)
        for figure in figures:
            self._client.log_artifact(self._id, str(figure), "figures")
        self._client.set_terminated(self._id, _ENDS[status])

    def _run(self, run: Tracked) -> str:
        """The run noted in the folder, or a new one."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(str(run.notes["run"])).info.run_id)
        except (KeyError, MlflowException):  # it has none yet, or its store was left behind
            return self._new(run)

    def _new(self, run: Tracked) -> str:
        from mlflow.entities import Param

        parent = {"mlflow.parentRunId": self._run(run.study)} if run.study else {}
        made = self._client.create_run(self._experiment(run), tags=parent, run_name=run.name).info.run_id
        params = [Param(key, value[:_LONGEST]) for key, value in run.params.items()]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(made, params=params[first : first + _AT_ONCE])
        self._client.log_artifact(made, str(run.file))
        run.note(run=made)
        return str(made)

    def _experiment(self, run: Tracked) -> str:
        found = self._client.get_experiment_by_name(run.experiment)
        if found is not None:
            return str(found.experiment_id)
        local = None if os.environ.get("MLFLOW_TRACKING_URI") else (run.store / "mlflow-artifacts").absolute().as_uri()
        return str(self._client.create_experiment(run.experiment, artifact_location=local))
