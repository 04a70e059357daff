"""The cost of FedMRI's contrastive term, as a share of a training step without it (forward, backward, RMSprop).

    python benchmarks/contrastive.py [--forms exact moments] [--clients 4 32 256 1000 10000] [--repeats 11]

One thread. Each measurement of the term follows a training step, which is the measurement of the floor and evicts the
term's vectors from the cache, as in a run. Medians of CPU seconds, which other work on the machine disturbs less than
the wall clock; one JSON line for each result, then a table.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fedsim.algorithms.contrastive import moment_ratio_and_gradient, ratio_and_gradient
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.learner import Learner
from fedsim.data.batch import undersample
from fedsim.models.reconstruction import UNetModel

SETTINGS = {"W": (8, 64), "32 channels": (32, 128)}  # channels, matrix
MEMORY = 6e9  # bytes, for the exact form's encoders
BATCH = 4
Task = Callable[[], object]


def seconds(task: Task) -> float:
    """CPU time of a task."""
    begun = time.process_time()
    task()
    return time.process_time() - begun


def training_step(channels: int, matrix: int) -> tuple[Task, int]:
    """A step of U-Net training, and the encoder's size P."""
    generator = torch.Generator().manual_seed(0)
    learner = Learner(UNetModel(channels=channels).build(generator), FedMRI().shares)
    images = torch.randn(BATCH, matrix, matrix, dtype=torch.complex64, generator=generator)
    mask = torch.rand(BATCH, matrix, matrix, generator=generator) < 0.3
    batch = undersample(images, mask, "std")
    parts = (learner.flat("shared"), learner.flat("local"))
    optimizer = torch.optim.RMSprop([part.vector for part in parts], lr=1e-5)

    def step() -> None:
        for part in parts:
            part.prepare(moves=True)
        loss = torch.nn.functional.mse_loss(learner.network(batch.kspace, batch.mask), batch.target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step, learner.shared.numel()


def terms(form: str, clients: list[int], size: int) -> Iterator[tuple[int, Task | None]]:
    """The term at every number of clients; None where its encoders do not fit."""
    theta, server = torch.randn(2, size)
    if form == "moments":
        mean, deviation = torch.randn(size), torch.rand(size)
        for count in clients:
            yield count, partial(moment_ratio_and_gradient, theta, server, mean, deviation, count)
        return
    fitting = [count for count in clients if count * size * 4 <= MEMORY]
    previous = torch.empty(max(fitting, default=0), size).normal_()
    for count in clients:
        yield count, partial(ratio_and_gradient, theta, server, previous[:count]) if count in fitting else None


def measure(step: Task, term: Task, repeats: int) -> tuple[float, float]:
    """Median seconds of the step and of the term, in turn."""
    step(), term()
    pairs = [(seconds(step), seconds(term)) for _ in range(repeats)]
    step_seconds, term_seconds = map(statistics.median, zip(*pairs, strict=True))
    return step_seconds, term_seconds


def results(forms: list[str], clients: list[int], repeats: int) -> Iterator[dict[str, Any]]:
    """One result for each setting, form and number of clients."""
    for setting, (channels, matrix) in SETTINGS.items():
        step, size = training_step(channels, matrix)
        for form in forms:
            for count, term in terms(form, clients, size):
                row = {"setting": setting, "form": form, "clients": count}
                step_s, term_s = measure(step, term, repeats) if term else (None, None)
                share = term_s / step_s if step_s and term_s else None
                yield {**row, "step_seconds": step_s, "term_seconds": term_s, "share": share, "parameters": size}
            gc.collect()


def table(rows: list[dict[str, Any]]) -> str:
    """The results as a table."""
    lines = [f"{'setting':<12} {'form':<8} {'clients':>7} {'step [ms]':>10} {'term [ms]':>10} {'share':>8}"]
    for row in rows:
        head = f"{row['setting']:<12} {row['form']:<8} {row['clients']:>7}"
        if row["share"] is None:
            lines.append(f"{head} does not fit: {row['clients'] * row['parameters'] * 4 / 1e9:.0f} GB of encoders")
            continue
        milliseconds = f"{row['step_seconds'] * 1e3:>10.1f} {row['term_seconds'] * 1e3:>10.2f}"
        lines.append(f"{head} {milliseconds} {row['share']:>8.1%}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=["exact", "moments"], default=["exact", "moments"])
    parser.add_argument("--clients", nargs="+", type=int, default=[4, 32, 256, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in results(arguments.forms, arguments.clients, arguments.repeats):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
