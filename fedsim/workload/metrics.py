"""The section `metrics`: how images are scored."""

from pydantic import Field

from fedsim.core.section import Section
from fedsim.mri.metrics import Protocol


class Metrics(Section):
    """How images are scored."""

    protocol: Protocol = Field("fastmri", description="fastmri: over the volume; slice: each slice separately.")
    every: int = Field(1, ge=0, description="Rounds between validations; 0: never during training.")
