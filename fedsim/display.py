"""What a person sees in the terminal: live progress while a run goes on, tables when it is done."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedsim.config import Workload
from fedsim.engine.host import Row
from fedsim.engine.ledger import row_key
from fedsim.engine.observer import Observer

_MOST_ROWS = 40


class LiveProgress(Observer):
    """Bars for sites, rounds and clients on a terminal."""

    def __init__(self, workload: Workload, progress: Progress) -> None:
        self._progress = progress
        self._rounds = workload.training.rounds
        self._sites = progress.add_task("sites", total=len(workload.federation.expanded_sites()), note="importing")
        self._round_bar = progress.add_task("rounds", total=self._rounds, note="", visible=False)
        self._client_bar = progress.add_task("clients", total=None, note="", visible=False)
        self._clock = _Clock(self._rounds)

    def site_ready(self, site: str) -> None:
        """One more site."""
        self._progress.update(self._sites, advance=1, note=site)

    def round_begins(self, round_: int, clients: int) -> None:
        """Start the bar of clients again."""
        self._clock.begin(round_)
        self._progress.update(self._sites, visible=False)
        self._progress.update(self._round_bar, completed=round_ - 1, visible=True)
        self._progress.reset(self._client_bar, total=clients, visible=True, note=f"round {round_}")

    def clients_done(self, rows: list[Row]) -> None:
        """Some more clients."""
        self._progress.update(self._client_bar, advance=len(rows))

    def round_ends(self, row: Row) -> None:
        """Loss, PSNR and time left."""
        note = f"{_figures(row)}  {self._clock.left(row['round'])} left"
        self._progress.update(self._round_bar, completed=row["round"], note=note)


class PlainProgress(Observer):
    """One line a round, for logs."""

    def __init__(self, workload: Workload, console: Console) -> None:
        self._rounds = workload.training.rounds
        self._console = console
        self._clock = _Clock(self._rounds)

    def round_begins(self, round_: int, clients: int) -> None:
        """Start the clock."""
        self._clock.begin(round_)

    def round_ends(self, row: Row) -> None:
        """Print the round."""
        left = self._clock.left(row["round"])
        self._console.print(
            f"round {row['round']}/{self._rounds}  {_figures(row)}  {row['seconds']:.1f} s  {left} left",
            highlight=False,
        )


class _Clock:
    """Time left, from the rounds seen so far."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._first: tuple[int, float] | None = None

    def begin(self, round_: int) -> None:
        self._first = self._first or (round_ - 1, time.monotonic())

    def left(self, round_: int) -> str:
        done_before, since = self._first or (0, time.monotonic())
        seconds = (time.monotonic() - since) / max(1, round_ - done_before) * (self._rounds - round_)
        return duration(seconds)


def duration(seconds: float) -> str:
    """A time as a person would say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def progress_of(workload: Workload, console: Console) -> Iterator[Observer]:
    """A live display on a terminal, a line a round elsewhere."""
    if not console.is_terminal:
        yield PlainProgress(workload, console)
        return
    columns = (
        TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield LiveProgress(workload, progress)


def _figures(row: Row) -> str:
    psnr = "" if math.isnan(row["psnr"]) else f"  PSNR {row['psnr']:.2f} dB"
    return f"loss {row['loss']:.4f}{psnr}"


def evaluation_table(frame: pd.DataFrame) -> Table:
    """Zero-filled beside reconstructed, a row a client (a site where there are many), means over volumes."""
    key = row_key(frame, _MOST_ROWS)
    protocol, split, round_ = (frame[column].iloc[0] for column in ("protocol", "split", "round"))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{split} split, round {round_}, protocol {protocol}",
        caption="zero-filled → reconstructed, means over n volumes",
    )
    table.add_column(key, min_width=12, overflow="fold")
    for column in ("n", "NMSE", r"PSNR \[dB]", "gain", "SSIM"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, group in frame.groupby(key, sort=False):
        stamp = " (within subject)" if group["within_subject"].any() else ""
        table.add_row(f"{name}{stamp}", str(len(group)), *_cells(group))
    table.add_section()
    table.add_row(f"mean of {key}s", str(len(frame)), *_cells(frame.groupby(key).mean(numeric_only=True)))
    return table


def _cells(group: pd.DataFrame) -> tuple[str, ...]:
    mean = group.mean(numeric_only=True)
    return (
        f"{mean['zf_nmse']:.3f} → {mean['nmse']:.3f}",
        f"{mean['zf_psnr']:.2f} → {mean['psnr']:.2f}",
        f"{mean['psnr'] - mean['zf_psnr']:+.2f}",
        f"{mean['zf_ssim']:.3f} → {mean['ssim']:.3f}",
    )


def manifest_table(manifest: pd.DataFrame) -> Table:
    """What every site has: subjects and slices by split, mask and measured acceleration."""
    table = Table(box=box.SIMPLE_HEAD, title="sites", caption="train, val and test in slices; R is measured")
    for column in ("site", "subjects", "volumes", "train", "val", "test", "mask", "R"):
        table.add_column(column, justify="left" if column in {"site", "mask"} else "right")
    for site, group in manifest.groupby("site", sort=False):
        parts = [str((group["split"] == part).sum()) for part in ("train", "val", "test")]
        counts = [str(group[column].nunique()) for column in ("subject", "volume")]
        stamp = " (within subject)" if group["within_subject"].any() else ""
        mask, acceleration = group["mask_kind"].iloc[0], group["acceleration"].mean()
        table.add_row(f"{site}{stamp}", *counts, *parts, mask, f"{acceleration:.2f}")
    return table
