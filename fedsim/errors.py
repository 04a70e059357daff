"""Errors with a meaning for whoever runs fedsim; their text is one line and says what would be right."""


class InputError(Exception):
    """The workload, the data or the arguments are wrong: exit status 2."""


class RunError(Exception):
    """The run failed though its input was right: exit status 1."""


class DivergedError(RunError):
    """A client's training left the finite numbers: a setting is wrong for its data, often the learning rate."""
