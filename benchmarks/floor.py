"""The floor under workload W: a bare PyTorch loop in processes of one thread each, without federation, Ray or disk.

    python benchmarks/floor.py [--n 32 128 512] [--channels 8] [--processes 2] [--rounds 3]

In a round, every client's network (shared encoder, own decoder) is loaded and trained for two batches of four random
64 x 64 images that are already in memory; then its decoder is stored and its encoder added to a running sum. Every
client starts with a fresh optimizer, which is less work than keeping its state. One JSON line for each number of
clients, then a table.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor, nn

SAMPLES, BATCH, SIZE, LR = 8, 4, 64, 1e-4
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
State = dict[str, Tensor]


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (channels_in, channels):
        layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.InstanceNorm2d(channels)]
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers)


def _up(channels: int) -> nn.Sequential:
    layer = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
    return nn.Sequential(layer, nn.InstanceNorm2d(channels), nn.LeakyReLU(0.2, inplace=True))


class UNet(nn.Module):
    """The plain fastMRI U-Net with 4 poolings; `down` is the encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels << level for level in range(5)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([1, *widths], widths, strict=False))
        self.up = nn.ModuleList(_up(width) for width in widths[-2::-1])
        self.blocks = nn.ModuleList(_block(2 * width, width) for width in widths[-2::-1])
        self.last = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, 1, H, W)."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.blocks, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        out: Tensor = self.last(x)
        return out


def _copy(network: nn.Module, encoder: bool) -> State:
    return {k: v.clone() for k, v in network.state_dict().items() if k.startswith("down.") == encoder}


def _images(client: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(client)
    inputs, targets = torch.randn(2, SAMPLES, 1, SIZE, SIZE, generator=generator)
    return inputs, targets


def _train(network: UNet, inputs: Tensor, targets: Tensor, optimizer: str) -> None:
    moving = OPTIMIZERS[optimizer](network.parameters(), lr=LR)  # type: ignore[call-arg]
    for start in range(0, SAMPLES, BATCH):
        moving.zero_grad()
        output = network(inputs[start : start + BATCH])
        F.mse_loss(output, targets[start : start + BATCH]).backward()  # type: ignore[no-untyped-call]
        moving.step()


def _serve(pipe: Connection, clients: range, channels: int, optimizer: str) -> None:
    """Run a round of some clients for every True that arrives through the pipe."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = UNet(channels)
    encoder = _copy(network, encoder=True)
    decoders = {client: _copy(network, encoder=False) for client in clients}
    images = {client: _images(client) for client in clients}
    pipe.send(True)
    while pipe.recv():
        total = {name: torch.zeros_like(tensor) for name, tensor in encoder.items()}
        for client in clients:
            network.load_state_dict({**encoder, **decoders[client]})
            _train(network, *images[client], optimizer)
            decoders[client] = _copy(network, encoder=False)
            for name, tensor in network.state_dict().items():
                if name in total:
                    total[name].add_(tensor)
        pipe.send(True)


class Floor:
    """Processes that share the clients and wait for `round`. Use as a context manager."""

    def __init__(self, clients: int, processes: int, channels: int = 8, optimizer: str = "rmsprop") -> None:
        """Start the processes and wait until they have their data."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for first in range(processes):
            ours, theirs = context.Pipe()
            share = range(first, clients, processes)
            process = context.Process(target=_serve, args=(theirs, share, channels, optimizer), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def round(self) -> float:
        """Seconds of one round of all clients."""
        begun = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - begun

    def rounds(self, count: int) -> list[float]:
        """Seconds of each of several rounds."""
        return [self.round() for _ in range(count)]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def measure(clients: int, processes: int, channels: int, optimizer: str, rounds: int) -> dict[str, Any]:
    """One result: the median of several rounds after a warm-up round."""
    with Floor(clients, processes, channels, optimizer) as floor:
        floor.round()
        seconds = floor.rounds(rounds)
    median = statistics.median(seconds)
    return {
        "n": clients,
        "channels": channels,
        "processes": processes,
        "optimizer": optimizer,
        "floor_seconds": median,
        "low": min(seconds),
        "high": max(seconds),
        "ms_per_client": 1e3 * median / clients,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", nargs="+", type=int, default=[32, 128, 512], help="numbers of clients")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="rmsprop")
    parser.add_argument("--rounds", type=int, default=3, help="measured, after one warm-up round")
    given = parser.parse_args()
    rows = []
    for n in given.n:
        rows.append(measure(n, given.processes, given.channels, given.optimizer, given.rounds))
        print(json.dumps(rows[-1]), flush=True)
    print(f"{'clients':>7} {'floor [s/round]':>16} {'range':>17} {'ms/client':>12}")
    for row in rows:
        span = f"{row['low']:.3f} - {row['high']:.3f}"
        print(f"{row['n']:>7} {row['floor_seconds']:>16.3f} {span:>17} {row['ms_per_client']:>12.2f}")


if __name__ == "__main__":
    main()
