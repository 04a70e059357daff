"""A host with injected faults; used only if the workload has faults."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedsim.algorithms.base import Upload
from fedsim.algorithms.hooks import Made
from fedsim.algorithms.learner import Learner
from fedsim.core.errors import DivergedError
from fedsim.core.files import writing
from fedsim.engine.host.host import Host
from fedsim.engine.host.messages import Save, Setup, Train
from fedsim.engine.host.readonly import ReadOnly
from fedsim.engine.state.client_files import Digests
from fedsim.workload.faults import Fault, flip_a_bit


class FaultyHost(Host):
    """A host that applies the faults of each message to the clients that they name."""

    def _work(self, order: Train, learner: Learner, received: ReadOnly, uploads: Sequence[Upload]) -> Made:
        """A client's work, before which it may die, hang or raise, and whose uploads may be corrupted.

        Raises:
            InjectedError: a fault raises.
        """
        faults = order.faults.get(learner.client, ())
        for fault in faults:
            fault.strike()
        sent = super()._work(order, learner, received, uploads)
        for fault in faults:
            sent = {upload: _spoiled(fault, vector) for upload, vector in sent.items()}
        return sent

    def _checked(
        self, order: Train, name: str, sent: Made, sizes: Mapping[str, float], learner: Learner
    ) -> dict[str, float]:
        """The bound of each upload.

        Raises:
            ClientError: one cannot be summed; names the fault if that is the cause.
        """
        try:
            return super()._checked(order, name, sent, sizes, learner)
        except DivergedError as error:
            if all(fault.kind != "nan" for fault in order.faults.get(name, ())):
                raise
            what = "sent NaN, a fault of the workload (faults: kind nan)"
            raise DivergedError(f"client {name}, round {order.lot(name).round}: {what}") from error

    def _is_to_blame(self, order: Train, name: str, sent: Made, learner: Learner) -> str:
        """Never the method's fault: the uploads were corrupted on purpose."""
        return "" if name in order.faults else super()._is_to_blame(order, name, sent, learner)

    def _written(self, order: Save, file: Path, names: Sequence[str]) -> Digests:
        """Save to a disk that may be full, or damage the file afterwards.

        Raises:
            WriteError: the disk is full.
        """
        faults = [fault for name in names for fault in order.faults.get(name, ())]
        with writing(file):
            for fault in faults:
                fault.strike()
        digests = super()._written(order, file, names)
        if any(fault.kind == "corrupt" for fault in faults):
            flip_a_bit(file)
        return digests


def _spoiled(fault: Fault, vector: Tensor) -> Tensor:
    return torch.from_numpy(fault.spoil(vector.cpu().numpy())).to(vector.device)


def host_class(setup: Setup) -> type[Host]:
    """The class of a workload's hosts."""
    return FaultyHost if setup.faulty else Host
