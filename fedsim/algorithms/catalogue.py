"""Every known method, and finding a user's own: `algorithm.name: mymodule:MyMethod`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.centralised import Centralised
from fedsim.algorithms.ditto import Ditto
from fedsim.algorithms.fedavg import FedAvg
from fedsim.algorithms.fedbn import FedBN
from fedsim.algorithms.feddyn import FedDyn
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.fedper import FedPer
from fedsim.algorithms.fedprox import FedProx
from fedsim.algorithms.fedrep import FedRep
from fedsim.algorithms.fl_mrcm import FLMRCM
from fedsim.algorithms.lg_fedavg import LGFedAvg
from fedsim.algorithms.scaffold import Scaffold
from fedsim.algorithms.server_optimizers import FedAdagrad, FedAdam, FedYogi
from fedsim.algorithms.single import Single
from fedsim.algorithms.transfer import Transfer
from fedsim.core.errors import InputError
from fedsim.core.own import is_own, own_class

_Known = (
    FedMRI | Single | Transfer | Centralised | FedAvg | FedProx | FedBN | FedPer | LGFedAvg | FLMRCM
    | Scaffold | FedAdam | FedYogi | FedAdagrad | FedRep | Ditto | FedDyn
)  # fmt: skip
ALGORITHMS: tuple[type[Algorithm], ...] = _Known.__args__
"""Every known method, the default first; a new one joins the union above."""


_WANTED = "a known method, or module:Class for one of your own"


def own_method(name: str, folders: Sequence[Path] = ()) -> type[Algorithm]:
    """The class of a user's method.

    Args:
        name: module:Class.
        folders: Where a file module.py is looked for, before the installed modules.

    Raises:
        InputError: there is no such module or class, or it is not an Algorithm.
    """
    module, found = own_class(name, "algorithm.name", _WANTED, folders)
    if found is None or not issubclass(found, Algorithm):
        kind = name.partition(":")[2]
        raise InputError(f"algorithm.name: {module} has no class {kind} derived from fedsim.algorithms.base.Algorithm")
    return found


class Unread(Algorithm):
    """A user's method of which only the keys are read: its file is not run."""

    model_config = ConfigDict(extra="allow")
    name: str


def _known_or_own(value: Any, known: ValidatorFunctionWrapHandler) -> Algorithm:  # noqa: ANN401 - whatever a file says
    if isinstance(value, Algorithm):
        return value
    name = value.get("name") if isinstance(value, Mapping) else None
    method: Algorithm = own_method(str(name)).model_validate(value) if is_own(name) else known(value)
    return method


AnyAlgorithm = Annotated[SerializeAsAny[Annotated[_Known, Field(discriminator="name")]], WrapValidator(_known_or_own)]
"""A known method, or one of the user's own that `own_method` finds."""
