"""Which kernels torch may use where clients train on a GPU; needs none, since only flags are set."""

import pytest
import torch

from fedsim.engine.host.kernels import kernels


def flags() -> dict[str, bool]:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": cudnn.deterministic,
        "benchmark": cudnn.benchmark,
        "tf32": cudnn.allow_tf32 or cuda.matmul.allow_tf32,
    }


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_chosen_and_the_choice_before_is_restored(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = flags()
    with kernels("cuda", deterministic):
        now = flags()
    assert (now["deterministic"], now["cudnn"], now["benchmark"]) == (deterministic, deterministic, not deterministic)
    assert not now["tf32"]
    assert flags() == before


def test_nothing_is_touched_on_a_cpu() -> None:
    before = flags()
    with kernels("cpu", True):
        assert flags() == before
