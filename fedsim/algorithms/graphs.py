"""CUDA graphs: a function of tensors is captured once for each shape of its inputs, and replayed from then on.

A replay runs the kernels that the function would have launched, so its results have the same bits; it saves the time
of launching them, which is most of a small network's step.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedsim.core.errors import InputError, OwnCodeError

_WARM_UP = 3  # calls before a capture: cuDNN and cuBLAS choose kernels and allocate workspaces in the first ones


class Graphs:
    """Calls functions of tensors that work in place on fixed memory; on a GPU as graphs."""

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        """No graph yet.

        Args:
            device: Where the tensors are; elsewhere than on a GPU every call is a plain one.
            enabled: False: plain calls on a GPU too, the reference that graphs must equal.
        """
        self._enabled = enabled and device.type == "cuda"
        self._captured: dict[Hashable, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._enabled else None

    def __call__(
        self, key: Hashable, function: Callable[..., Tensor], *inputs: Tensor, changed: Sequence[Tensor] = ()
    ) -> Tensor:
        """The result of function(*inputs).

        Args:
            key: What besides the shapes of the inputs decides what the function does.
            function: Reads and writes, besides its inputs, only tensors that stay where they are.
            inputs: On the device.
            changed: What it changes from call to call, and must not while a graph is made.

        Raises:
            InputError: it does what a graph cannot hold, such as reading a number from the GPU.
        """
        if not self._enabled:
            return function(*inputs)
        shaped = (key, *((each.shape, each.dtype) for each in inputs))
        if shaped not in self._captured:
            self._captured[shaped] = self._graph(function, inputs, changed)
        return self._captured[shaped](*inputs)

    def _graph(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], changed: Sequence[Tensor]) -> "_Graph":
        try:
            return _Graph(function, inputs, changed, self._pool)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OwnCodeError) as error:
            if "captur" not in str(error):
                raise
            what = " ".join(str(error).split(".")[0].split())
            raise InputError(
                f"engine.graphs: a step with this network or loss cannot be captured ({what}); set it to false"
            ) from error


class _Graph:
    """A captured call."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        changed: Sequence[Tensor],
        pool: Any,  # noqa: ANN401 - torch's handle
    ) -> None:
        """Capture a call.

        Args:
            function: What to capture.
            inputs: Of the first call.
            changed: What is put back afterwards.
            pool: Memory for what the call computes on the way. Graphs may share it, since they are replayed one after
                the other and none leaves more there than its output, which is copied at once.
        """
        self._inputs = [each.clone() for each in inputs]
        before = [each.clone() for each in changed]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._output = function(*self._inputs)
        for each, value in zip(changed, before, strict=True):
            each.copy_(value)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._output.clone()
