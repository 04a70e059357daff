"""Writes docs/results.md from the tables in docs/results: python docs/make_results.py.

The text is in results.md.j2; every number comes from a table that a study, a run or a benchmark wrote.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from fedsim.analysis.comparison import MEAN, compare, shown
from fedsim.core.seeds import numpy_stream
from fedsim.mri.masks import effective_acceleration
from fedsim.report.budget_table import budgets, equality
from fedsim.report.overview import columns_of
from fedsim.report.study_tables import study_tables
from fedsim.report.tables import as_markdown, as_text, markdown
from fedsim.report.wording import sentences
from fedsim.workload.reading import load_workload

DOCS = Path(__file__).parent
TABLES = DOCS / "results"
_CHANNELS = {0: "T1", 1: "FLAIR", 2: "T1 with contrast agent"}  # of workloads/fedmri-tcga.yaml


def comparison(study: str, reference: str = "fedmri", quality: str = "psnr") -> str:
    """The study's tables, one per regime, each with its findings."""
    table = compare(pd.read_parquet(TABLES / study / "volumes.parquet"), quality, reference)
    parts = []
    for regime in table["regime"].unique():
        rows = table[table["regime"] == regime]
        parts.append(markdown(rows, quality, reference).replace("## ", "### ", 1))
        parts += [f"* {line}" for line in sentences(rows, quality, reference)]
        parts.append("")
    return "\n".join(parts)


def tuned(study: str) -> str:
    """The candidates of tuning for each method, and the one chosen."""
    tuning = pd.read_parquet(TABLES / study / "tuning.parquet")
    lines = ["| method | chosen | validation PSNR [dB] of every candidate |", "|---|---|---|"]
    for method, rows in tuning.groupby("method", sort=False):
        chosen = rows[rows["chosen"]].iloc[0]
        tried = "; ".join(f"{_settings(row.settings)}: {row.psnr:.2f}" for row in rows.itertuples())
        lines.append(f"| {method} | {_settings(chosen['settings'])} | {tried} |")
    return "\n".join(lines)


def _settings(text: str) -> str:
    return ", ".join(f"{key.split('.')[-1]} {value:g}" for key, value in json.loads(text).items())


def leads(study: str, reference: str = "fedmri", quality: str = "psnr") -> str:
    """Whom the reference leads and who leads it after Holm's correction: over seeds, and over test subjects."""
    table = compare(pd.read_parquet(TABLES / study / "volumes.parquet"), quality, reference)
    table = table[(table["site"] == MEAN) & table["p"].notna()]
    lines = ["| regime | comparisons | test | ahead of | behind |", "|---|---:|---|---|---|"]
    tests = {"seeds": ("p_holm", "difference"), "test subjects": ("patient_p_holm", "patient_median")}
    for regime, rows in table.groupby("regime", sort=False):
        for test, (p, apart) in tests.items():
            found = rows[rows[p].map(shown)]
            ahead, behind = (list(found.loc[side, "method"]) for side in (found[apart] < 0, found[apart] > 0))
            cells = (str(regime), str(len(rows)), test, *(", ".join(names) or "–" for names in (ahead, behind)))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def hospitals(study: str, workload: str, matrix: tuple[int, int]) -> str:
    """What differs between the sites of a study: contrast, mask, accelerations, and test subjects over all seeds.

    The effective acceleration is that of 20 masks drawn here from the workload, as the table is older than its column.
    """
    volumes = pd.read_parquet(TABLES / study / "volumes.parquet")
    lines = [
        "| hospital | contrast | mask | measured R | effective R | test subjects |",
        "|---|---|---|---:|---:|---:|",
    ]
    for site in load_workload(DOCS.parent / "workloads" / workload).federation.sites:
        own = volumes[volumes["site"] == site.name]
        masks = [site.mask.sample(matrix, numpy_stream(seed, "results", site.name)) for seed in range(20)]
        effective = sorted(f"{effective_acceleration(mask):.1f}" for mask in masks)
        contrast = _CHANNELS[site.source.model_dump()["channel"]]
        known = " to ".join(dict.fromkeys((effective[0], effective[-1])))
        numbers = (f"{own['acceleration'].mean():.1f}", known, str(own["subject"].nunique()))
        lines.append("| " + " | ".join([site.name, contrast, f"{site.mask.kind} {site.mask.nominal}", *numbers]) + " |")
    return "\n".join(lines)


def rising(study: str) -> str:
    """How much validation PSNR still rose between the last two scored rounds: mean over seeds, by method."""
    curves = pd.read_parquet(TABLES / study / "curves.parquet").dropna(subset="psnr")
    mean = curves.groupby(["method", "regime", "round"], sort=False)["psnr"].mean().unstack("round").sort_index(axis=1)
    gain = (mean.iloc[:, -1] - mean.iloc[:, -2]).unstack("regime", sort=False)
    lines = ["| method | " + " | ".join(gain.columns) + " |", "|---|" + "---:|" * gain.shape[1]]
    lines += [
        "| " + " | ".join([str(method), *(f"{value:+.2f}" for value in row)]) + " |" for method, row in gain.iterrows()
    ]
    return "\n".join(lines)


def given(study: str) -> str:
    """Whether all methods were given the same candidates, rounds, scored rounds and steps."""
    volumes = pd.read_parquet(TABLES / study / "volumes.parquet").drop_duplicates(["regime", "method", "seed"])
    curves, tuning = (pd.read_parquet(TABLES / study / f"{name}.parquet") for name in ("curves", "tuning"))
    return "\n".join(f"* {line}" for line in equality(budgets(volumes, curves, tuning)))


def work(study: str) -> str:
    """Steps, megabytes and minutes of a run, mean over seeds."""
    results = pd.read_parquet(TABLES / study / "volumes.parquet").drop_duplicates(["regime", "method", "seed"])
    results["MB up"], results["MB down"] = results["uplink_bytes"] / 1e6, results["downlink_bytes"] / 1e6
    results["minutes"] = results["seconds"] / 60
    mean = results.groupby(["regime", "method"], sort=False)[["steps", "MB up", "MB down", "minutes"]].mean()
    lines = ["| regime | method | steps | MB up | MB down | minutes per run |", "|---|---|---:|---:|---:|---:|"]
    for (regime, method), row in mean.iterrows():
        numbers = (f"{row['steps']:.0f}", *(f"{row[column]:.1f}" for column in ("MB up", "MB down", "minutes")))
        lines.append("| " + " | ".join([regime, method, *numbers]) + " |")
    return "\n".join(lines)


def overview(study: str) -> str:
    """A study's overview, and its findings in PSNR."""
    tables = study_tables(TABLES / study)
    lines = [as_markdown(as_text(columns_of(tables.overview, tables.reference))), ""]
    return "\n".join([*lines, *(f"* {line}" for line in tables.says("psnr"))])


def time_to_quality(study: str) -> str:
    """A study's time to quality in simulated time, and what it says."""
    times = study_tables(TABLES / study).times
    return "\n".join([as_markdown(as_text(times.columns())), "", *(f"* {line}" for line in times.sentences())])


def there(study: str) -> bool:
    """Whether a study's tables are here: a section on it is written only then."""
    return (TABLES / study / "results.parquet").is_file()


def endpoint(study: str) -> str:
    """A study's endpoint: what it shows in words and as a table, and what methods were given."""
    tables = study_tables(TABLES / study)
    shown = tables.judgement
    if shown is None:
        raise ValueError(f"{study} has no endpoint")
    told = [f"* {line}" for line in (*shown.sentences(), *equality(tables.budgets))]
    return "\n".join([f"The endpoint: {shown.told}.", "", *told, "", as_markdown(as_text(shown.columns()))])


def findings(study: str) -> str:
    """What a study says in PSNR, without its table."""
    return "\n".join(f"* {line}" for line in study_tables(TABLES / study).says("psnr"))


def trained(study: str) -> str:
    """What training did: whether curves were flat, terms oscillated and discriminators learnt."""
    return "\n".join(f"* {line}" for line in study_tables(TABLES / study).training)


def unseen() -> str:
    """The unseen hospital: rows rule and slices, columns methods; mean and deviation over seeds."""
    table = pd.concat([pd.read_parquet(path) for path in sorted((TABLES / "unseen").glob("*.parquet"))])
    seeds = table.groupby(["rule", "asked", "algorithm", "seed"], sort=False)[["psnr", "ssim", "zf_psnr"]].mean()
    seeds = seeds.reset_index()
    methods = list(seeds["algorithm"].unique())
    lines = [
        "| rule | slices | " + " | ".join(f"{m}: PSNR [dB] | SSIM" for m in methods) + " |",
        "|---|---:|" + "---:|---:|" * len(methods),
    ]
    for (rule, slices), rows in seeds.groupby(["rule", "asked"], sort=False):
        cells = []
        for method in methods:
            mine = rows[rows["algorithm"] == method]
            spread = f"{mine['psnr'].mean():.2f} ± {mine['psnr'].std():.2f}", f"{mine['ssim'].mean():.3f}"
            cells += list(spread) if len(mine) else ["–", "–"]
        lines.append(f"| {rule} | {slices} | " + " | ".join(cells) + " |")
    zero = seeds.drop_duplicates("seed")["zf_psnr"]
    return "\n".join(lines) + f"\n\nZero-filled: {zero.mean():.2f} ± {zero.std():.2f} dB; n = {len(zero)} seeds."


def json_table(name: str, columns: list[str]) -> str:
    """A benchmark's JSON lines as a table."""
    text = (TABLES / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---:|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:  # noqa: ANN401 - JSON
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


SAID: tuple[Callable[..., Any], ...] = (
    overview, comparison, tuned, work, leads, hospitals, rising, given, unseen, json_table, time_to_quality, there,
    endpoint, findings, trained,
)  # fmt: skip
"""What a template may ask for."""


def render(template: str = "results.md.j2") -> str:
    """The text of docs/results.md, or of another template."""
    loader = jinja2.FileSystemLoader(DOCS)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.get_template(template).render({function.__name__: function for function in SAID})


if __name__ == "__main__":
    (DOCS / "results.md").write_text(render() + "\n", encoding="utf-8")
