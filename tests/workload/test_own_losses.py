"""A user's own loss trains as fedsim's do, and what it does wrong is shown as the loss's."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedsim.core.errors import ClientError, DivergedError, InputError, LossError
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, read_yaml
from fedsim.workload.schema import Workload

from .conftest import shared

LOSS = """
import torch
from fedsim.algorithms.losses import Loss

class Theirs(Loss):
    weight: float = 1.0

    def value(self, image, target):
        return {}
"""
Theirs = Callable[..., Workload]


@pytest.fixture
def theirs(folder: Path) -> Theirs:
    """A workload of 2 clients with a loss that returns an expression; and further overrides."""

    def theirs(expression: str, *overrides: str) -> Workload:
        (folder / "theirs.py").write_text(LOSS.format(expression))
        return load_workload(folder / "own.yaml", ["training.loss=theirs:Theirs", "metrics.every=0", *overrides])

    return theirs


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, target = (torch.rand(3, 8, 8, generator=generator) for _ in range(2))
    return image.requires_grad_() * 1, target


RETURNED = "must return a scalar, a tensor of floats (), not "
MISTAKES = [
    ("1 / 0", "ZeroDivisionError: division by zero (in value of theirs:Theirs)"),
    ("(_ for _ in ()).throw(SystemExit)", "SystemExit: (in value of theirs:Theirs)"),
    ("image - target[:1, :4]", "(in value of theirs:Theirs)"),
    ("image - target", f"value of theirs:Theirs {RETURNED}torch.float32 (3, 8, 8)"),
    ("(image - target).square().mean()[None]", f"{RETURNED}torch.float32 (1,)"),
    ("torch.fft.fft2(image - target).mean()", f"{RETURNED}torch.complex64 ()"),
    ("(image > target).sum()", f"{RETURNED}torch.int64 ()"),
    ("(image - target).abs().mean().item()", f"{RETURNED}float"),
    ("None", f"{RETURNED}NoneType"),
    ("(image.detach() - target).abs().mean()", "value of theirs:Theirs has no gradient in the image; let it compute"),
    ("(image - target.mul_(2)).abs().mean()", "theirs:Theirs changed an image or target in place; let it work on a cl"),
    ("image.clamp_(0, 1).mean()", "changed an image or target in place"),
]


@pytest.mark.parametrize(("expression", "message"), MISTAKES, ids=[expression for expression, _ in MISTAKES])
def test_what_a_loss_does_wrong_is_shown_as_the_losses(theirs: Theirs, expression: str, message: str) -> None:
    with pytest.raises(LossError, match=re.escape(message)) as error:
        theirs(expression).training.loss(*images())
    assert "\n" not in str(error.value)


def test_a_loss_may_be_computed_in_other_floats(theirs: Theirs) -> None:
    (image, target), loss = images(), theirs("(image.double() - target).abs().mean()").training.loss
    assert loss(image.bfloat16(), target).dtype == torch.float64


@pytest.mark.parametrize("fuse", [1, 2])
@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", r"ZeroDivisionError: division by zero \(in value of theirs:Theirs\); "),
        ("(image.detach() - target).abs().mean()", "value of theirs:Theirs has no gradient in the image"),
    ],
)
def test_a_run_says_at_which_client(theirs: Theirs, tmp_path: Path, expression: str, message: str, fuse: int) -> None:
    workload = theirs(expression, f"training.fuse={fuse}")
    with pytest.raises(ClientError, match=f"^client A, round 1, seed 1: {message}"):
        run(workload, tmp_path / "run")


def test_a_loss_that_is_no_number_is_where_to_look(theirs: Theirs, tmp_path: Path) -> None:
    said = (
        "the loss is not finite; it was so before the first step, and its data are sound: check theirs:Theirs and the"
    )
    with pytest.raises(DivergedError, match=f"^client A, round 1: {said} network's initial values"):
        run(theirs("(image - image).mean().log() * 0"), tmp_path / "run")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(image - target).abs().mean() * image.max().item()", "calling .item"),
        pytest.param(
            "(image - target).abs().mean() * (2 if image.max() > 1 else 1)",
            "data-dependent control flow",
            marks=pytest.mark.slow,
        ),
        pytest.param("(image - target + torch.rand_like(image)).abs().mean()", "random", marks=pytest.mark.slow),
    ],
)
def test_a_loss_that_cannot_be_fused_is_refused_in_a_line(
    theirs: Theirs, tmp_path: Path, expression: str, why: str
) -> None:
    with pytest.raises(InputError) as refused:
        run(theirs(expression, "training.fuse=2"), tmp_path / "run")
    said = str(refused.value)
    assert said.startswith("training.loss: theirs:Theirs cannot train fused (")
    assert said.endswith("); set training.fuse to 1")
    assert why in said
    assert "\n" not in said


def test_it_trains_as_fedsims_own_that_is_equal(theirs: Theirs, tmp_path: Path) -> None:
    equal = "torch.nn.functional.l1_loss(image, target)"
    run(theirs(equal), tmp_path / "own")
    run(theirs(equal, "training.loss=l1"), tmp_path / "l1")
    assert shared(tmp_path / "own") == shared(tmp_path / "l1")
    recorded = [read_yaml(tmp_path / name / "workload.yaml")["training"]["loss"] for name in ("own", "l1")]
    assert recorded == [{"name": "theirs:Theirs", "weight": 1.0}, "l1"]
