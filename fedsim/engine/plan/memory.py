"""Memory that actors need to work: of their node and, where clients train on GPUs, of those."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.learner import Learner
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Setup
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.node import CUDA_BYTES
from fedsim.engine.plan.sizes import layout_bytes, private_layout, traffic_of_zeros

_PROCESS = 375e6  # bytes of an actor that trains hardly anything, which no other process shares
LIBRARIES = 225e6
"""What all processes of a node share, torch's code above all [bytes]."""
_WORKING_VECTORS = 6  # parameters, gradients, initial parameters, float64 sums, upload
_OF_COILS = 1.25  # times that, where coils are transformed within the network
_STEP, _FUSED_STEP = 1.2, 2.0  # times what autograd keeps, for what convolutions need besides; of many at once, more


def process_bytes(learner: Learner, step_bytes: float, fuse: int = 1) -> float:
    """Memory of an actor without its clients' private state and slices, and without `LIBRARIES` [bytes].

    Measured, within 20 %, for U-Nets of 8 to 32 channels in one and two domains at 64 to 256 pixels. With the state and
    slices of its client, it was 1.02 (VarNet, batches of 4), 0.91 (MoDL, of 2) and 1.01, 1.02, 1.08 and 1.14 (U-Nets:
    image and complex, of 8; kspace and dual, of 2) times the largest private memory of an actor that took one step with
    8 coils at 128 pixels. U-Nets on images combine the coils before the network and do without the factor for coils.

    Args:
        learner: Has the network.
        step_bytes: What autograd keeps in a client's largest step.
        fuse: Clients that train as one network.
    """
    return _PROCESS + vectors_bytes(learner, fuse) + fused_step_bytes(step_bytes, fuse)


def fused_step_bytes(step_bytes: float, fuse: int) -> float:
    """Memory of a step of all clients that train as one network [bytes], given what autograd keeps for one."""
    return (_STEP if fuse == 1 else _FUSED_STEP * fuse) * step_bytes


def vectors_bytes(learner: Learner, fuse: int = 1) -> float:
    """Memory of the parameters with what an actor makes of them in training [bytes].

    Fused clients have a row each, beside the network that evaluates.
    """
    network = learner.shared.nbytes + learner.local.nbytes
    return (fuse + (fuse > 1)) * _WORKING_VECTORS * network


@dataclass(frozen=True, kw_only=True)
class GpuNeeds:
    """Memory of a GPU that an actor takes to train [bytes], beside its clients' private state and slices."""

    vectors: float
    """Parameters, gradients, sums, and the optimizer's state of clients that train and of those that follow them."""
    received: float
    """The largest broadcast of a phase, as far as it is known before clients have trained; of each state of the server
    that clients of a call read."""
    activations: float
    """What a training step keeps, for the largest batch."""
    apart: float
    """How much of vectors and of what is received is there because clients of a call begin with several states."""

    @property
    def total(self) -> float:
        """With what every process takes."""
        return CUDA_BYTES + self.vectors + self.received + self.activations


def gpu_needs(
    algorithm: Algorithm,
    learner: Learner,
    clients: Sequence[ClientSpec],
    side: int,
    *,
    states: int = 1,
    sums: int = 1,
) -> GpuNeeds:
    """What the largest of some clients needs of a GPU.

    Args:
        algorithm: The method, settled.
        learner: Has the network, on the CPU.
        clients: The federation's.
        side: Pixels [one side] of the slice that its activations are counted on.
        states: States of the server that clients of a call read.
        sums: Sums that their uploads enter.
    """
    fuse = clients[0].training.fuse
    optimizers = sorted({client.training.optimizer for client in clients})
    optimizer = max(layout_bytes(private_layout(learner, one)) for one in optimizers)
    step = max(map(step_bytes(learner, side, clients), clients))
    names = tuple(client.name for client in clients)
    known = traffic_of_zeros(algorithm, learner.fresh_server(), names, clients[0].training.drawn(len(clients)))
    broadcast = max((phase.broadcast for phase in known.phases.values()), default=0.0)
    further = (sums - 1) * max((phase.summed for phase in known.phases.values()), default=0.0)
    return GpuNeeds(
        vectors=vectors_bytes(learner, fuse) + 2 * fuse * optimizer + further,
        received=states * broadcast,
        activations=fused_step_bytes(step, fuse),
        apart=(states - 1) * broadcast + further,
    )


def work_bytes(setup: Setup, clients: Sequence[ClientSpec]) -> float:
    """Memory of a GPU that a host of any of the clients takes to train [bytes]; 0 on the CPU."""
    if setup.device == "cpu":
        return 0.0
    learner = make_learner(replace(setup, device="cpu"))
    held = {"states": setup.states, "sums": setup.sums}
    return gpu_needs(setup.algorithm, learner, clients, setup.model.smallest, **held).total


def batch_pixels(client: ClientSpec) -> float:
    """Pixels of a client's largest batch."""
    size = min(client.training.batch_size, max(client.data.samples(), 1))
    return float(size * max(member.largest for member in client.data.members))


def most_coils(clients: Iterable[ClientSpec]) -> int:
    """Most coils of a slice of some clients; 0: they are combined."""
    return max((member.coils for client in clients for member in client.data.members), default=0)


def step_bytes(learner: Learner, side: int, clients: Sequence[ClientSpec]) -> Callable[[ClientSpec], float]:
    """What autograd keeps in the largest step of one of some clients [bytes].

    Activations are counted on one slice of side^2 pixels of the fewest coils, and one of the most; in between they grow
    in proportion.
    """
    counts = sorted({most_coils([client]) for client in clients})
    kept = {coils: activation_bytes(learner, side, coils) for coils in (counts[0], counts[-1])}
    return lambda client: float(np.interp(most_coils([client]), [*kept], [*kept.values()])) * batch_pixels(client)


def activation_bytes(learner: Learner, side: int, coils: int = 0) -> float:
    """What autograd keeps until the backward pass [bytes per pixel], counted on one slice of side^2 pixels.

    Args:
        learner: Has the network.
        side: Pixels.
        coils: Number of coils of the slice; 0: they are combined.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def of_all_coils(tensor: Tensor) -> bool:
        return coils > 0 and tensor.is_complex() and tensor.numel() >= coils * side**2

    learner.network.eval()  # running statistics stay as they are
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.network(*_one_slice(side, coils))
    learner.network.train()
    for vector in (learner.shared, learner.local, learner.shared_buffers):
        kept.pop(vector.untyped_storage().data_ptr(), None)
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / side**2
    return _OF_COILS * held if any(map(of_all_coils, kept.values())) else held


def _one_slice(side: int, coils: int) -> tuple[Tensor, ...]:
    """What a network is called with for one slice of side^2 pixels."""
    mask = torch.ones(1, side, side, dtype=torch.bool)
    if not coils:
        return torch.ones(1, side, side, dtype=torch.complex64), mask
    kspace = torch.ones(1, coils, side, side, dtype=torch.complex64)
    return kspace, mask, kspace / coils**0.5
