"""Tables for the terminal: scores of clients, splits of sites, shards in a cache."""

from collections.abc import Iterator, Sequence
from itertools import islice

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from fedsim.analysis.scores import by_reconstruction
from fedsim.core.text import bytes_text
from fedsim.data.cache import Entry
from fedsim.engine.record.ledger import row_key
from fedsim.report.wording import AXIS_LABELS, number

_MOST_ROWS = 40


def evaluation_table(frame: pd.DataFrame) -> Table:
    """Zero-filled beside reconstructed, means over volumes: by client, or by site if clients are many; 40 rows."""
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
    groups = frame.groupby(key, sort=False)
    for name, group in islice(groups, _MOST_ROWS):
        stamp = " (within subject)" if group["within_subject"].any() else ""
        table.add_row(f"{name}{stamp}", str(len(group)), *_cells(group))
    if len(groups) > _MOST_ROWS:
        table.add_row(f"and {len(groups) - _MOST_ROWS:,} more")
    table.add_section()
    table.add_row(f"mean of {key}s", str(len(frame)), *_cells(frame.groupby(key).mean(numeric_only=True)))
    return table


def evaluation_tables(frame: pd.DataFrame) -> Iterator[Table]:
    """The tables of an evaluation: by client, and by reconstruction if there is more than two of them or a region."""
    yield evaluation_table(frame)
    if (beside := reference_table(frame)) is not None:
        yield beside


def reference_table(frame: pd.DataFrame) -> Table | None:
    """Every reconstruction of an evaluation by every quality; None if it has neither references nor boxes."""
    key = row_key(frame, _MOST_ROWS)
    rows = by_reconstruction(frame, key)
    qualities = list(rows.columns[2:])
    if len(rows) <= 2 and "roi_psnr" not in qualities:  # zero-filled images and the network's
        return None
    table = Table(box=box.SIMPLE_HEAD, title="beside reconstructions without training", caption=f"means of {key}s")
    table.add_column("reconstruction", min_width=14)
    for head in ("n", *(AXIS_LABELS[quality] for quality in qualities)):
        table.add_column(escape(head), justify="right")
    for row in rows.to_dict("records"):
        numbers = (number(row[quality], quality) for quality in qualities)
        table.add_row(str(row["name"]), str(row["volumes"]), *numbers)
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
    """What every site has: subjects and slices by split, mask and acceleration, measured and effective."""
    told = "train, val and test in slices; R is measured; in brackets with conjugate partners, of images without phase"
    table = Table(box=box.SIMPLE_HEAD, title="sites", caption=told)
    for column in ("site", "subjects", "volumes", "train", "val", "test", "mask", "R"):
        table.add_column(column, justify="left" if column in {"site", "mask"} else "right")
    for site, group in manifest.groupby("site", sort=False):
        parts = [str((group["split"] == part).sum()) for part in ("train", "val", "test")]
        counts = [str(group[column].nunique()) for column in ("subject", "volume")]
        stamp = " (within subject)" if group["within_subject"].any() else ""
        measured, known = (f"{group[key].mean():.2f}" for key in ("acceleration", "effective_acceleration"))
        acceleration = measured if known == measured else f"{measured} ({known})"
        table.add_row(f"{site}{stamp}", *counts, *parts, group["mask_kind"].iloc[0], acceleration)
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
