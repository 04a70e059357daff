"""The run directory: its contents, opening it, and what may change when a run is resumed."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from fedsim.algorithms import hooks
from fedsim.algorithms.base import ServerState
from fedsim.algorithms.learner import Learner
from fedsim.core.errors import DamagedError, InputError, WriteError
from fedsim.core.files import write_text
from fedsim.core.own import check_owner
from fedsim.data.coils import method_of
from fedsim.data.evaluation import reconstruct_coils
from fedsim.data.kspace import is_undersampled, measured
from fedsim.data.samples import ClientData
from fedsim.engine.host.messages import Setup
from fedsim.engine.host.training import make_learner
from fedsim.engine.record.idle import with_idle
from fedsim.engine.record.kept import keep_files, keep_own, own_names, versions_of
from fedsim.engine.record.ledger import read_table
from fedsim.engine.record.provenance import provenance
from fedsim.engine.record.run_folder import check_run
from fedsim.engine.state import checkpoint
from fedsim.models.warm_start import read_tensors
from fedsim.mri.fft import fft2c
from fedsim.mri.masks import BoolArray
from fedsim.workload.metrics import FEW
from fedsim.workload.names import check_client
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from fedsim.workload.sites import Site

log = logging.getLogger("fedsim")

Which = str | int
"""A round: its number, `best` or `last`."""
_NEEDED = {
    "manifest": {"client", "site", "subject", "volume", "slice", "split"},
    "rounds": {"round", "seconds"},
    "clients": {"round", "client"},
    "evaluation": {"round", "site", "psnr"},
}
"""Columns of each table without which it is another one."""


def setup_of(workload: Workload) -> Setup:
    """What the workload's hosts are created with."""
    engine, training = workload.engine, workload.training
    return Setup(
        algorithm=workload.algorithm,
        model=workload.model,
        seed=workload.seed,
        threads=engine.threads,
        protocol=workload.metrics.protocol,
        target=workload.federation.target,
        references=workload.metrics.references,
        channels_last=training.memory_format == "channels_last",
        deterministic=engine.deterministic,
        graphs=engine.graphs,
        fuse=training.fuse,
        tolerant=engine.on_client_error == "drop",
        faulty=bool(workload.faults),
        start=read_tensors(training.init) if training.init else None,
    )


class Run:
    """A run directory, finished or still being written."""

    def __init__(self, path: str | Path, overrides: Sequence[str] = (), *, trust: bool | None = None) -> None:
        """Open a run; its own code is not executed before a network is requested.

        Args:
            path: Run directory.
            overrides: `KEY=VALUE`, of what a resumed run may change.
            trust: None: run this user's code only; True: anyone's; False: none at all.

        Raises:
            InputError: the folder is not a run.
        """
        self.path = check_run(Path(path))
        self._overrides, self._trust = tuple(overrides), trust
        self.workload = load_workload(self.path / "workload.yaml", self._overrides, code=False)
        """The workload, with only the keys of a user's own method."""
        if self.workload.provenance is None:  # what is cut off after a whole section would be read as defaults
            cut = "is cut off: it lacks provenance, with which every run's ends"
            raise InputError(f"{self.path / 'workload.yaml'}: {cut}; restore the file")

    @cached_property
    def runnable(self) -> Workload:
        """The workload with a user's own method, whose file is executed for it.

        Raises:
            InputError: it may not be run.
        """
        if not own_names(self.workload):
            return self.workload
        self.check_code()
        return load_workload(self.path / "workload.yaml", self._overrides)

    def check_code(self) -> None:
        """Say whose code is about to be run, if the run has some.

        Raises:
            InputError: it may not be run.
        """
        if names := own_names(self.workload):
            check_owner(self.path, names, self._trust)

    def __repr__(self) -> str:
        """Name, rounds, clients and state, for a prompt."""
        clients = len(self.workload.client_names())
        rounds, done = self.workload.training.rounds, max(checkpoint.complete_rounds(self.path), default=0)
        evaluated = done == rounds and (self.path / "evaluation.parquet").exists()
        state = "evaluated" if evaluated else "trained" if done == rounds else "not finished"
        return f"<Run {self.workload.name} in {self.path}: {done} of {rounds} rounds, {clients:,} clients, {state}>"

    @property
    def rounds(self) -> pd.DataFrame:
        """One row per round."""
        return self._table("rounds")

    @property
    def clients(self) -> pd.DataFrame:
        """One row per client per round, up to 256 clients; of more, the rows of those that took part."""
        few, table = len(self.workload.client_names()) <= FEW, self._table("clients")
        return with_idle(table, self.path / "manifest.parquet") if few else table

    @property
    def manifest(self) -> pd.DataFrame:
        """One row per slice, of the sites that have taken part."""
        return self._table("manifest")

    @property
    def evaluation(self) -> pd.DataFrame:
        """One row per volume; what `evaluate` wrote."""
        return self._table("evaluation")

    def round(self, which: Which = "best") -> int:
        """The number of a checkpointed round.

        Raises:
            InputError: there is no such checkpoint.
        """
        complete = checkpoint.complete_rounds(self.path)
        if not complete:
            raise InputError(f"{self.path}: has no complete checkpoint yet")
        if which == "last":
            return complete[-1]
        if which == "best":
            best = checkpoint.read_state(self.path, complete[-1])["best_round"]
            return int(best) if best in complete else complete[-1]
        found = {str(number): number for number in complete}.get(str(which).lstrip("0"))
        if found is None:
            raise InputError(f"--round {which}: must be best, last or one of {', '.join(map(str, complete))}")
        return found

    def stored(self, which: Which = "best") -> list[str]:
        """The clients whose state a checkpoint has: all, or those drawn so far if clients are made by a rule."""
        return list(checkpoint.read_state(self.path, self.round(which))["clients"])

    def model(self, client: str, which: Which = "best") -> nn.Module:
        """A client's network at a checkpoint: shared parameters and its own.

        It takes k-space (B, H, W) that is zero where `mask` (B, H, W) is False and divided by a positive scale, as
        `fedsim.data.batch.undersample` does, and gives magnitudes (B, H, W) divided likewise; `reconstruct` takes
        raw data.
        """
        return self.learner(client, which).network

    def reconstruct(self, raw: NDArray[Any], client: str, which: Which = "best") -> NDArray[np.float32]:
        """Images (..., H, W) of raw data by a client's network, in the input's units.

        Args:
            raw: Complex k-space (..., H, W), centred and orthonormal, or real images (..., H, W), at the matrix that
                the client was trained with or any other that its network takes. A run that keeps coils takes k-space
                (..., C, H, W), with sensitivities from its calibration region. k-space with zeros between its samples
                keeps its own mask; what is fully sampled is undersampled with the mask of the client's site.
            client: Whose network, and whose mask.
            which: The round.

        Raises:
            InputError: the run has no such client, or the shape does not suit its network.
        """
        model, federation = self.runnable.model, self.workload.federation
        if raw.ndim < 2 or not model.fits(raw.shape[-2:]):
            raise InputError(f"{raw.shape}: must be (..., H, W), H and W {model.remedy(raw.shape[-2:])}")
        network = self.model(client, which)
        kspace = raw if np.iscomplexobj(raw) else fft2c(torch.from_numpy(raw.astype(np.complex64))).numpy()
        together = federation.coil_settings.kept and np.iscomplexobj(raw) and raw.ndim > 2
        kspace = kspace.astype(np.complex64).reshape(-1, raw.shape[-3] if together else 1, *raw.shape[-2:])
        site = self._site(client)
        mask = self._mask(site, raw.shape[-2:])
        masks = [measured(one) if is_undersampled(one) else mask for one in kspace]
        how = federation.normalise, federation.coil_settings, method_of(site.source)
        images = [reconstruct_coils(network, one, sampled, *how)[0] for one, sampled in zip(kspace, masks, strict=True)]
        return np.stack(images).reshape(*raw.shape[: -3 if together else -2], *raw.shape[-2:])

    def _site(self, client: str) -> Site:
        sites = self.runnable.federation.expanded_sites()
        return sites[sites.place(client.partition(".")[0]) or 0]

    def _mask(self, site: Site, shape: tuple[int, int]) -> BoolArray:
        """A mask of a site; if each volume has its own, the one of a volume named raw."""
        federation = self.runnable.federation
        data = ClientData(
            shard=Path(),
            site=site.name,
            pieces=(),
            supports=(),
            mask=site.mask.at(federation.root),
            matrix=shape,
            normalise=federation.normalise,
            seed=self.workload.seed,
        )
        return data.volume_mask("raw", shape)

    def learner(self, client: str, which: Which = "best") -> Learner:
        """A working network set up as a client would use it.

        Raises:
            InputError: the run has no such client.
        """
        at = checkpoint.read_state(self.path, self.round(which))
        check_client(client, self.runnable.client_names())
        with torch.inference_mode(mode=False):  # the caller may be in inference mode
            learner = make_learner(setup_of(self.runnable))
        state = checkpoint.read_client(self.path, at, client, learner.flat("local")) or learner.fresh_state()
        learner.private = state
        learner.adopt(state)
        server = self._server(at, client, learner)
        if "buffers" in server:
            learner.shared_buffers.copy_(torch.from_numpy(server["buffers"]))
        with hooks.blamed(self.runnable.algorithm, "deploy", f"client {client}"):
            self.runnable.algorithm.deploy(learner, {"shared": torch.from_numpy(server["shared"])})
        learner.network.eval()
        return learner

    def _server(self, at: dict[str, Any], client: str, learner: Learner) -> ServerState:
        """The state of the server at a checkpoint, or of that of the client's region."""
        server = checkpoint.read_server(self.path, at, learner.flat("shared"))
        time, names = self.workload.time, self.workload.federation.client_names()
        place = names.place(client)
        if time is None or time.hierarchy is None or place is None:
            return server
        return checkpoint.read_others(self.path, at).get(str(time.hierarchy.region(place, len(names))), server)

    def _table(self, name: str) -> pd.DataFrame:
        path = self.path / f"{name}.parquet"
        if not path.exists():
            raise InputError(f"{path}: does not exist yet")
        table = read_table(path)
        missing = _NEEDED[name] - set(table)
        if missing:
            raise DamagedError(f"{path}: is another table (it has no column {min(missing)})")
        return table


def begin_run(path: Path, workload: Workload, manifest: Callable[[], None]) -> Workload:
    """Create a run directory with the resolved workload, versions, machine and manifest; or resume one.

    A resumed run keeps the versions, the machine and the threads that it began with; rounds.parquet has those of
    each round. Returns the workload with them.

    Raises:
        InputError: the folder cannot be written.
    """
    now = provenance(workload.engine) | versions_of(workload)
    begun = Run(path).workload if (path / "workload.yaml").exists() else None
    before = (begun and begun.provenance) or now
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        log.warning("resumed with another %s than the run began with: the last bits may differ", ", ".join(changed))
    threads = begun.engine.threads if begun else workload.engine.threads
    engine = workload.engine.model_copy(update={"threads": threads})
    stamped = workload.model_copy(update={"provenance": before, "engine": engine})
    try:
        path.mkdir(parents=True, exist_ok=True)
        keep_own(path, workload)
        stamped = keep_files(path, stamped)
        write_text(path / "workload.yaml", write_yaml(json.loads(stamped.model_dump_json(exclude_none=True))))
        manifest()
    except (OSError, WriteError) as error:
        raise InputError(f"--out {path}: cannot be written ({error})") from error
    return stamped
