"""Clients that train as one network: the parameters of K clients are the rows of one block.

A client's work is the method's own code on a learner of its own, as always. Where it takes a step on the usual loss it
waits until every other running client has reached one; then the gradients of all K are computed in one call
(torch.func.vmap) and each continues. So whatever a method does between its steps needs no other form, clients may have
unequal numbers of steps, learning rates and last batches, and the next client takes the place of one that has finished.

The number of rows is always K: rows that have nothing to compute repeat another's batch, and what comes out is not
used. A client's bits then depend neither on which other clients run at the same time nor on where it runs.
"""

import copy
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from greenlet import GreenletExit, getcurrent, greenlet
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from fedsim.algorithms.flat import FlatBuffers, FlatParameters
from fedsim.algorithms.graphs import Graphs
from fedsim.algorithms.learner import PARAMETER_GROUPS, Learner, ParameterGroup
from fedsim.algorithms.losses import Loss
from fedsim.algorithms.optimizers import alike, step_together
from fedsim.algorithms.training import Precision, Scalars, Training, arithmetic, numbers
from fedsim.core.errors import InputError, LossError, RefusedError, RunError
from fedsim.data.batch import Batch
from fedsim.engine.host.kernels import remedy
from fedsim.engine.host.process import Watch

T = TypeVar("T")
Shape = tuple[torch.Size, Precision, tuple[bool, ...]]
"""Of a batch, its arithmetic, and which modules of the network are in training mode."""


class FusedLearner(Learner):
    """The learner of one of K clients; takes its steps together with the others."""

    watch: Watch
    """Of the client that runs on this row."""

    def differentiate(self, batch: Batch, groups: Collection[ParameterGroup]) -> Tensor:
        """The error, a scalar on the device; the gradients of all parameters are then in place."""
        error: Tensor = self._wait(batch)
        return error

    def descend(self) -> None:
        """Let the optimizer change the parameters, in one call for all rows that are to take a step alike."""
        self._wait(None)

    def read(self, lists: Scalars) -> list[NDArray[np.float64]]:
        """Notes and the like as numbers, list by list (S,); those of all rows that wait for theirs in one copy."""
        found: list[NDArray[np.float64]] = self._wait(lists)
        return found

    def _wait(self, what: Batch | Scalars | None) -> Any:  # noqa: ANN401 - an error, numbers, or nothing
        self.watch.lap("train")
        found, seconds = getcurrent().parent.switch(what)
        self.watch.resume(seconds)
        return found


@dataclass(eq=False)
class _Lane(Generic[T]):
    """A row and the client that runs on it."""

    row: FusedLearner
    work: Any = None
    """The greenlet; None: the row is free."""
    waits: Batch | Scalars | None = None
    """For the gradients of a batch; to have numbers read; None: for its optimizer, or it is free."""

    def go_on(self, value: object) -> list[T]:
        """Let the client work on until its next step, or to its end; then its result.

        Args:
            value: What it waits for, or the exception that its step raised.
        """
        found = self.work.throw(value) if isinstance(value, Exception) else self.work.switch(value)
        if not self.work.dead:
            self.waits = found
            return []
        self.work, self.waits = None, None
        return [found]


class Fusion(Generic[T]):
    """K rows, and the network of all of them."""

    def __init__(self, rows: Sequence[FusedLearner], graphs: bool = True) -> None:
        """Make one block of the vectors of some learners.

        Args:
            rows: K learners of copies of one network.
            graphs: Whether steps on a GPU are captured and replayed.
        """
        self._lanes = [_Lane[T](row) for row in rows]
        self._device = rows[0].device
        self._network = copy.deepcopy(rows[0].network)
        self._modules = list(self._network.modules())
        self._graphs = Graphs(self._device, graphs)
        self._leaves: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        self._statistics: list[Tensor] = []
        for row in rows[1:]:
            row.start_as(rows[0])
        for group in PARAMETER_GROUPS:
            self._stack_parameters([row.flat(group) for row in rows])
            self._stack_buffers([row.flat_buffers(group) for row in rows])

    def _stack_parameters(self, flats: list[FlatParameters]) -> None:
        vectors = torch.stack([flat.vector.data for flat in flats])
        gradients = torch.zeros_like(vectors)
        for flat, vector, gradient in zip(flats, vectors, gradients, strict=True):
            flat.move_to(vector, gradient)
        self._leaves |= {name: leaf.requires_grad_() for name, leaf in flats[0].by_name(vectors).items()}
        self._gradients += flats[0].views(gradients)

    def _stack_buffers(self, flats: list[FlatBuffers]) -> None:
        vectors = torch.stack([flat.vector for flat in flats])
        for flat, vector in zip(flats, vectors, strict=True):
            flat.move_to(vector)
        self._buffers |= flats[0].by_name(vectors)
        if vectors.numel():
            self._statistics.append(vectors)

    def run(self, tasks: Iterable[Callable[[FusedLearner], T]]) -> Iterator[T]:
        """Do tasks on rows, K at a time; each result as it is ready, before its row is given to another task."""
        waiting = iter(tasks)
        try:
            while True:
                for lane in self._lanes:
                    yield from self._fill(lane, waiting)
                busy = [lane for lane in self._lanes if lane.work is not None]
                if not busy:
                    return
                for lane, found in self._served(busy):
                    yield from lane.go_on(found)
        finally:
            self._end()

    def _served(self, busy: list[_Lane[T]]) -> Iterable[tuple[_Lane[T], object]]:
        """What some that wait for the same get; those that have ended go before those that need gradients."""
        if descending := [lane for lane in busy if lane.waits is None]:
            return self._descend(descending)
        if ended := [lane for lane in busy if not isinstance(lane.waits, Batch)]:
            return self._read(ended)
        return self._differentiate(busy)

    def _fill(self, lane: _Lane[T], waiting: Iterator[Callable[[FusedLearner], T]]) -> Iterator[T]:
        """Give a free row to the next tasks, until one of them takes a step."""
        while lane.work is None and (task := next(waiting, None)) is not None:
            lane.work = greenlet(task)
            yield from lane.go_on(lane.row)

    def _end(self) -> None:
        for lane in self._lanes:
            if lane.work is not None:
                with suppress(Exception, GreenletExit):
                    lane.work.throw(GreenletExit)
            lane.work, lane.waits = None, None

    def _read(self, ended: list[_Lane[T]]) -> list[tuple[_Lane[T], tuple[list[NDArray[np.float64]], float]]]:
        """Read the numbers of all, in one copy; each one's part of the time [s], in which a GPU computes."""
        begun = time.perf_counter()
        lists = [_scalars(lane) for lane in ended]
        found = iter(numbers([*chain.from_iterable(lists)]))
        parts = [[*islice(found, len(mine))] for mine in lists]
        seconds = (time.perf_counter() - begun) / len(ended)
        return [(lane, (part, seconds)) for lane, part in zip(ended, parts, strict=True)]

    def _descend(self, busy: list[_Lane[T]]) -> list[tuple[_Lane[T], tuple[None, float]]]:
        """Take the optimizers' steps, those of one kind and learning rate together; each one's part of the time [s]."""
        begun = time.perf_counter()
        groups = defaultdict[Hashable, list[torch.optim.Optimizer]](list)
        for lane in busy:
            groups[alike(lane.row.optimizer)].append(lane.row.optimizer)
        for optimizers in groups.values():
            step_together(optimizers)
        seconds = (time.perf_counter() - begun) / len(busy)
        return [(lane, (None, seconds)) for lane in busy]

    def _differentiate(self, busy: list[_Lane[T]]) -> Sequence[tuple[_Lane[T], tuple[Tensor, float] | Exception]]:
        """Compute the gradients of as many of those that wait as have batches of one shape.

        Returns:
            Each one's error and its part of the time [s]; or, if that failed, the exceptions of those to blame.
        """
        begun = time.perf_counter()
        shapes = {lane: _shape(lane) for lane in busy}
        shape = Counter(shapes.values()).most_common(1)[0][0]
        chosen = [lane for lane in busy if shapes[lane] == shape]
        batches = [_batch(lane if shapes.get(lane) == shape else chosen[0]) for lane in self._lanes]
        inputs = map(torch.stack, zip(*((*batch.inputs, batch.target) for batch in batches), strict=True))
        idle = [at for at, lane in enumerate(self._lanes) if shapes.get(lane) != shape]
        before = [vector.clone() for vector in self._statistics]
        try:
            for module, mode in zip(self._modules, shape[-1], strict=True):
                module.training = mode
            errors = self._graphs(shape[1:], self._backward(chosen[0].row.training), *inputs, changed=self._statistics)
        except InputError:  # of the graph
            raise
        except Exception as error:
            if said := remedy(error):
                raise RunError(f"a step of {len(self._lanes)} clients as one network: {said}") from error
            self._put_back(before, range(len(self._lanes)))
            return self._to_blame(chosen, error)
        self._put_back(before, idle)
        seconds = (time.perf_counter() - begun) / len(chosen)
        return [(lane, (errors[at], seconds)) for at, lane in enumerate(self._lanes) if shapes.get(lane) == shape]

    def _put_back(self, before: Sequence[Tensor], rows: Iterable[int]) -> None:
        """Restore the running statistics of rows that only repeated another row's batch."""
        for vector, kept in zip(self._statistics, before, strict=True):
            for at in rows:
                vector[at].copy_(kept[at])

    def _to_blame(self, lanes: list[_Lane[T]], error: Exception) -> list[tuple[_Lane[T], Exception]]:
        """The clients whose batches the network and the loss do not take alone either, and what is raised then.

        Raises:
            RefusedError: they take them all, so that it is `error` why they cannot be fused.
        """
        found = [(lane, raised) for lane in lanes if (raised := _raised_alone(lane))]
        if found:
            return found
        key, who = "model.name", self._network.label or type(self._network).__name__
        if isinstance(error, LossError):
            key, who = "training.loss", lanes[0].row.training.loss.label
        why = " ".join(str(error).split()).partition(". ")[0]
        raise RefusedError(f"{key}: {who} cannot train fused ({why}); set training.fuse to 1") from error

    def _backward(self, training: Training) -> Callable[..., Tensor]:
        def differentiate(*inputs: Tensor) -> Tensor:
            """The gradients (K, P) of all rows; the errors (K,)."""
            buffers = {name: buffer.contiguous() for name, buffer in self._buffers.items()}  # vmap updates no others
            with arithmetic(self._device, training.precision, mapped=True) as forward:
                with forward:
                    errors = vmap(partial(self._error, training.loss))(self._leaves, buffers, *inputs)
                found = torch.autograd.grad(errors.sum(), list(self._leaves.values()), materialize_grads=True)
            torch._foreach_copy_(self._gradients, found)
            for name, buffer in buffers.items():
                self._buffers[name].copy_(buffer)
            return errors.detach()

        return differentiate

    def _error(self, loss: Loss, leaves: dict[str, Tensor], buffers: dict[str, Tensor], *tensors: Tensor) -> Tensor:
        """The loss of one row; the target is the last of the tensors."""
        *inputs, target = tensors
        return loss(functional_call(self._network, (leaves, buffers), tuple(inputs)), target)


def _raised_alone(lane: _Lane[Any]) -> Exception | None:
    batch = _batch(lane)
    try:
        lane.row.training.loss(copy.deepcopy(lane.row.network)(*batch.inputs), batch.target)
    except Exception as error:
        return error
    return None


def _shape(lane: _Lane[Any]) -> Shape:
    return _batch(lane).kspace.shape, lane.row.training.precision, lane.row.modes


def _batch(lane: _Lane[Any]) -> Batch:
    assert isinstance(lane.waits, Batch), "it waits for gradients"
    return lane.waits


def _scalars(lane: _Lane[Any]) -> Scalars:
    assert isinstance(lane.waits, Sequence), "it waits for numbers"
    return lane.waits
