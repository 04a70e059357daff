"""Every known method, and finding a user's own: `algorithm.name: mymodule:MyMethod`."""

from typing import Annotated

from pydantic import ConfigDict, Field, SerializeAsAny, WrapValidator

from fedsim.algorithms.apfl import APFL
from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.centralised import Centralised
from fedsim.algorithms.ditto import Ditto
from fedsim.algorithms.fedala import FedALA
from fedsim.algorithms.fedavg import FedAvg
from fedsim.algorithms.fedbn import FedBN
from fedsim.algorithms.feddyn import FedDyn
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.fedper import FedPer
from fedsim.algorithms.fedprox import FedProx
from fedsim.algorithms.fedrep import FedRep
from fedsim.algorithms.fl_mrcm import FLMRCM
from fedsim.algorithms.frozen_encoder import FrozenEncoder
from fedsim.algorithms.lg_fedavg import LGFedAvg
from fedsim.algorithms.scaffold import Scaffold
from fedsim.algorithms.server_optimizers import FedAdagrad, FedAdam, FedYogi
from fedsim.algorithms.single import Single
from fedsim.algorithms.transfer import Transfer
from fedsim.core.extension import Catalogue

_Known = (
    FedMRI | Single | Transfer | Centralised | FedAvg | FedProx | FedBN | FedPer | LGFedAvg | FLMRCM
    | Scaffold | FedAdam | FedYogi | FedAdagrad | FedRep | Ditto | FedDyn | FedALA | APFL
    | FrozenEncoder
)  # fmt: skip
ALGORITHMS: tuple[type[Algorithm], ...] = _Known.__args__
"""Every known method, the default first; a new one joins the union above."""


class Unread(Algorithm):
    """A user's method of which only the keys are read: its file is not run."""

    model_config = ConfigDict(extra="allow")
    name: str


METHODS = Catalogue(
    key="algorithm.name", base=Algorithm, unread=Unread, known=ALGORITHMS, group="fedsim.methods", noun="method"
)
"""Where a user's own methods are found."""

AnyAlgorithm = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="name")]], WrapValidator(METHODS.read), METHODS
]
"""A known method, or one of the user's own."""
