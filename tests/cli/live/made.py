"""Run directories as a run would write them, without training anything."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedsim.engine.record.appended import AppendedTable
from fedsim.engine.record.failures import Failure, Failures
from fedsim.engine.record.run_directory import begin_run
from fedsim.workload.schema import Workload


class MadeRun:
    """A run that writes a round whenever it is told to."""

    def __init__(self, path: Path, workload: Workload) -> None:
        begin_run(path, workload.settled(), lambda: None)
        (path / "checkpoints").mkdir()
        self.path, self.workload, self.reached = path, workload, 0
        self.names = list(workload.client_names())
        sites, federation = workload.federation.expanded_sites(), workload.federation.client_names()
        self.sites = [sites.name(federation.site(place)) for place in range(len(self.names))]
        self.tables = {name: AppendedTable(path / f"{name}.parquet") for name in ("rounds", "clients")}

    def rounds(self, count: int, *, part: float = 1.0, failing: float = 0.0) -> None:
        """Write some rounds, in each of which a part of the clients trains; virtual time is 100 s a round."""
        for _ in range(count):
            self.reached += 1
            self._append(self.reached, np.random.default_rng(self.reached), part, failing)
        for table in self.tables.values():
            table.flush()

    def _append(self, round_: int, rng: np.random.Generator, part: float, failing: float) -> None:
        drawn = np.flatnonzero(rng.random(len(self.names)) < part)
        psnr = 24 + 8 * (1 - np.exp(-round_ / 15)) + (drawn * 7 % 11) / 4 + rng.normal(0, 0.15, drawn.size)
        clients = pa.table({
            "round": np.full(drawn.size, round_), "client": [self.names[at] for at in drawn],
            "site": [self.sites[at] for at in drawn],
            "outcome": np.where(rng.random(drawn.size) < failing, "dropped", "trained"),
            "train_seconds": rng.uniform(1, 2, drawn.size),
            "loss": 0.2 * np.exp(-round_ / 20) + 0.01 * rng.random(drawn.size),
            "psnr": psnr, "ssim": psnr / 40, "nmse": 1 / psnr,
        })  # fmt: skip
        row: dict[str, Any] = {
            "round": round_, "seconds": 20.0, "clients": drawn.size, "failed": 0,
            "loss": clients["loss"].to_numpy().mean(), "psnr": psnr.mean(),
            "ssim": psnr.mean() / 40, "nmse": 1 / psnr.mean(),
            "uplink_bytes": 1_200_000 * drawn.size, "downlink_bytes": 2_400_000 * drawn.size,
        }  # fmt: skip
        if self.workload.time is not None:
            row["virtual_s"] = 100.0 * round_
        for name, table in (("clients", clients), ("rounds", pa.table({key: [value] for key, value in row.items()}))):
            self.tables[name].append(table)

    def fail(self, client: str, message: str) -> None:
        """Note that a client was dropped in the newest round."""
        Failures(self.path).note([Failure(
            round=self.reached, phase="train", client=client, kind="raised", action="dropped", message=message,
        )])  # fmt: skip
