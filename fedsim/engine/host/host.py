"""A host: a plain object that holds some clients and one working network, and answers the driver's messages.

A Ray actor is a host in another process; the serial backend is one host in this one. What a host returns is all that
ever leaves a client: the uploads that its method declares, and numbers for the ledger.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar, assert_never

import numpy as np
import torch

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.algorithms.training import State
from fedsim.core.errors import ClientError, DivergedError
from fedsim.core.seeds import torch_stream
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.samples import SliceMemory
from fedsim.data.split import Part
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.diverged import means
from fedsim.engine.host.fusion import FusedLearner, Fusion
from fedsim.engine.host.messages import (
    NOTHING,
    Evaluate,
    Layouts,
    Limits,
    Load,
    Message,
    Reply,
    Reset,
    Row,
    Save,
    Setup,
    Train,
    Validate,
)
from fedsim.engine.host.process import Pace, Watch, here, keep_freed_memory
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.host.residents import Residents
from fedsim.engine.host.sums import largest
from fedsim.engine.host.uploads import PartialSums, Sent, uploads_of
from fedsim.engine.state.store import state_bytes
from fedsim.mri.metrics import Quality, mean_quality

_NO_LIMITS = Limits()
_L = TypeVar("_L", bound=Learner)


def make_learner(setup: Setup, memory: SliceMemory | None = None) -> Learner:
    """The working network, initialised from the seed: the same for every host."""
    return _made(Learner, setup, memory)


def _made(kind: type[_L], setup: Setup, memory: SliceMemory | None) -> _L:
    network = setup.model.build(torch_stream(setup.seed, "model"))
    return kind(
        network,
        partial(hooks.shares, setup.algorithm),
        device=setup.device,
        channels_last=setup.channels_last,
        memory=memory,
    )


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """What became of a client's turn."""

    name: str
    begun: float
    """Time [s since 1970]."""
    watch: Watch
    state: State = field(default_factory=dict)
    """Its private state afterwards."""
    sent: Sent = field(default_factory=dict)
    noted: dict[str, float] = field(default_factory=dict)
    """Means over its steps, by column of the ledger."""
    bounds: dict[str, float] = field(default_factory=dict)
    """The largest term of each upload that is summed."""
    error: ClientError | None = None
    """Why it failed, if it did."""


class Host(Residents):
    """Some clients and the network they share. Answers come in pieces, so that progress is visible."""

    def __init__(self, setup: Setup, clients: tuple[ClientSpec, ...], limits: Limits = _NO_LIMITS) -> None:
        torch.set_num_threads(setup.threads)
        keep_freed_memory()
        slices = SliceMemory(limits.slice_bytes, setup.device)
        super().__init__(setup, clients, limits, make_learner(setup, slices), slices)
        self._sums = PartialSums(())
        rows = [_made(FusedLearner, setup, slices) for _ in range(setup.fuse)] if setup.fuse > 1 else []
        self._fusion = Fusion[_Turn](rows) if rows else None

    def handle(self, message: Message, broadcast: Mapping[str, Vector] = NOTHING) -> Iterator[Reply]:
        """Do what the driver asks.

        Args:
            message: What to do, narrowed to clients that live here.
            broadcast: What the server sends, read-only; for Train, Validate and Evaluate.

        Yields:
            Pieces of the answer; the first one of Train is empty, and says that a client is at work.

        Raises:
            ClientError: a client failed in validation or evaluation; in training it is part of a reply.
            MethodError: the method changed what it received.
            DamagedError: a checkpoint is not what was written.
            WriteError: a checkpoint cannot be written.
        """
        match message:
            case Train():
                yield from self._train(message, broadcast)
            case Validate():
                yield from self._validate(message, broadcast)
            case Evaluate():
                yield from self._evaluate(message, broadcast)
            case Layouts():
                yield from self._laid_out(message)
            case Save():
                yield from self._save(message)
            case Load():
                yield from self._load(message)
            case Reset():
                yield from self._reset(message)
            case _:
                assert_never(message)

    def partial_sums(self) -> Reply:
        """The sums of the uploads of the last phase; a separate call, since large pieces of a stream are slow."""
        return Reply(sums=self._sums.totals())

    # Rounds

    def _train(self, order: Train, broadcast: Mapping[str, Vector]) -> Iterator[Reply]:
        """Let clients do a phase; after a failure, only if the run continues without that client."""
        received, uploads = self._on_device(broadcast), self._uploads(order)
        self._sums = PartialSums(uploads)
        yield Reply()
        reply, pace = Reply(), Pace(self._limits.report_seconds)
        for turn in self._turns(order, received, uploads):
            name = turn.name
            if turn.error is not None:
                reply.failed[name] = turn.error
                if not self._setup.tolerant:
                    break
            else:
                self._states.put(name, turn.state)
                self._sums.add(turn.sent, order.weights[name], turn.bounds)
                apart = self._sums.apart(turn.sent)
                if apart:
                    reply.collected[name] = apart
                turn.watch.lap("send")
                down = hooks.downlink(self._setup.algorithm, name, broadcast, order.phase)
                reply.rows.append({
                    **self._who(order.round, name), "weight": order.weights[name], "loss": float("nan"), **turn.noted,
                    "wait_seconds": max(0.0, turn.begun - order.since), **turn.watch.seconds(),
                    "private_bytes": state_bytes(turn.state),
                    "uplink_bytes": sum(vector.nbytes for vector in turn.sent.values()),
                    "downlink_bytes": sum(broadcast[key].nbytes for key in down),
                })  # fmt: skip
            if reply.collected or pace.due():
                yield reply
                reply = Reply()
        received.check(f"round {order.round}", thorough=True)
        yield reply

    def _turns(self, order: Train, received: ReadOnly, uploads: Sequence[Upload]) -> Iterator[_Turn]:
        """Each client's turn: one after the other, or fused."""
        turn = partial(self._turn, order, received, uploads)
        if self._fusion is not None:
            yield from self._fusion.run(partial(turn, name) for name in self._longest_first(order.clients))
            return
        for name, following in pairwise([*order.clients, ""]):
            self._states.expect(following)
            yield turn(name, self._learner)

    def _longest_first(self, names: Sequence[str]) -> list[str]:
        """The order in which the fewest rows of a fused network stay empty."""
        return sorted(names, key=lambda name: -self._clients[name].data.samples())

    def _turn(self, order: Train, received: ReadOnly, uploads: Sequence[Upload], name: str, learner: Learner) -> _Turn:
        """A client's turn in a phase: its private state is swapped into the network, and out again."""
        turn = _Turn(name=name, begun=time.time(), watch=Watch(self._slices))
        try:
            with self._at_work(name, order.round, received, learner, training=True):
                if isinstance(learner, FusedLearner):
                    learner.watch = turn.watch
                turn.watch.lap("load")
                sent = self._work(order, learner, received, uploads)
                turn.watch.lap("train")
                own = self._setup.algorithm.name if self._setup.algorithm.foreign else ""
                who = f"client {name}, round {order.round}"
                noted = means(learner, self._clients[name].data, who, own)
                state = learner.leave()
                if not np.isfinite(largest(state["local"].numpy())):
                    raise DivergedError(f"{who}: its own parameters are not finite; lower its lr")
            return replace(turn, state=state, sent=sent, noted=noted, bounds=self._checked(order, name, sent, learner))
        except ClientError as error:
            return replace(turn, error=error)

    def _work(self, order: Train, learner: Learner, received: ReadOnly, uploads: Sequence[Upload]) -> Sent:
        """What a client does in a phase; its uploads."""
        with hooks.contained():
            made = self._setup.algorithm.train(learner, received.tensors, order.phase)
        return hooks.sent(self._setup.algorithm, learner, made, uploads)

    def _checked(self, order: Train, name: str, sent: Sent, learner: Learner) -> dict[str, float]:
        """The bound of each upload that can be summed.

        Raises:
            ClientError: one cannot; names a user's own method if that is the cause.
        """
        who = f"client {name}, round {order.round}"
        try:
            return self._sums.check(sent, order.weights[name], who)
        except DivergedError as error:
            upload = self._is_to_blame(order, name, sent, learner)
            if not upload:
                raise
            what = f"train of {self._setup.algorithm.name} returned NaN, infinite or too large numbers as {upload!r}"
            raise ClientError(f"{who}: {what}, though its network is finite") from error

    def _is_to_blame(self, order: Train, name: str, sent: Sent, learner: Learner) -> str:
        """The upload that a user's own method made non-finite although the network is finite; empty if none."""
        network = largest(learner.shared.cpu().numpy())
        wrong = [key for key, vector in sent.items() if key != "buffers" and not largest(vector) <= network]
        own = self._setup.algorithm.foreign and np.isfinite(network)
        return wrong[0] if own and wrong else ""

    # Images

    def _validate(self, order: Validate, broadcast: Mapping[str, Vector]) -> Iterator[Reply]:
        """Mean quality over the volumes of each client that has any; over sites if it has several."""
        received, pace = self._on_device(broadcast), Pace(self._limits.report_seconds)
        reply = Reply()
        for name in order.clients:
            begun = time.time()
            sites: dict[str, list[Quality]] = {}
            for volume in self._reconstruct(order.round, name, received, "val"):
                sites.setdefault(volume.site, []).append(volume.quality(self._setup.protocol))
            if sites:
                quality = mean_quality([mean_quality(volumes) for volumes in sites.values()])._asdict()
                begin = max(0.0, begun - order.since)
                times = {"evaluate_begin_seconds": begin, "evaluate_seconds": time.time() - begun}
                reply.rows.append({"client": name, **quality, **times, **here()})
            if pace.due():
                yield reply
                reply = Reply()
        yield reply

    def _evaluate(self, order: Evaluate, broadcast: Mapping[str, Vector]) -> Iterator[Reply]:
        """One row per volume; saves the images if there is a folder for them."""
        received, pace = self._on_device(broadcast), Pace(self._limits.report_seconds)
        reply = Reply()
        for name in order.clients:
            for volume in self._reconstruct(order.round, name, received, order.part):
                who: dict[str, str | int] = {"round": order.round, "client": name}
                reply.rows.append({**who, "protocol": self._setup.protocol, **volume.score(self._setup.protocol)})
                if order.images is not None:
                    own = len(self._clients[name].data.members) == 1
                    target = order.images / (name if own else volume.site) / f"{volume.piece.volume}.h5"
                    volume.save(target, **who, protocol=self._setup.protocol)
            if pace.due():
                yield reply
                reply = Reply()
        yield reply

    # Within

    def _uploads(self, order: Train) -> list[Upload]:
        server = self._learner.fresh_server()
        return uploads_of(self._setup.algorithm, order.phase, server, f"round {order.round}")

    def _on_device(self, broadcast: Mapping[str, Vector]) -> ReadOnly:
        return ReadOnly(broadcast, self._learner.device, self._setup.algorithm)

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
        learner = self._learner
        with self._at_work(name, round_, received, learner):
            with hooks.contained():
                self._setup.algorithm.deploy(learner, received.tensors)
            own = self._setup.algorithm.foreign  # built-in methods only load finite values
            if own and not np.isfinite(largest(learner.shared.cpu().numpy())):
                who = f"client {name}, round {round_}: {self._setup.algorithm.name}"
                raise ClientError(f"{who} left NaN or infinite parameters in the network (in deploy)")
            learner.network.eval()
            size = client.training.batch_size
            yield from reconstruct_volumes(learner.network, client.data, part, size, learner.device)
