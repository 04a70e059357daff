"""What a client needs of a machine while it trains."""

from pydantic import Field

from fedsim.core.section import Section


class Resources(Section):
    """What a client needs; unset keys take the engine's values."""

    cpus: float | None = Field(None, gt=0, le=1024, description="Cores it takes on its node; default engine.threads.")
    gpus: float | None = Field(
        None, ge=0, le=64, description="Share of a GPU, or number of GPUs, that its actor has, or more where memory "
        "needs more; default an equal share of those available.")  # fmt: skip
    memory: float | None = Field(
        None, gt=0, le=1e6, description="Memory [GB] that Ray reserves for its actor; default none."
    )
