"""All known networks, and finding a user's own: `model.name: mymodule:MyModel`."""

from typing import Annotated

from pydantic import ConfigDict, Field, SerializeAsAny, WrapValidator

from fedsim.core.errors import InputError
from fedsim.core.extension import Catalogue
from fedsim.models.base import Model, Network
from fedsim.models.modl import MoDLModel
from fedsim.models.reconstruction import UNetModel
from fedsim.models.varnet import VarNetModel


class Unread(Model):
    """A user's network, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    @property
    def takes_coils(self) -> bool:
        """As far as is known; its own class was asked when the run began."""
        return True

    @property
    def smallest(self) -> int:
        """As far as is known."""
        return 1

    def network(self) -> Network:
        """Not known."""
        raise InputError(f"model.name: {self.name} is a user's own, whose code was not run")


_Known = UNetModel | VarNetModel | MoDLModel
MODELS: tuple[type[Model], ...] = (UNetModel, VarNetModel, MoDLModel)
"""All known networks, the default first; add a new one here and to the union above."""

NETWORKS = Catalogue(key="model.name", base=Model, unread=Unread, known=MODELS, group="fedsim.networks", noun="network")  # type: ignore[type-abstract]
"""Where a user's own networks are found."""

AnyModel = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="name")]], WrapValidator(NETWORKS.read), NETWORKS
]
"""A known network, or one of the user's own."""
