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
from loop import OPTIMIZERS, Loop, UNet, images


def _serve(pipe: Connection, clients: range, channels: int, optimizer: str) -> None:
    """Run a round of some clients for every True that arrives through the pipe."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loop = Loop(UNet(channels), [images(client) for client in clients], optimizer)
    pipe.send(True)
    while pipe.recv():
        loop.round()
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
