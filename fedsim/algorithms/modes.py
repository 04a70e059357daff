"""How functions of torch are computed while clients train as one network, under torch.func.vmap."""

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


class Mapped(TorchFunctionMode):
    """What functions of torch do under torch.func.vmap.

    Instance norm is computed as group norm with one channel per group, which is the same: under vmap it would fold the
    batch into the channels, and copy its input and its output for that. If asked for, products take bfloat16, as they
    do under torch.autocast, which has no effect here (pytorch/pytorch#105442).
    """

    def __init__(self, narrow: bool) -> None:
        """Take effect as a context.

        Args:
            narrow: Whether products take bfloat16.
        """
        super().__init__()
        self._narrow = narrow

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - of any function
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func is F.instance_norm:
            return _normalised(*args, **kwargs)
        if self._narrow and func in _PRODUCTS:
            args, kwargs = [_narrowed(each) for each in args], {name: _narrowed(each) for name, each in kwargs.items()}
        elif self._narrow and func is F.batch_norm and args:
            args = (args[0].float(), *args[1:])  # in the type of its statistics
        return func(*args, **kwargs)


def _narrowed(value: Any) -> Any:  # noqa: ANN401 - any argument
    real = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16) if real else value


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
