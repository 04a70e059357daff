"""Calling what a method overrides: whatever it does wrong is shown as the method's, with hook, round and traceback."""

import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm, Phase, Received, ServerState, Upload, Vector
from fedsim.algorithms.learner import Learner
from fedsim.core.errors import InputError, MethodError, RunError
from fedsim.core.extension import error_text

Made = dict[str, Tensor]
"""A client's uploads by name, where it made them."""


@contextmanager
def contained() -> Iterator[None]:
    """Keep a GeneratorExit that a method raises from ending the generators of the engine, as the closing of one would.

    Raises:
        RuntimeError: it was raised.
    """
    try:
        yield
    except GeneratorExit as error:
        raise RuntimeError("GeneratorExit").with_traceback(error.__traceback__) from error


@contextmanager
def blamed(algorithm: Algorithm, hook: str, where: str = "") -> Iterator[None]:
    """Turn whatever a method raises inside into its fault.

    Args:
        algorithm: The method.
        hook: What of it is called.
        where: The round, if there is one.

    Raises:
        MethodError: it raised, or what it returned was refused.
    """
    try:
        yield
    except (KeyboardInterrupt, InputError, RunError):
        raise
    except BaseException as error:
        raise MethodError(explained(algorithm, error, where, hook), traceback.format_exc()) from error


def explained(algorithm: Algorithm, error: BaseException, where: str, hook: str = "") -> str:
    """One line on what a method raised: where, what, and in which of its hooks.

    Args:
        algorithm: The method.
        error: What it raised.
        where: Client, round.
        hook: What of it was called, if the error does not show a hook that this one called.
    """
    return (f"{where}: " if where else "") + error_text(algorithm, error, hook)


def settled(algorithm: Algorithm, cohort: int, overlapping: bool = False) -> Algorithm:
    """The method with everything decided.

    Args:
        algorithm: The method.
        cohort: Clients of a round.
        overlapping: Whether rounds overlap.

    Raises:
        MethodError: it raises, or gives no method.
    """
    with blamed(algorithm, "settled"):
        found = algorithm.settled(cohort)
        _expect(isinstance(found, Algorithm), "a method", found)
    if overlapping:
        with blamed(found, "overlapping"):
            found = found.overlapping()
            _expect(isinstance(found, Algorithm), "a method", found)
    return found


def shares(algorithm: Algorithm, parameter: str) -> bool:
    """Whether a parameter is shared.

    Raises:
        MethodError: it raises, or says neither True nor False.
    """
    with blamed(algorithm, "shares"):
        found = algorithm.shares(parameter)
        _expect(isinstance(found, bool | np.bool_), "True or False", found)
    return bool(found)


def warnings(algorithm: Algorithm, steps: Mapping[str, int], parameters: Collection[str]) -> list[str]:
    """What the user should know before a run.

    Raises:
        MethodError: it raises, or gives no list of text.
    """
    with blamed(algorithm, "warnings"):
        found = algorithm.warnings(steps, parameters)
        _expect(_all(found, str), "a list of text", found)
    return found


def phases(algorithm: Algorithm, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
    """What the clients of a round do.

    Raises:
        MethodError: it raises, or gives no phases of clients of this round.
    """
    with blamed(algorithm, "phases", f"round {round_}"):
        found = algorithm.phases(cohort, round_, seed)
        _expect(_all(found, Phase) and found, "a list of Phase", found)
        for phase in found:
            _expect(isinstance(phase.name, str) and phase.name, "a name for each phase", phase.name)
            _expect(_all(phase.clients, str) and phase.clients, f"clients in phase {phase.name!r}", phase.clients)
            unknown = [client for client in phase.clients if client not in cohort]
            _expect(not unknown, f"clients drawn for the round in phase {phase.name!r}", unknown)
    return [Phase(tuple(phase.clients), phase.name) for phase in found]


def uploads(algorithm: Algorithm, phase: str, where: str = "") -> list[Upload]:
    """What each client of a phase sends.

    Raises:
        MethodError: it raises, or gives no uploads of different names.
    """
    with blamed(algorithm, "uploads", where):
        found = algorithm.uploads(phase)
        _expect(_all(found, Upload), "a list of Upload", found)
        names = [upload.name for upload in found]
        _expect(_all(names, str) and len(set(names)) == len(names), "different names of uploads", names)
        _expect("buffers" not in names, "no upload named buffers, which is the engine's", names)
    return list(found)


def broadcast(algorithm: Algorithm, server: ServerState, phase: str, where: str = "") -> dict[str, Vector]:
    """What each client of a phase receives; that and the server's state, which is asked for it often, are read-only.

    Raises:
        MethodError: it raises, or gives no finite vectors by name.
    """
    with blamed(algorithm, "broadcast", where):
        found = algorithm.broadcast(_read_only(server), phase)
        _expect(_by_name(found), "a dict of vectors", found)
        vectors = {name: _vector(name, value) for name, value in found.items()}
        for name, vector in vectors.items():
            finite = not algorithm.foreign or np.isfinite(vector).all()
            _expect(finite, f"finite numbers as {name!r}", "NaN or infinite ones")
    return _read_only(vectors)


def downlink(algorithm: Algorithm, client: str, sent: Collection[str], phase: str) -> Collection[str]:
    """Names of the broadcast vectors that are sent to a client.

    Raises:
        MethodError: it raises, or names a vector that is not broadcast.
    """
    with blamed(algorithm, "downlink", f"client {client}"):
        found = algorithm.downlink(client, sent, phase)
        _expect(isinstance(found, Collection) and set(found) <= set(sent), f"some of {', '.join(sent)}", found)
    return found


def update(algorithm: Algorithm, server: ServerState, received: Received, where: str = "") -> ServerState:
    """The server's state after a phase, without the engine's buffers; `shared` is made float32 if it is not.

    Raises:
        MethodError: it raises, or gives no arrays by name, or no finite `shared` of the shape that it had.
    """
    with blamed(algorithm, "update", where):
        found = algorithm.update(server, received)
        _expect(_by_name(found), "a dict of arrays", found)
        for name, value in found.items():
            numbers = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
            _expect(numbers, f"an array of numbers as {name!r}", value)
        _expect("shared" in found, "shared among them", list(found))
        shared = _vector("shared", found["shared"])
        shape = server["shared"].shape
        _expect(shared.shape == shape, f"'shared' of {shape}", found["shared"])
        _expect(np.isfinite(shared).all(), "finite numbers as 'shared'", "NaN or infinite ones")
    return {**{name: value for name, value in found.items() if name != "buffers"}, "shared": shared}


def sent(algorithm: Algorithm, learner: Learner, returned: Mapping[str, Tensor], wanted: Sequence[Upload]) -> Made:
    """The uploads of a client as float32: what `train` returned, and the running statistics, which are the engine's.

    Raises:
        TypeError: something of it is missing or is no vector of numbers, or what stays with the client is no tensor.
    """
    own = {"buffers": learner.shared_buffers}
    who = f"train of {algorithm.name} "
    _expect(_by_name(returned), "a dict of tensors", returned, who)
    for key, value in learner.private.items():
        _expect(isinstance(value, Tensor), f"with tensors in learner.private, as {key!r}", value, who)
    vectors = dict(own)
    for upload in wanted:
        if upload.name not in own:
            _expect(upload.name in returned, f"the upload {upload.name!r}", list(returned), who)
            value = returned[upload.name]
            right = isinstance(value, Tensor) and value.is_floating_point()
            _expect(right, f"a tensor of floats as {upload.name!r}", value, who)
            _expect(value.dim() == 1 or not upload.summed, f"a flat tensor as {upload.name!r}", value, who)
            vectors[upload.name] = value.detach().to(learner.device, torch.float32)
    return {upload.name: vectors[upload.name] for upload in wanted}


def _vector(name: str, value: object) -> Vector:
    """As float32."""
    right = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    _expect(right, f"an array of floats as {name!r}", value)
    with np.errstate(over="ignore"):
        return np.asarray(value, np.float32, order="C")


def _read_only(vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    views = {name: vector.view() for name, vector in vectors.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _by_name(found: object) -> bool:
    return isinstance(found, Mapping) and all(isinstance(name, str) for name in found)


def _all(found: object, kind: type) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(one, kind) for one in found)


def _expect(right: Any, what: str, found: object, who: str = "") -> None:  # noqa: ANN401 - anything that has a truth
    if right:
        return
    shape = f" of {found.dtype} {tuple(found.shape)}" if isinstance(found, np.ndarray | Tensor) else f" {found!r:.80}"
    actual = found if isinstance(found, str) else "None" if found is None else f"{type(found).__name__}{shape}"
    raise TypeError(f"{who}must return {what}, not {actual}")
