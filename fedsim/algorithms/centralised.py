"""Centralised training ("Mixed"): one client holds the data of all sites; the upper reference."""

from typing import ClassVar, Literal

from pydantic import Field

from fedsim.algorithms.single import Isolated


class Centralised(Isolated):
    """Every site's training slices in one pool, each undersampled as at its site; nothing is sent."""

    pools_data: ClassVar[bool] = True
    lockstep: ClassVar[bool] = True

    name: Literal["centralised"] = Field("centralised", description="Method.")
