"""The benchmark of GPUs, and the bare loop that it compares with: the code runs on a CPU too."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fedsim.engine.record.run_directory import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A module of benchmarks/, which are scripts beside each other."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("benchmark", ["gpu"], indirect=True)
def test_without_a_gpu_its_benchmark_says_so(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    benchmark.main()
    assert json.loads(capsys.readouterr().out) == {"status": "skipped", "reason": "torch sees no GPU"}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["gpu"], indirect=True)
def test_a_part_that_fails_does_not_end_the_benchmark(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    done = benchmark.partial(dict, part="bits", same=True)
    broken = benchmark.partial(benchmark.tiny, None)
    rows = list(benchmark.results(iter([broken, done]), 60.0))
    assert [row["part"] for row in rows] == ["error", "bits"]
    assert rows[0]["what"] == "tiny: None"
    assert "AttributeError" in rows[0]["error"]
    assert "AttributeError" in capsys.readouterr().err
    late = list(benchmark.results(iter([done]), -1.0))
    assert [row["part"] for row in late] == ["skipped"]


@pytest.mark.parametrize("benchmark", ["loop"], indirect=True)
def test_the_fused_bare_loop_trains_what_the_plain_one_trains(benchmark: ModuleType) -> None:
    clients = [tuple(part.double() for part in benchmark.images(client)) for client in range(4)]
    torch.manual_seed(0)
    network = benchmark.UNet(1).double()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def trained(fuse: int) -> list[torch.Tensor]:
        """Each private parameter of all clients (4, ...)."""
        network.load_state_dict(start)
        loop = benchmark.Loop(network, clients, "sgd", fuse=fuse)
        begun = [tensor.clone() for tensor in loop.private[0]]
        loop.round()
        assert not any(torch.equal(a, b) for a, b in zip(begun, loop.private[0], strict=True))
        shape = (len(clients), -1)
        return [torch.stack(parts).reshape(shape) for parts in zip(*loop.private, strict=True)]

    for plain, fused in zip(trained(1), trained(2), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("benchmark", ["loop"], indirect=True)
def test_a_bare_loop_fuses_full_blocks_only(benchmark: ModuleType) -> None:
    clients = [benchmark.images(client) for client in range(3)]
    with pytest.raises(ValueError, match="3 clients cannot be fused by 2"):
        benchmark.Loop(benchmark.UNet(1), clients, fuse=2)


@pytest.mark.parametrize("fuse", [1, 2])
@pytest.mark.parametrize("benchmark", ["overhead"], indirect=True)
def test_the_method_that_trains_nothing_keeps_an_optimizers_state(
    benchmark: ModuleType, tmp_path: Path, fuse: int
) -> None:
    case = benchmark.Case(2, 1, mode="noop", fuse=fuse, overrides=("engine.backend=serial",))
    turns = benchmark.alternate(case, 1, None, tmp_path, tmp_path / "run")
    assert len(turns.seconds) == 2
    clients = Run(tmp_path / "run").clients
    assert clients["round"].tolist() == [1, 1, 2, 2]
    assert (clients["private_bytes"] > 30_000).all()  # the decoder alone is 12 kB


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["gpu"], indirect=True)
def test_the_benchmark_measures_steps_and_compares_bits(benchmark: ModuleType, tmp_path: Path) -> None:
    bench = benchmark.Bench(tmp_path, "cpu", pairs=1)
    case = benchmark.replace(benchmark.tiny(benchmark.W), clients=2)
    row = bench.step(case, benchmark.Way(fuse=2))
    assert (row["step"], row["n"], row["precision"]) == ("fused 2", 2, "float32")
    assert all(row[key] > 0 for key in ("ms", "to_eager", "to_graph", "to_fused", "train_ms", "first_seconds"))
    assert bench.bits(case, "in another order", benchmark.Way(fuse=8), benchmark.Way(fuse=8), reverse=True)["same"]
    assert not bench.bits(case, "another precision", benchmark.Way(), benchmark.Way(precision="bfloat16"))["same"]
