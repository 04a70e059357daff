"""What functions of torch do otherwise while clients train as one network, under torch.func.vmap."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear,
    F.scaled_dot_product_attention, torch.matmul, torch.Tensor.matmul, torch.bmm, torch.einsum,
}  # fmt: skip


class ProductsInBfloat16(TorchFunctionMode):
    """What torch.autocast does, for functions under vmap, where autocast has no effect (pytorch/pytorch#105442)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - of any function
        """Call a function of torch, a product with its operands in bfloat16; batch norm in its statistics' type."""
        if func in _PRODUCTS:
            args = tuple(_narrowed(each) for each in args)
            kwargs = {name: _narrowed(each) for name, each in (kwargs or {}).items()}
        elif func is F.batch_norm and args:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def _narrowed(value: Any) -> Any:  # noqa: ANN401 - any argument
    real = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16) if real else value


class InstanceAsGroupNorm(TorchFunctionMode):
    """Compute instance norm as group norm with a channel a group, which is the same.

    Under vmap instance norm copies its input and its output, since it folds the batch into the channels: a tenth of a
    small network's step on a CPU.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - of any function
        """Call a function of torch."""
        if func is F.instance_norm:
            return _normalised(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _normalised(
    input: Tensor,  # noqa: A002 - torch's name
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch's instance_norm, by group norm unless there are running statistics or the types are mixed."""
    if running_mean is None and use_input_stats and (weight is None or weight.dtype == input.dtype):
        return F.group_norm(input, input.shape[1], weight, bias, eps)
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
