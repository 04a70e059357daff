"""Which kernels torch may use on a GPU: by default those that give the same bits every time, in full float32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedsim.core.errors import OwnCodeError

WITHOUT_DETERMINISM = "a run that is repeated, resumed or placed otherwise ends in other last bits"
"""What kernels that may give other bits every time cost, for messages."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def kernels(device: str, deterministic: bool) -> Iterator[None]:
    """Set torch's choice of kernels for this process, and restore it at the end; on a CPU nothing is touched.

    docs/performance.md has what deterministic ones cost. cuBLAS reads its workspace from the environment when it first
    runs, so in a process that has used a GPU before it is left as it was.

    Args:
        device: Where clients train.
        deterministic: Whether to allow only kernels that give the same bits every time.
    """
    if device == "cpu":
        yield
        return
    was = _now()
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        _restore(*was)


def remedy(error: BaseException) -> str:
    """What to change if a GPU could not take a step, in one line; empty for any other error."""
    cause = error.__cause__ if isinstance(error, OwnCodeError) and error.__cause__ else error
    if isinstance(cause, torch.OutOfMemoryError):
        return "the GPU has no memory left; lower training.batch_size, training.fuse or engine.device_memory"
    kernel, found, _ = str(cause).partition(" does not have a deterministic implementation")
    return f"torch has no deterministic {kernel.split()[-1]}; set engine.deterministic to false" if found else ""


def _now() -> tuple[bool, bool, bool, bool, bool, bool, bool]:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        cuda.matmul.allow_tf32,
    )


def _restore(
    deterministic: bool, warn: bool, fill: bool, cudnn: bool, benchmark: bool, tf32: bool, matmul: bool
) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=warn)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn, benchmark
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32, matmul
