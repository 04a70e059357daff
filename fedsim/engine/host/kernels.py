"""Which kernels torch may use on a GPU: by default those that give the same bits every time, in full float32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WITHOUT_DETERMINISM = "a run that is repeated, resumed or placed otherwise ends in other last bits"
"""What kernels that may give other bits every time cost, for messages."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def kernels(device: str, deterministic: bool) -> Iterator[None]:
    """Set torch's choice of kernels for this process, and restore it at the end; on a CPU nothing is touched.

    Deterministic ones cost a fifth to a third of a training step (docs/performance.md). cuBLAS reads its workspace from
    the environment when it first runs, so in a process that has used a GPU before it is left as it was.

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
