"""Errors for the user; the text is one line and says what would be right."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_ALSO_CALLED = {
    "acceleration": ("r", "af", "acc", "accel", "acceleration_factor", "undersampling"),
    "algorithm": ("method", "strategy", "aggregator", "aggregation", "fl"),
    "batch_size": ("batch", "bs", "minibatch"),
    "cache": ("cache_dir", "tmp"),
    "center_fraction": ("acs", "center", "centre", "centre_fraction", "calibration", "low_frequencies"),
    "channels": ("width", "filters", "features", "base_channels", "chans"),
    "checkpoint_every": ("save_every", "checkpoint_interval", "checkpoint_frequency"),
    "clients": ("hospitals", "participants", "nodes", "users"),
    "clients_per_actor": ("actors", "clients_per_worker"),
    "cohort": ("clients_per_round", "cohort_size"),
    "contrast": ("modality", "sequence", "weighting"),
    "cores": ("cpus", "workers", "jobs", "processes"),
    "device": ("accelerator", "cuda", "gpu"),
    "every": ("eval_every", "validate_every", "val_every", "interval"),
    "format": ("type", "kind", "file_type"),
    "kind": ("type", "pattern", "name"),
    "lam": ("lambda",),
    "lr": ("learning_rate", "learningrate", "eta", "step_size", "alpha"),
    "lr_gamma": ("gamma", "lr_decay", "decay"),
    "lr_step": ("step", "decay_every", "scheduler"),
    "local_epochs": ("epoch", "epochs", "local_iterations", "passes"),
    "mask": ("sampling", "undersampling", "trajectory"),
    "matrix": ("size", "image_size", "img_size", "shape", "resolution", "crop", "crop_size"),
    "mu": ("prox_mu", "proximal"),
    "name": ("type", "kind", "method"),
    "normalise": ("normalize", "normalization", "normalisation", "norm", "scale"),
    "optimizer": ("optimiser", "optim", "opt"),
    "participation": ("fraction", "frac", "client_fraction", "sample_rate", "fraction_fit", "client_rate"),
    "path": ("folder", "dir", "directory", "file", "data_dir"),
    "pools": ("depth", "levels", "layers", "num_pool_layers"),
    "precision": ("dtype", "amp", "mixed_precision"),
    "root": ("data", "data_dir", "data_root", "dataset", "path", "dir"),
    "rounds": ("communication_rounds", "comm_rounds", "global_rounds", "global_epochs", "server_rounds", "iterations"),
    "seed": ("random_seed", "rng", "random_state"),
    "sites": ("site", "hospitals", "centers", "centres", "institutions"),
    "train": ("training",),
    "val": ("valid", "validation", "dev"),
}
"""Names that other tools use for our keys."""


def hint(name: str, known: Iterable[str], among: str = "known") -> str:
    """The hint for an unknown name: the nearest known name, or all of them."""
    listed = list(known)
    near = nearest(name, listed)
    return f"did you mean {near!r}?" if near else f"{among}: {', '.join(listed)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant: the one for another tool's name, else the most similar one."""
    by_plain = {_plain(one): one for one in known}
    near = get_close_matches(_plain(name), by_plain, n=1)
    return same_thing(name, by_plain.values()) or (by_plain[near[0]] if near else None)


def same_thing(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs only in spelling, or that other tools call by this name."""
    plain = _plain(name)
    names = {plain, re.sub(r"^(n|num|nr|number_of|total|max)_", "", plain)}
    by_plain = {_plain(one): one for one in known}
    return next((by_plain[one] for one in by_plain if one in names), None) or next(
        (there for one, there in by_plain.items() if names.intersection(_ALSO_CALLED.get(one, ()))), None
    )


def _plain(name: str) -> str:
    """A name reduced to what camelCase, UPPER-CASE and snake_case have in common."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


class InputError(Exception):
    """The workload, the data or the arguments are invalid: exit status 2."""


class DamagedError(InputError):
    """A file that fedsim wrote has been truncated, changed or deleted."""


class RefusedError(InputError):
    """The settings do not suit the data or the machine: the same run would be refused again there."""


@contextmanager
def refusing() -> Iterator[None]:
    """Makes invalid input a refusal; also a decorator, for what looks at nothing but the settings and the clients."""
    try:
        yield
    except DamagedError:
        raise
    except InputError as error:
        raise RefusedError(str(error)) from error


class RunError(Exception):
    """The run failed although its input was valid: exit status 1."""


class WriteError(RunError):
    """A file cannot be written: the disk is full or not writable."""


class TracedError(RunError):
    """A client or a user's own code failed, and would fail again if repeated."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message, trace)

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """One line with client, round and seed, as far as known."""
        return str(self.args[0])

    @property
    def trace(self) -> str:
        """The traceback in its process; empty if it would not help."""
        return str(self.args[1])


class ClientError(TracedError):
    """A client failed in its own training."""


class MethodError(TracedError):
    """A method's own code raised, returned an invalid value, or changed something read-only."""


class OwnCodeError(TracedError):
    """A user's own network or loss raised or returned an invalid value; the message says where."""


class LossError(OwnCodeError):
    """A user's own loss raised or returned an invalid value."""


class DivergedError(ClientError):
    """A client's training diverged: a setting, often the learning rate, does not suit its data."""


class WorkerLostError(Exception):
    """A process that hosted clients is gone, and their private state with it."""

    def __init__(self, message: str, client: str = "", late: bool = False) -> None:
        super().__init__(message)
        self.client = client
        """The client that it was training; empty if unknown."""
        self.late = late
        """Whether fedsim killed it because the client exceeded engine.client_timeout_s."""
