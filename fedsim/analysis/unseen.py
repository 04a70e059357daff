"""How well a finished run serves a site that took no part in training.

The rules, with K slices of the new site; `adaptation` says what is private and what is shared:

    K = 0   global     the shared model unchanged, if it is complete without a private part
            mean       the clients' mean private part, if there is one
            ensemble   the mean of the images that all clients' models reconstruct, if they differ
    K > 0   best       the client's model with the lowest error on K validation slices, if they differ
            fresh      an initial private part, trained on K training slices
            tuned      the mean private part, trained likewise

Where nothing is private, `fresh` and `tuned` train the decoder. What is shared stays frozen, running statistics too.
The number of steps is the one in STEPS with the lowest error on K validation slices; `fresh` trains at least 5 steps.
With K = all, every training slice is used: a hospital joins a finished federation and trains its own private part.

Errors are mean squared errors of normalised slices. The site's slices, subject after subject, are divided into K equal
intervals, and one slice is drawn from each, from (seed, "few-shot", site, K); if there are fewer validation slices than
K, all are used. The site's own settings of local training hold, as in round 1. Training slices train, validation slices
choose, and test volumes are reported.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from safetensors.torch import save_file
from torch import nn

from fedsim.analysis.adaptation import (
    STEPS,
    Adapted,
    Deployed,
    adapt,
    deployed,
    error_on,
    few_slices,
    tensors_of,
)
from fedsim.analysis.budgets import Budget
from fedsim.analysis.cross_site import assemble_as_before, threads
from fedsim.core.errors import InputError
from fedsim.core.files import replacing
from fedsim.data.evaluation import ReconstructedVolume, reconstruct_volumes
from fedsim.data.split import PARTS
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Row
from fedsim.engine.record.ledger import stamped
from fedsim.engine.record.run_directory import Run, Which
from fedsim.mri.metrics import Protocol
from fedsim.mri.references import UNTRAINED


@dataclass(frozen=True, kw_only=True)
class Served:
    """The new site's test volumes, reconstructed under a rule."""

    rule: str
    """global, mean, ensemble, best, or the rule by which it was adapted."""
    asked: Budget
    """Slices of the new site that were allowed; 0 for a rule that needs none."""
    volumes: list[ReconstructedVolume]
    """The new site's test volumes, images (slices, H, W)."""
    slices: int = 0
    """Number of the new site's slices that were used."""
    steps: int | None = None
    """Optimizer steps taken on them; None for a rule without training."""
    client: str | None = None
    """The client of the model, under `best`."""

    @property
    def site(self) -> str:
        """The site of the volumes."""
        return self.volumes[0].site

    def rows(self, protocol: Protocol) -> list[Row]:
        """One row per volume."""
        told = {"rule": self.rule, "asked": str(self.asked), "slices": self.slices, "steps": self.steps}
        who = {**told, "client": self.client, "protocol": protocol}
        return [{**who, **volume.score(protocol)} for volume in self.volumes]


def unseen(
    run: Run,
    budgets: Sequence[Budget] = (0, 4, 16),
    which: Which = "best",
    steps: Sequence[int] = STEPS,
    tell: Callable[[Served], None] = lambda served: None,
) -> pd.DataFrame:
    """Serve every unseen site of a run by every rule; keeps trained parts in RUN/unseen/SITE/RULE-K.safetensors.

    Args:
        run: A run with unseen sites.
        budgets: The numbers K of slices.
        which: The round of the models.
        steps: Numbers of steps to choose from on validation slices.
        tell: Called with the result of each rule.

    Returns:
        One row per rule, K and test volume: round, site, subject, volume, split, rule, asked (K as given), slices (K as
        a number), steps (chosen), client (of the model, under `best`), protocol, nmse, psnr [dB], ssim, zf_nmse,
        zf_psnr, zf_ssim, those of metrics.references, acceleration, within_subject, normalise, algorithm, seed.

    Raises:
        InputError: no site is unseen, a site has too little data, or the data are not those of the run.
    """
    round_ = run.round(which)
    if not run.workload.federation.unseen_sites():
        raise InputError(f"{run.path}: every site takes part in training; set `unseen: true` on a site and run again")
    federation = assemble_as_before(run)
    for site in federation.unseen:
        _check(site, budgets)
    rows = []
    with threads(run.workload.engine.threads):
        models = deployed(run, round_)
        for site in federation.unseen:
            for served in _serve(models, site, budgets, steps):
                tell(served)
                rows += [{"round": round_, **row} for row in served.rows(run.workload.metrics.protocol)]
    return stamped(rows, run.workload, federation)


def _check(site: ClientSpec, budgets: Sequence[Budget]) -> None:
    """Refuse a site that lacks slices that the rules need."""
    there = {part: site.data.samples(part) for part in PARTS}
    learns = any(budgets)
    for part in PARTS:
        if not there[part] and (learns or part == "test"):
            without = "" if part == "test" else ", or score it without adapting: --slices 0"
            raise InputError(f"site {site.name}: has no {part} slices; give its split a share of {part}{without}")
    most = max((budget for budget in budgets if budget != "all"), default=0)
    if most > there["train"]:
        raise InputError(f"--slices {most}: site {site.name} has {there['train']} training slices; that many or all")


def _serve(models: Deployed, site: ClientSpec, budgets: Sequence[Budget], steps: Sequence[int]) -> Iterator[Served]:
    (data,) = site.data.members
    size, references = site.training.batch_size, models.run.workload.metrics.references

    def images(network: nn.Module) -> list[ReconstructedVolume]:
        return list(reconstruct_volumes(network, data, "test", size, references=references))

    for budget in budgets:
        if budget == 0:
            shared = models.shared_model()
            if shared is not None:
                yield Served(rule="global", asked=0, volumes=images(models.network(shared)))
            if models.private:
                yield Served(rule="mean", asked=0, volumes=images(models.network(models.mean)))
                yield Served(
                    rule="ensemble", asked=0, volumes=_mean_images(images(network) for _, network in models.networks())
                )
            continue
        slices, val = few_slices(data, "train", budget).samples(), few_slices(data, "val", budget)
        if models.private:
            _, client = min((error_on(network, val, "val", size), name) for name, network in models.networks())
            network = models.run.learner(client, models.round).network
            yield Served(rule="best", asked=budget, volumes=images(network), slices=slices, client=client)
        for rule in ("fresh", "tuned"):
            adapted = adapt(models, site, rule == "tuned", budget, steps)
            _save(models, site.name, f"{rule}-{budget}", adapted)
            yield Served(rule=rule, asked=budget, volumes=images(adapted.network), slices=slices, steps=adapted.steps)


def _mean_images(of_models: Iterable[list[ReconstructedVolume]]) -> list[ReconstructedVolume]:
    """Volumes with the mean reconstruction of several models; images of one model are held at a time."""
    total: list[NDArray[np.float64]] = []
    for number, volumes in enumerate(of_models, start=1):  # noqa: B007 - the last number is the number of models
        new = [volume.reconstruction.astype(np.float64) for volume in volumes]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else new
    return [
        replace(volume, reconstruction=(images / number).astype(np.float32))
        for volume, images in zip(volumes, total, strict=True)
    ]


def _save(models: Deployed, site: str, name: str, adapted: Adapted) -> None:
    """Write the trained part by tensor name, for a site that joins with it."""
    path = models.run.path / "unseen" / site / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = {n: tensor.contiguous() for n, tensor in tensors_of(adapted.network).items() if n in models.moving}
    made = json.dumps({"round": models.round, "steps": adapted.steps})
    with replacing(path) as temporary:
        save_file(part, temporary, {"fedsim": made})  # the order of several keys would vary


def line_of(served: Served) -> str:
    """A line about a rule that has been tried."""
    budget = f"{served.slices} slices, " if served.slices else ""
    steps = f" after {served.steps} steps" if served.steps is not None else ""
    return f"site {served.site}: {budget}{served.rule}{steps}"


def unseen_table(frame: pd.DataFrame) -> Table:
    """Zero-filled and reconstructed images side by side: a row per site and reference, and per site, rule and K."""
    protocol, round_, algorithm = (frame[column].iloc[0] for column in ("protocol", "round", "algorithm"))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"sites that took no part, {algorithm}, test split, round {round_}, protocol {protocol}",
        caption="zero-filled → reconstructed, means over n volumes; K slices of the site to learn from",
    )
    table.add_column("site", overflow="fold")
    table.add_column("rule", no_wrap=True)
    for column in ("K", "steps", "n", r"PSNR \[dB]", "gain", "SSIM"):
        table.add_column(column, justify="right", no_wrap=True)
    for site, own in frame.groupby("site", sort=False):
        (_, first), *_ = own.groupby(["asked", "rule"], sort=False)
        for prefix, name in UNTRAINED.items():
            suited = first[first[f"{prefix}_psnr"].notna()] if f"{prefix}_psnr" in first else first[:0]
            if prefix != "zf" and len(suited):
                table.add_row(str(site), name, "", "", *_gains(suited, f"{prefix}_"))
        for (asked, rule), group in own.groupby(["asked", "rule"], sort=False):
            told = rule if group["client"].isna().all() else f"{rule}: {group['client'].iloc[0]}"
            steps = group["steps"].mean()
            table.add_row(
                str(site), str(told), str(asked), "" if np.isnan(steps) else f"{steps:.0f}", *_gains(group, "")
            )
    return table


def _gains(rows: pd.DataFrame, prefix: str) -> tuple[str, str, str, str]:
    """Volumes, and means over them: PSNR beside that of zero-filled images, the gain, and SSIM likewise."""
    psnr, ssim, before, ssim_before = (
        rows[column].mean() for column in (f"{prefix}psnr", f"{prefix}ssim", "zf_psnr", "zf_ssim")
    )
    gains = f"{before:.2f} → {psnr:.2f}", f"{psnr - before:+.2f}", f"{ssim_before:.3f} → {ssim:.3f}"
    return str(len(rows)), *gains
