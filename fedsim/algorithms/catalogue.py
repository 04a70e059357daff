"""Every known method, and finding a user's own: `algorithm.name: mymodule:MyMethod`."""

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

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
from fedsim.errors import InputError

_Known = (
    FedMRI | Single | Transfer | Centralised | FedAvg | FedProx | FedBN | FedPer | LGFedAvg | FLMRCM
    | Scaffold | FedAdam | FedYogi | FedAdagrad | FedRep | Ditto | FedDyn
)  # fmt: skip
ALGORITHMS: tuple[type[Algorithm], ...] = _Known.__args__
"""Every known method, the default first; a new one joins the union above."""

_OWN = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_own(name: object) -> bool:
    """Whether a method's name is that of a user's class."""
    return isinstance(name, str) and ":" in name


def own_method(name: str, folders: Sequence[Path] = ()) -> type[Algorithm]:
    """The class of a user's method.

    Args:
        name: module:Class.
        folders: Where a file module.py is looked for, before the installed modules.

    Raises:
        InputError: there is no such module or class, or it is not an Algorithm.
    """
    match = _OWN.fullmatch(name)
    if match is None:
        raise InputError(f"algorithm.name: {name!r} must be a known method, or module:Class for one of your own")
    module, kind = match.groups()
    found = getattr(_import(module, folders), kind, None)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise InputError(f"algorithm.name: {module} has no class {kind} derived from fedsim.algorithms.base.Algorithm")
    return found


def _import(module: str, folders: Sequence[Path]) -> ModuleType:
    files = [path for folder in folders if (path := folder.absolute() / f"{module}.py").is_file()]
    loaded = sys.modules.get(module)
    try:
        if not files or (loaded is not None and loaded.__file__ == str(files[0])):
            return importlib.import_module(module)
        spec = importlib.util.spec_from_file_location(module, files[0])
        assert spec is not None and spec.loader is not None  # noqa: PT018 - it is a file that exists
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module, None)
        where = f"{files[0]}" if files else module
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"algorithm.name: {where} cannot be imported ({what:.300})") from error
    return loaded


def _known_or_own(value: Any, known: ValidatorFunctionWrapHandler) -> Algorithm:  # noqa: ANN401 - whatever a file says
    if isinstance(value, Algorithm):
        return value
    name = value.get("name") if isinstance(value, Mapping) else None
    method: Algorithm = own_method(str(name)).model_validate(value) if is_own(name) else known(value)
    return method


AnyAlgorithm = Annotated[SerializeAsAny[Annotated[_Known, Field(discriminator="name")]], WrapValidator(_known_or_own)]
"""A known method, or one of the user's own that `own_method` finds."""
