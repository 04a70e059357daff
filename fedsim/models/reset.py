"""Initialising any network by the `reset_parameters` of its modules, with all randomness from one generator."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fedsim.core.errors import InputError


@torch.no_grad()
def reset(network: nn.Module, generator: torch.Generator) -> None:
    """Set every parameter and buffer of a network that may lie in uninitialised memory.

    2-D convolutions are drawn first, in torch's way, in the order of the modules. Then `reset_parameters` of every
    other module that has it is called, inner modules first, with a random stream that `generator` seeds; torch's global
    stream is left unchanged.

    Args:
        network: On the CPU.
        generator: The only source of randomness.

    Raises:
        InputError: a parameter or a buffer is left unset; names it.
    """
    before = dict(_marked(network))
    modules = list(network.modules())
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and _resets_as_torch_does(module):
            _draw(module, generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        for module in reversed(modules):
            reset_it = _reset_of(module)
            if reset_it is not None and not _resets_as_torch_does(module):
                reset_it()
    _refuse_unset(network, before)


def _resets_as_torch_does(module: nn.Module) -> bool:
    """Whether it is a plain 2-D convolution, initialised in torch's way."""
    own = getattr(type(module), "reset_parameters", None)
    return isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and own is nn.Conv2d.reset_parameters


def _draw(module: nn.Conv2d | nn.ConvTranspose2d, generator: torch.Generator) -> None:
    nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
    if module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        module.bias.uniform_(-bound, bound, generator=generator)


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    """Its `reset_parameters`; torch's attention layers have it under a private name."""
    found: Callable[[], None] | None = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
    return found


def _tensors(network: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Kind, name and value of every parameter and buffer of a network."""
    yield from (("parameter", name, parameter) for name, parameter in network.named_parameters())
    yield from (("buffer", name, buffer) for name, buffer in network.named_buffers())


def _marked(network: nn.Module) -> Iterator[tuple[str, tuple[Tensor, int]]]:
    """Every tensor by name, filled with values that no initialisation gives, and its version after that."""
    for kind, name, tensor in _tensors(network):
        if nn.parameter.is_lazy(tensor):
            raise InputError(f"model: the {kind} {name!r} has no shape yet; use a layer with given numbers of channels")
        tensor.fill_(math.nan if _has_nan(tensor) else 1)
        yield name, (tensor, tensor._version)


def _refuse_unset(network: nn.Module, before: dict[str, tuple[Tensor, int]]) -> None:
    for kind, name, tensor in _tensors(network):
        marked, version = before.get(name, (None, 0))
        untouched = tensor is marked and tensor._version == version and bool((tensor == 1).all())
        if tensor.isnan().any() if _has_nan(tensor) else untouched:
            owner = type(network.get_submodule(name.rpartition(".")[0])).__name__
            raise InputError(f"model: nothing sets the {kind} {name!r}; give {owner} a reset_parameters() that sets it")
    for path, module in network.named_modules():
        left = [key for key, value in vars(module).items() if isinstance(value, Tensor) and value.is_meta]
        if left:
            name = f"{path}.{left[0]}".lstrip(".")
            raise InputError(f"model: the tensor {name!r} has no values; make it a buffer that reset_parameters() sets")


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
