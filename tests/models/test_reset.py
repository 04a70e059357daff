"""A network of any modules starts from the run's generator; what nothing sets is refused by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedsim.core.errors import InputError
from fedsim.models.reset import reset


class Custom(nn.Module):
    """Parameters of its own, drawn as older code does it, and constants of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(4))
        self.register_buffer("window", torch.empty(8))
        self.register_buffer("index", torch.empty(3, dtype=torch.long))
        self.register_buffer("flags", torch.empty(3, dtype=torch.bool))
        self.inner = nn.Conv2d(1, 1, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.scale.data.uniform_(-1, 1)
        self.window = torch.hann_window(8)
        self.index.copy_(torch.ones(3, dtype=torch.long))
        self.flags.fill_(True)
        nn.init.zeros_(self.inner.weight)


class Unset(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))


class Constant(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", values)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.window = torch.hann_window(8)


class Own(nn.Conv2d):
    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 3)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]


MODULES: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(3, 4), lambda: nn.GroupNorm(2, 4), lambda: nn.LayerNorm(4), lambda: nn.BatchNorm2d(3),
    lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), lambda: nn.Conv1d(2, 3, 3),
    lambda: nn.Conv3d(1, 2, 3), lambda: nn.ConvTranspose3d(1, 2, 3), nn.PReLU, lambda: nn.Embedding(3, 4),
    lambda: nn.MultiheadAttention(4, 2), lambda: nn.LSTM(2, 3), lambda: nn.Bilinear(2, 3, 4), lambda: nn.RMSNorm(4),
    lambda: nn.TransformerEncoderLayer(4, 2), Custom,
]  # fmt: skip


def built(make: Callable[[], nn.Module], seed: int = 0, garbage: float = 1e27) -> nn.Module:
    """As docs/howto-network.md says, in memory that held something else."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(1, 2, 3), make())
    network = network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.fill_(garbage if tensor.is_floating_point() else 1)
    reset(network, torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize("make", MODULES, ids=lambda make: type(make()).__name__)
def test_every_module_starts_from_the_generator_alone(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = built(make), built(make, garbage=-7), built(make, seed=1)
    assert torch.equal(torch.get_rng_state(), before), "the global stream is left as it was"
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert value.isfinite().all(), name
        assert value.float().abs().max() < 50, name
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_an_inner_module_does_not_undo_what_the_outer_one_sets() -> None:
    assert built(Custom).get_parameter("1.inner.weight").abs().max() == 0
    assert (built(lambda: Own(1, 2, 3)).get_parameter("1.weight") == 3).all()


def test_layers_are_drawn_apart() -> None:
    """No layer repeats the numbers of another."""
    network = built(lambda: nn.Sequential(nn.Linear(9, 1), nn.Linear(9, 1), nn.Conv2d(1, 1, 3)))
    drawn = [p.flatten() for name, p in network.named_parameters() if name.endswith("weight")]
    assert torch.corrcoef(torch.stack(drawn[1:])).fill_diagonal_(0).abs().max() < 0.9


UNSET: list[tuple[Callable[[], nn.Module], str]] = [
    (Unset, "nothing sets the parameter '1.scale'; give Unset a reset_parameters"),
    (lambda: Constant(torch.hann_window(8)), "nothing sets the buffer '1.window'; give Constant a reset"),
    (lambda: Constant(torch.arange(3)), "nothing sets the buffer '1.window'"),
    (lambda: Constant(torch.ones(3, dtype=torch.bool)), "nothing sets the buffer '1.window'"),
    (lambda: Constant(torch.ones(3, dtype=torch.complex64)), "nothing sets the buffer '1.window'"),
    (Plain, "the tensor '1.window' has no values; make it a buffer"),
]


@pytest.mark.parametrize(("make", "message"), UNSET)
def test_what_nothing_sets_is_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(1, 2, 3), make())
    with pytest.raises(InputError, match="model: ") as error:
        reset(network.to_empty(device="cpu"), torch.Generator())
    assert message in str(error.value)


def test_a_lazy_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"the parameter '1\.weight' has no shape yet"):
        reset(nn.Sequential(nn.ReLU(), nn.LazyLinear(3)), torch.Generator())


def test_a_part_that_nothing_sets_is_refused_too() -> None:
    class Half(Unset):
        def reset_parameters(self) -> None:
            self.scale[:2] = 0

    with pytest.raises(InputError, match=r"'1\.scale'"):
        built(Half)


def test_the_example_of_the_page_starts_from_its_generator() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto-network.md").read_text()
    namespace: dict[str, Any] = {"__name__": "cascade"}
    exec(page.partition("```python cascade.py\n")[2].partition("```")[0], namespace)
    model = namespace["CascadeModel"](name="cascade:CascadeModel")
    one, again = (model.build(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert all(0 < parameter.abs().max() <= 1 for parameter in one.parameters())
