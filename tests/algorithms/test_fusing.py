"""Whether clients train as one network is read off a method's code, a user's own included."""

from collections.abc import Mapping

from torch import Tensor

from fedsim.algorithms.base import Algorithm, Phase
from fedsim.algorithms.fedprox import FedProx
from fedsim.algorithms.fusing import one_by_one
from fedsim.algorithms.learner import Learner
from fedsim.data.batch import Batch


class OwnLoss(Algorithm):
    """Its steps are in a helper, within a function."""

    name: str = "own"

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        def epoch() -> None:
            for batch in learner.batches():
                learner.step(batch, loss=self.loss, groups=("shared",))

        epoch()
        return {"shared": learner.shared}

    @staticmethod
    def loss(batch: Batch) -> Tensor:
        return batch.target.sum()


class Inherits(OwnLoss):
    """Has no steps of its own."""


class Helper(Algorithm):
    """A name of a loss, and steps on the usual one."""

    name: str = "helper"

    def train(self, learner: Learner, received: Mapping[str, Tensor], phase: str) -> Mapping[str, Tensor]:
        names = ("loss", "ratio")
        for batch in learner.batches():
            learner.step(batch)
        return {"shared": learner.shared, "names": received[names[0]]}


class InTurn(Algorithm):
    """One client after the other."""

    name: str = "in turn"

    def phases(self, cohort: tuple[str, ...], round_: int, seed: int) -> list[Phase]:
        return [Phase((client,)) for client in cohort]


def test_a_loss_of_its_own_is_seen_wherever_it_is_given() -> None:
    for method in (OwnLoss(), Inherits()):
        assert one_by_one(method, ("A", "B")) == "its steps have a loss of their own"
    for method in (Helper(), FedProx()):
        assert one_by_one(method, ("A", "B")) == ""


def test_clients_that_train_in_turn_are_seen() -> None:
    assert one_by_one(InTurn(), ("A", "B")) == "one client trains at a time"
    assert one_by_one(FedProx(), ("A",)) == "one client trains at a time"
