"""A host: a plain object that holds some clients and one working network, and answers the driver's messages.

A Ray actor is a host in another process; the serial backend is one host in this one. What a host returns is all that
ever leaves a client: the uploads that its method declares, and numbers for the ledger.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

import numpy as np

from fedsim.algorithms import hooks
from fedsim.algorithms.base import Vector
from fedsim.core.errors import ClientError
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.split import Part
from fedsim.engine.host.merging import Sums
from fedsim.engine.host.messages import (
    NOTHING,
    Evaluate,
    Layouts,
    Load,
    Message,
    Reply,
    Reset,
    Save,
    Train,
    Validate,
)
from fedsim.engine.host.process import Pace, here
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.host.sums import largest
from fedsim.engine.host.training import TrainingClients
from fedsim.mri.metrics import Quality, mean_quality
from fedsim.mri.references import Reference


class Host(TrainingClients):
    """Some clients and the network they share. Answers come in pieces, so that progress is visible."""

    def close(self) -> None:
        """Restore what torch used before, in a process that goes on."""
        self._kernels.close()

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

    def partial_sums(self) -> Sums:
        """The sums of the uploads of the last phase; a separate call, since large pieces of a stream are slow."""
        return {at + name: partial for at, sums in self._sums.items() for name, partial in sums.partials().items()}

    # Images

    def _validate(self, order: Validate, broadcast: Mapping[str, Vector]) -> Iterator[Reply]:
        """Mean quality over the volumes of each client that has any; over sites if it has several."""
        received, pace = self._received(order, broadcast), Pace(self._limits.report_seconds)
        reply = Reply()
        for name in order.clients:
            begun = time.time()
            sites: dict[str, list[Quality]] = {}
            for volume in self._reconstruct(order, name, received, "val"):
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
        received, pace = self._received(order, broadcast), Pace(self._limits.report_seconds)
        reply = Reply()
        for name in order.clients:
            for volume in self._reconstruct(order, name, received, order.part, self._setup.references):
                who: dict[str, str | int] = {"round": order.round, "client": name}
                scores: dict[str, str | float] = {
                    "protocol": self._setup.protocol,
                    **volume.score(self._setup.protocol),
                }
                reply.rows.append({**who, **scores})
                if order.images is not None:
                    own = len(self._clients[name].data.members) == 1
                    target = order.images / (name if own else volume.site) / f"{volume.piece.volume}.h5"
                    volume.save(target, **who, protocol=scores["protocol"])
            if pace.due():
                yield reply
                reply = Reply()
        yield reply

    # Within

    def _reconstruct(
        self,
        order: Validate | Evaluate,
        name: str,
        received: Mapping[str, ReadOnly],
        part: Part,
        references: Sequence[Reference] = (),
    ) -> Iterator[ReconstructedVolume]:
        client = self._clients[name]
        if not client.data.samples(part):
            return
        learner, lot = self._learner, order.lot(name)
        read = received[lot.reads]
        with self._at_work(name, lot, read, learner):
            with hooks.contained():
                self._setup.algorithm.deploy(learner, read.tensors)
            own = self._setup.algorithm.foreign  # built-in methods only load finite values
            if own and not np.isfinite(largest(learner.shared)):
                who = f"client {name}, round {order.round}: {self._setup.algorithm.name}"
                raise ClientError(f"{who} left NaN or infinite parameters in the network (in deploy)")
            learner.network.eval()
            size = client.training.batch_size
            yield from reconstruct_volumes(learner.reconstruct, client.data, part, size, learner.device, references)
