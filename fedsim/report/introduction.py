"""The settings of a run in its report, in words."""

from collections.abc import Collection
from datetime import UTC, datetime

from fedsim.core.section import Section
from fedsim.core.text import precise_duration
from fedsim.engine.host.kernels import WITHOUT_DETERMINISM
from fedsim.engine.record.run_directory import Run
from fedsim.workload.schema import Workload


def settings(section: Section) -> str:
    """A section's keys without its name, in brackets; empty if there are none."""
    content = section.model_dump()
    own = ["your own class"] if ":" in content.pop("name") else []
    text = ", ".join([*own, *(_setting(section, key, value) for key, value in content.items())])
    return f" ({text})" if text else ""


def _setting(section: Section, key: str, value: object) -> str:
    """A key with its value; for a switch that is on, its description."""
    if isinstance(value, bool):
        field = type(section).model_fields.get(key)  # a user's class that was not run has values alone
        told = ((field and field.description) or "").rstrip(".")
        return (
            told.removeprefix("Whether ") if value and told.startswith("Whether ") else f"{key}: {str(value).lower()}"
        )
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"


def training(workload: Workload) -> str:
    """Loss, optimizer, learning rate, batch and epochs of the clients; from smallest to largest if sites differ."""

    def values_of(key: str) -> str:
        common = getattr(workload.training, key)
        given = sorted({getattr(site.training, key) or common for site in workload.federation.expanded_sites().entries})
        return " to ".join(str(value) for value in dict.fromkeys((given[0], given[-1])))

    epochs = values_of("local_epochs")
    return (
        f"loss {workload.training.loss.label}, {values_of('optimizer')}, learning rate {values_of('lr')}, "
        f"batches of {values_of('batch_size')}, {epochs} local epoch{'' if epochs == '1' else 's'} per round"
    )


def kernels(workload: Workload, devices: Collection[str]) -> str:
    """Whether a run on a GPU can be repeated bit for bit; empty if clients trained on CPUs alone.

    Args:
        workload: As the run recorded it.
        devices: Where clients trained, as the ledger has it.
    """
    if "cuda" not in devices:
        return ""
    gpu = (workload.provenance or {}).get("gpu", "a GPU")
    if workload.engine.deterministic:
        return f"Clients trained on {gpu} with deterministic kernels: the same workload gives the same bits there."
    return f"Clients trained on {gpu} with engine.deterministic: false: {WITHOUT_DETERMINISM}."


def times(run: Run) -> str:
    """How long the finished rounds of a run took, and when the last one ended."""
    ended = datetime.fromtimestamp((run.path / "rounds.parquet").stat().st_mtime, UTC)
    took = precise_duration(run.rounds["seconds"].sum())
    return f"{took} for all rounds, the last one finished {ended:%Y-%m-%d %H:%M} UTC"
