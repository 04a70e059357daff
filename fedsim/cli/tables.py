"""Tables for the terminal: scores of clients, splits of sites, shards in a cache."""

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from fedsim.core.text import bytes_text
from fedsim.data.cache import Entry
from fedsim.engine.record.ledger import row_key

_MOST_ROWS = 40


def evaluation_table(frame: pd.DataFrame) -> Table:
    """Zero-filled beside reconstructed, one row per client (per site if clients are many), means over volumes."""
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


def cache_table(entries: Sequence[Entry], title: str) -> Table:
    """Shards with what they were made from, their size and their age."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(title),
        caption=f"{len(entries)} shards, {bytes_text(sum(e.size for e in entries))}",
    )
    table.add_column("from", overflow="fold")
    table.add_column("shard", overflow="fold")
    for column in ("volumes", "size", "made", "last used"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        ages = (f"{days:.0f} d ago" if days >= 1 else "today" for days in (entry.made_days, entry.used_days))
        table.add_row(escape(entry.source), entry.path.name, str(entry.volumes), bytes_text(entry.size), *ages)
    return table
