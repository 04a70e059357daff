"""The training of a host's clients: one after the other, or several as one network."""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import TypeVar

import numpy as np
import torch

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Upload, Vector
from fedsim.algorithms.hooks import Made
from fedsim.algorithms.learner import Learner
from fedsim.algorithms.training import State
from fedsim.core.errors import ClientError, DivergedError, refusing
from fedsim.core.seeds import torch_stream
from fedsim.data.samples import SliceMemory
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.diverged import Noted, means
from fedsim.engine.host.fusion import FusedLearner, Fusion
from fedsim.engine.host.kernels import kernels
from fedsim.engine.host.messages import Evaluate, Limits, Reply, Row, Setup, Train, Validate, under
from fedsim.engine.host.process import Pace, Watch, here, keep_freed_memory
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.host.residents import Residents
from fedsim.engine.host.sums import extent, largest
from fedsim.engine.host.uploads import PartialSums, uploads_of
from fedsim.engine.place.node import GPU_USABLE
from fedsim.engine.state.store import state_bytes
from fedsim.models.base import Network
from fedsim.models.warm_start import start_from

_NO_LIMITS = Limits()
_L = TypeVar("_L", bound=Learner)


def make_learner(setup: Setup, memory: SliceMemory | None = None) -> Learner:
    """The working network, initialised from the seed: the same for every host."""
    return _made(Learner, initial_network(setup), setup, memory)


@refusing()
def initial_network(setup: Setup) -> Network:
    """The network that every client starts with.

    Raises:
        RefusedError: it cannot be built, or what it is to start from is another network's.
    """
    network = setup.model.build(torch_stream(setup.seed, "model"), setup.target)
    if setup.start is not None:
        start_from(network, setup.start)
    return network


def _made(kind: type[_L], network: Network, setup: Setup, memory: SliceMemory | None) -> _L:
    return kind(
        network,
        partial(hooks.shares, setup.algorithm),
        device=setup.device,
        channels_last=setup.channels_last,
        memory=memory,
        graphs=setup.graphs,
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
    sent: Made = field(default_factory=dict)
    noted: dict[str, float] = field(default_factory=dict)
    """Means over its steps, by column of the ledger."""
    bounds: dict[str, float] = field(default_factory=dict)
    """The largest term of each upload that is summed."""
    error: ClientError | None = None
    """Why it failed, if it did."""


class TrainingClients(Residents):
    """Clients and the networks that they train on. Answers come in pieces, so that progress is visible."""

    def __init__(self, setup: Setup, clients: tuple[ClientSpec, ...], limits: Limits = _NO_LIMITS) -> None:
        torch.set_num_threads(setup.threads)
        keep_freed_memory()
        self._kernels = ExitStack()
        self._kernels.enter_context(kernels(setup.device, setup.deterministic))
        if setup.device == "cuda":
            limits = limits.on_gpu(GPU_USABLE * torch.cuda.mem_get_info()[1])
        slices = SliceMemory(limits.slice_bytes, setup.device)
        super().__init__(setup, clients, limits, make_learner(setup, slices), slices)
        self._sums: dict[str, PartialSums] = {}  # by the prefix of the lots that enter them
        self._fusion: Fusion[_Turn] | None = None
        if setup.fuse > 1:
            network = initial_network(setup)
            copies = (copy.deepcopy(network) for _ in range(setup.fuse))
            rows = [_made(FusedLearner, each, setup, slices) for each in copies]
            self._fusion = Fusion(rows, setup.graphs)

    def _train(self, order: Train, broadcast: Mapping[str, Vector]) -> Iterator[Reply]:
        """Let clients do a phase; after a failure, only if the run continues without that client."""
        received, uploads = self._received(order, broadcast), self._uploads(order)
        self._sums = {lot: PartialSums(uploads) for lot in dict.fromkeys(order.lot(n).enters for n in order.clients)}
        yield Reply()
        reply, pace = Reply(), Pace(self._limits.report_seconds)
        for turn in self._turns(order, received, uploads):
            name, lot = turn.name, order.lot(turn.name)
            if turn.error is not None:
                reply.failed[name] = turn.error
                if not self._setup.tolerant:
                    break
            else:
                self._states.put(name, turn.state)
                sums, sent_down = self._sums[lot.enters], received[lot.reads].vectors
                sums.add(turn.sent, order.weights[name], turn.bounds, lot.scale)
                apart = sums.apart(turn.sent)
                if apart:
                    reply.collected[name] = apart
                turn.watch.lap("send")
                down = hooks.downlink(self._setup.algorithm, name, sent_down, order.phase)
                reply.rows.append({
                    **self._who(lot.round, name), "weight": order.weights[name], "loss": float("nan"), **turn.noted,
                    "wait_seconds": max(0.0, turn.begun - order.since), **turn.watch.seconds(),
                    "private_bytes": state_bytes(turn.state),
                    "uplink_bytes": sum(vector.nbytes for vector in turn.sent.values()),
                    "downlink_bytes": sum(sent_down[key].nbytes for key in down),
                })  # fmt: skip
            if reply.collected or pace.due():
                yield reply
                reply = Reply()
        for one in received.values():
            one.check(f"round {order.round}", thorough=True)
        yield reply

    def _turns(self, order: Train, received: Mapping[str, ReadOnly], uploads: Sequence[Upload]) -> Iterator[_Turn]:
        """Each client's turn: one after the other, or fused."""
        turn = partial(self._turn, order, received, uploads)
        if self._fusion is None:
            yield from (turn(name, self._learner) for name in self._foreseen(order.clients))
        else:
            yield from self._fusion.run(
                partial(turn, name) for name in self._foreseen(self._longest_first(order.clients))
            )

    def _foreseen(self, names: Sequence[str]) -> Iterator[str]:
        """The names, each after the state of the client that follows it by as many as train at once was asked for."""
        for name, following in zip_longest(names, names[self._setup.fuse :]):
            if following is not None:
                self._states.expect(following)
            yield name

    def _longest_first(self, names: Sequence[str]) -> list[str]:
        """The order in which the fewest rows of a fused network stay empty."""
        return sorted(names, key=lambda name: -self._clients[name].data.samples())

    def _turn(
        self,
        order: Train,
        received: Mapping[str, ReadOnly],
        uploads: Sequence[Upload],
        name: str,
        learner: Learner,
    ) -> _Turn:
        """A client's turn in a phase: its private state is swapped into the network, and out again."""
        turn, lot = _Turn(name=name, begun=time.time(), watch=Watch(self._slices)), order.lot(name)
        read = received[lot.reads]
        try:
            with self._at_work(name, lot, read, learner, training=True):
                if isinstance(learner, FusedLearner):
                    learner.watch = turn.watch
                turn.watch.lap("load")
                sent = self._work(order, learner, read, uploads)
                turn.watch.lap("train")
                state = learner.leave()
                sizes = [extent(vector) for vector in (state["local"], *sent.values())]
                turn.watch.lap("send")
                *noted, (local, *of_sent) = learner.read([*learner.notes.values(), sizes])
                turn.watch.lap("train")  # a GPU computes until its results are read
                metrics = self._means(order, name, dict(zip(learner.notes, noted, strict=True)), local)
            bounds = self._checked(order, name, sent, dict(zip(sent, of_sent, strict=True)), learner)
            return replace(turn, state=state, sent=sent, noted=metrics, bounds=bounds)
        except ClientError as error:
            return replace(turn, error=error)

    def _work(self, order: Train, learner: Learner, received: ReadOnly, uploads: Sequence[Upload]) -> Made:
        """What a client does in a phase; its uploads."""
        with hooks.contained():
            made = self._setup.algorithm.train(learner, received.tensors, order.phase)
        return hooks.sent(self._setup.algorithm, learner, made, uploads)

    def _means(self, order: Train, name: str, noted: Noted, local: float) -> dict[str, float]:
        """The means of what a client noted, if its own parameters, `local` the largest of them, are finite."""
        parts = (self._setup.algorithm, self._clients[name].training.loss)
        own, loss = (one.label if one.foreign else "" for one in parts)
        round_ = order.lot(name).round
        who = f"client {name}, round {round_}"
        found = means(noted, self._clients[name].data, round_, who, own, loss)
        if not np.isfinite(local):
            raise DivergedError(f"{who}: its own parameters are not finite; lower its lr")
        return found

    def _checked(
        self, order: Train, name: str, sent: Made, sizes: Mapping[str, float], learner: Learner
    ) -> dict[str, float]:
        """The bound of each upload that can be summed, from the largest absolute value of each.

        Raises:
            ClientError: one cannot; names a user's own method if that is the cause.
        """
        lot = order.lot(name)
        who = f"client {name}, round {lot.round}"
        try:
            return self._sums[lot.enters].check(sent, sizes, order.weights[name], who, lot.scale)
        except DivergedError as error:
            upload = self._is_to_blame(order, name, sent, learner)
            if not upload:
                raise
            what = f"train of {self._setup.algorithm.name} returned NaN, infinite or too large numbers as {upload!r}"
            raise ClientError(f"{who}: {what}, though its network is finite") from error

    def _is_to_blame(self, order: Train, name: str, sent: Made, learner: Learner) -> str:
        """The upload that a user's own method made non-finite although the network is finite; empty if none."""
        network = largest(learner.shared)
        wrong = [key for key, vector in sent.items() if key != "buffers" and not largest(vector) <= network]
        own = self._setup.algorithm.foreign and np.isfinite(network)
        return wrong[0] if own and wrong else ""

    # Within

    def _uploads(self, order: Train) -> list[Upload]:
        server = ("shared", "buffers") if self._learner.shared_buffers.numel() else ("shared",)
        return uploads_of(self._setup.algorithm, order.phase, server, f"round {order.round}")

    def _received(self, order: Train | Validate | Evaluate, broadcast: Mapping[str, Vector]) -> dict[str, ReadOnly]:
        """What the server sent, by the prefix under which clients read it."""
        prefixes = dict.fromkeys(order.lot(name).reads for name in order.clients)
        device, algorithm = self._learner.device, self._setup.algorithm
        return {prefix: ReadOnly(under(prefix, broadcast), device, algorithm) for prefix in prefixes}

    def _who(self, round_: int, name: str) -> Row:
        client = self._clients[name]
        return {
            "round": round_, "client": name, "site": client.site, "samples": client.data.samples(), **here(),
            "outcome": "trained", "device": str(self._learner.device),
        }  # fmt: skip
