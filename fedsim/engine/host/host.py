"""A host: a plain object that holds some clients and one working network, and does what the driver asks.

A Ray actor is a host in another process; the serial backend is one host in this one. What a host returns is all that
ever leaves a client: the uploads that its method declares, and numbers for the ledger.
"""

import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Upload, Vector
from fedsim.algorithms.learner import Learner, State
from fedsim.core.errors import ClientError, DivergedError, InputError, RunError
from fedsim.core.files import writing
from fedsim.core.own import is_own
from fedsim.core.seeds import torch_stream
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.samples import SliceMemory, Slices, unsound
from fedsim.data.split import Part
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Faults, Limits, Reply, Row, Setup, Task
from fedsim.engine.host.process import Pace, Watch, here, keep_freed_memory
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.host.sums import largest
from fedsim.engine.host.uploads import PartialSums, uploads_of
from fedsim.engine.state import client_files as clientfiles
from fedsim.engine.state.store import StateStore, state_bytes
from fedsim.mri.metrics import Quality, mean_quality
from fedsim.workload.faults import Fault, flip_a_bit

_NO_LIMITS = Limits()
_NO_FAULTS: Faults = {}


def make_learner(setup: Setup, memory: SliceMemory | None = None) -> Learner:
    """The working network, initialised from the seed: the same for every host."""
    network = setup.model.build(torch_stream(setup.seed, "model"))
    return Learner(
        network,
        partial(hooks.shares, setup.algorithm),
        device=setup.device,
        channels_last=setup.channels_last,
        memory=memory,
    )


@dataclass(frozen=True)
class _Made:
    """What a client's turn has made."""

    state: State
    sent: dict[str, Vector]
    noted: dict[str, float]


class Host:
    """Some clients with their private state. What it is asked for it gives piece by piece, so that progress shows."""

    def __init__(self, setup: Setup, clients: tuple[ClientSpec, ...], limits: Limits = _NO_LIMITS) -> None:
        torch.set_num_threads(setup.threads)
        keep_freed_memory()
        self._setup, self._limits = setup, limits
        self._slices = SliceMemory(limits.slice_bytes, setup.device)
        self._learner = make_learner(setup, self._slices)
        self._clients = {client.name: client for client in clients}
        self._states = StateStore(self._learner.fresh_state, limits.state_bytes, limits.scratch)

    # Rounds

    def train(
        self, task: Task, weights: Mapping[str, float], broadcast: Mapping[str, Vector], faults: Faults = _NO_FAULTS
    ) -> Iterator[Reply]:
        """Let the named clients do a phase of a round, one after the other; `partial_sums` has what they add up to.

        Args:
            task: The phase.
            weights: Weight of each client that takes part.
            broadcast: What the server sends; read-only.
            faults: What goes wrong on purpose.

        Yields:
            Replies; after a client has failed, no more work is done unless the run goes on without it.
        """
        received, uploads = self._on_device(broadcast), self._uploads(task)
        self._sums = PartialSums(uploads)
        yield Reply()  # from now on a client is at work
        reply, pace = Reply(), Pace(self._limits.report_seconds)
        for name, following in pairwise([*weights, ""]):
            self._states.expect(following)
            begun, watch = time.time(), Watch(self._slices)
            try:
                made = self._turn(task, name, received, uploads, watch, faults.get(name, ()))
                with self._blaming(made.sent, name, task.round, faults):
                    bounds = self._sums.check(made.sent, weights[name], f"client {name}, round {task.round}")
            except ClientError as error:
                reply.failed[name] = error
                if not self._setup.tolerant:
                    break
            else:
                self._states.put(name, made.state)
                self._sums.add(made.sent, weights[name], bounds)
                apart = self._sums.apart(made.sent)
                if apart:
                    reply.collected[name] = apart
                watch.lap("send")
                down = hooks.downlink(self._setup.algorithm, name, broadcast, task.phase)
                reply.rows.append({
                    **self._who(task.round, name), "weight": weights[name], "loss": float("nan"), **made.noted,
                    "wait_seconds": max(0.0, begun - task.since), **watch.seconds(),
                    "private_bytes": state_bytes(made.state),
                    "uplink_bytes": sum(vector.nbytes for vector in made.sent.values()),
                    "downlink_bytes": sum(broadcast[key].nbytes for key in down),
                })  # fmt: skip
            if reply.collected or pace.due():
                yield reply
                reply = Reply()
        received.check(f"round {task.round}", thorough=True)
        yield reply

    def _turn(
        self, task: Task, name: str, received: ReadOnly, uploads: Sequence[Upload], watch: Watch,
        faults: Sequence[Fault],
    ) -> _Made:  # fmt: skip
        """A client's work in a phase."""
        with self._at_work(name, task.round, received, training=True) as learner:
            watch.lap("load")
            for fault in faults:
                fault.strike()
            with hooks.contained():
                made = self._setup.algorithm.train(learner, received.tensors, task.phase)
            sent = hooks.sent(self._setup.algorithm, learner, made, uploads)
            watch.lap("train")
            own = self._setup.algorithm.name if is_own(self._setup.algorithm.name) else ""
            noted = _means(learner, self._clients[name].data, f"client {name}, round {task.round}", own)
            state = learner.leave()
            if not np.isfinite(largest(state["local"].numpy())):
                who = f"client {name}, round {task.round}"
                raise DivergedError(f"{who}: its own parameters are not finite; lower its lr")
        for fault in faults:
            sent = {upload: fault.spoil(vector) for upload, vector in sent.items()}
        return _Made(state, sent, noted)

    def partial_sums(self) -> Reply:
        """The sums of the uploads of the last phase; a call of its own, since large pieces of a stream are slow."""
        return Reply(sums=self._sums.totals())

    def validate(
        self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector], since: float
    ) -> Iterator[dict[str, Row]]:
        """Mean validation quality over the volumes of each named client that has any; over sites if it has several.

        Args:
            round_: Counted from 1.
            names: Clients to validate.
            broadcast: What the server has after the round.
            since: Time [s since 1970] at which validation began.
        """
        received = self._on_device(broadcast)
        means, pace = dict[str, Row](), Pace(self._limits.report_seconds)
        for name in names:
            begun = time.time()
            sites: dict[str, list[Quality]] = {}
            for volume in self._reconstruct(round_, name, received, "val"):
                sites.setdefault(volume.site, []).append(volume.quality(self._setup.protocol))
            if sites:
                quality = mean_quality([mean_quality(volumes) for volumes in sites.values()])._asdict()
                times = {"evaluate_begin_seconds": max(0.0, begun - since), "evaluate_seconds": time.time() - begun}
                means[name] = {**quality, **times, **here()}
            if pace.due():
                yield means
                means = {}
        yield means

    def evaluate(
        self, round_: int, names: tuple[str, ...], broadcast: Mapping[str, Vector], part: Part, images: Path | None
    ) -> Iterator[list[Row]]:
        """Score the named clients' volumes of a part, one row a volume; saves the images if a folder is given."""
        received, pace = self._on_device(broadcast), Pace(self._limits.report_seconds)
        rows: list[Row] = []
        for name in names:
            for volume in self._reconstruct(round_, name, received, part):
                who: dict[str, str | int] = {"round": round_, "client": name}
                rows.append({**who, "protocol": self._setup.protocol, **volume.score(self._setup.protocol)})
                if images is not None:
                    own = len(self._clients[name].data.members) == 1
                    target = images / (name if own else volume.site) / f"{volume.piece.volume}.h5"
                    volume.save(target, **who, protocol=self._setup.protocol)
            if pace.due():
                yield rows
                rows = []
        yield rows

    # Private state: to and from checkpoints, and to another host of the node

    def layouts(self, names: tuple[str, ...]) -> Iterator[dict[clientfiles.Layout, list[str]]]:
        """What a checkpoint will have to hold of the named clients: those whose states look alike, together."""
        alike: dict[clientfiles.Layout, list[str]] = {}
        for name in names:
            layout = clientfiles.client_layout(self._states.layout(name), self._learner.local_layout)
            alike.setdefault(layout, []).append(name)
        yield alike

    def save(
        self, folder: Path, files: Mapping[str, Sequence[str]], faults: Faults = _NO_FAULTS
    ) -> Iterator[clientfiles.Digests]:
        """Write clients' private state into the files that are laid out for it in a checkpoint's folder."""
        for file, names in files.items():
            struck = [fault for name in names for fault in faults.get(name, ())]
            with writing(folder / file):
                for fault in struck:
                    fault.strike()
            states = ((name, self._states.take(name)) for name in names)
            yield clientfiles.fill(folder / file, states, self._learner.local_layout)
            if any(fault.kind == "corrupt" for fault in struck):
                flip_a_bit(folder / file)

    def load(self, parts: Sequence[clientfiles.FilePart]) -> Iterator[int]:
        """Take up clients' private state from their files in a checkpoint's folder.

        Raises:
            DamagedError: a file is not what was written.
        """
        for part in parts:
            for name, state in clientfiles.read_clients(part, self._learner.local_layout):
                self._states.put(name, state)
        yield len(parts)

    def reset(self, names: Sequence[str]) -> Iterator[int]:
        """Let clients start anew."""
        for name in names:
            self._states.forget(name)
        yield len(names)

    def hand_over(self, names: Sequence[str]) -> tuple[list[ClientSpec], list[clientfiles.FilePart]]:
        """Let go of some clients: their private state goes to a folder of this node, for its next host alone."""
        scratch = self._limits.scratch or Path(tempfile.gettempdir())
        with writing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="fedsim-", dir=scratch))
        parts = []
        for name in names:
            file = folder / clientfiles.own_file(name)
            layout = clientfiles.client_layout(self._states.layout(name), self._learner.local_layout)
            with writing(file):
                header = clientfiles.allocate(file, {name: layout})
            digests = clientfiles.fill(file, [(name, self._states.take(name))], self._learner.local_layout)
            parts.append(clientfiles.FilePart(file, header, digests))
            self._states.forget(name)
            self._slices.forget(self._clients[name].data)
        return [self._clients.pop(name) for name in names], parts

    def take_over(self, handed: tuple[list[ClientSpec], list[clientfiles.FilePart]]) -> None:
        """Take on what another host of this node has let go of."""
        clients, parts = handed
        self._clients.update({client.name: client for client in clients})
        for part in parts:
            for name, state in clientfiles.read_clients(part, self._learner.local_layout):
                self._states.put(name, state)
            part.file.unlink()
        parts[0].file.parent.rmdir()

    def clients(self) -> tuple[str, ...]:
        """Names of the clients that live here."""
        return tuple(self._clients)

    # Within

    def _uploads(self, task: Task) -> list[Upload]:
        server = self._learner.fresh_server()
        return uploads_of(self._setup.algorithm, task.phase, server, f"round {task.round}")

    def _on_device(self, broadcast: Mapping[str, Vector]) -> ReadOnly:
        return ReadOnly(broadcast, self._learner.device, self._setup.algorithm)

    @contextmanager
    def _blaming(self, sent: Mapping[str, Vector], name: str, round_: int, faults: Faults) -> Iterator[None]:
        """Say so if it is a user's own method that made numbers that cannot be summed, of a network that is sound.

        Raises:
            ClientError: it is.
        """
        try:
            yield
        except DivergedError as error:
            network = largest(self._learner.shared.cpu().numpy())
            wrong = [key for key, vector in sent.items() if key != "buffers" and not largest(vector) <= network]
            if not (is_own(self._setup.algorithm.name) and name not in faults and wrong and np.isfinite(network)):
                raise
            what = f"train of {self._setup.algorithm.name} returned NaN, infinite or too large numbers as {wrong[0]!r}"
            raise ClientError(f"client {name}, round {round_}: {what}, though its network is finite") from error

    def _who(self, round_: int, name: str) -> Row:
        client = self._clients[name]
        return {
            "round": round_, "client": name, "site": client.site, "samples": client.data.samples(), **here(),
            "outcome": "trained", "device": str(self._learner.device),
        }  # fmt: skip

    def _reconstruct(self, round_: int, name: str, received: ReadOnly, part: Part) -> Iterator[ReconstructedVolume]:
        client = self._clients[name]
        if not client.data.samples(part):
            return
        with self._at_work(name, round_, received) as learner:
            with hooks.contained():
                self._setup.algorithm.deploy(learner, received.tensors)
            own = is_own(self._setup.algorithm.name)  # others only load what has been found finite
            if own and not np.isfinite(largest(learner.shared.cpu().numpy())):
                who = f"client {name}, round {round_}: {self._setup.algorithm.name}"
                raise ClientError(f"{who} left NaN or infinite parameters in the network (in deploy)")
            learner.network.eval()
            size = client.training.batch_size
            yield from reconstruct_volumes(learner.network, client.data, part, size, learner.device)

    @contextmanager
    def _at_work(self, name: str, round_: int, received: ReadOnly, training: bool = False) -> Iterator[Learner]:
        """The working network with a client's private state swapped in; an error says whose it was.

        Only training gives the state back to the store; looking at images changes nothing. Training changes a state in
        place; on a copy, if the run may go on without this turn.
        """
        client, state = self._clients[name], self._states.take(name)
        if training and self._setup.tolerant:
            state = {key: value.clone() for key, value in state.items()}
        try:
            self._learner.enter(state, client.data, client.training, round_, name)
            if "buffers" in received.tensors:
                self._learner.shared_buffers.copy_(received.tensors["buffers"])
            yield self._learner
            received.check(f"client {name}, round {round_}")
        except (RunError, InputError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            at = f"client {name}, round {round_}, seed {self._setup.seed}"
            hook = "train" if training and is_own(self._setup.algorithm.name) else ""
            what = hooks.explained(self._setup.algorithm, error, at, hook)
            raise ClientError(what, traceback.format_exc()) from error


def _means(learner: Learner, data: Slices, who: str, own: str) -> dict[str, float]:
    """The means of what a client noted in its steps; `own` is the method if it is a user's.

    Raises:
        DivergedError: one is not finite; names the client, and the slice that is to blame if one is.
    """
    noted = {key: float(np.mean(values)) for key, values in learner.statistics.items() if values}
    wrong = [key for key, value in noted.items() if not np.isfinite(value)]
    if wrong:
        raise DivergedError(f"{who}: the {wrong[0]} is not finite; {_suspects(learner, data, own)}")
    return {**noted, "steps": len(learner.statistics["loss"])}


def _suspects(learner: Learner, data: Slices, own: str) -> str:
    """Where to look for the cause of a loss that is not finite: at the learning rate only if the data are sound."""
    if slice_ := unsound(data):
        return f"{slice_} is not as other images are: leave it out"
    if learner.round > 1 or np.isfinite(learner.statistics["loss"][:1]).all():
        return "its data are sound, so " + (f"look at {own}, then " if own else "") + "lower its learning rate"
    return (
        "it was so before the first step, and its data are sound: look at what the network starts from, not at the lr"
    )
