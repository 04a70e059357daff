"""What local training minimises: losses, small classes that are also the workload section that configures them."""

from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from pydantic import ConfigDict, Field, SerializeAsAny, WrapValidator
from torch import Tensor

from fedsim.core.errors import InputError, LossError
from fedsim.core.extension import Catalogue, traced
from fedsim.core.named import OR_NAME, Named
from fedsim.models.base import shown
from fedsim.mri.fft import fft2c

_WINDOW = 7
_K1, _K2 = 0.01, 0.03
_LEAST_RANGE = 1e-3  # of a slice without signal


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of slices to their targets, 1 at best.

    That of `fedsim.mri.metrics` under the protocol `slice`: 7x7 uniform window, sample covariance, each target's
    maximum as data range. (The volume's maximum, which `fastmri` takes, is not known to a batch of slices.)
    """
    peak = target.amax((-2, -1), keepdim=True).clamp_min(_LEAST_RANGE)
    c1, c2 = (_K1 * peak).square(), (_K2 * peak).square()
    products = torch.stack([image, target, image * image, target * target, image * target])
    x, t, xx, tt, xt = F.avg_pool2d(products, _WINDOW, stride=1).unbind()
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    spread, joint = sample * (xx - x * x + tt - t * t), sample * (xt - x * t)
    found = (2 * x * t + c1) * (2 * joint + c2) / ((x * x + t * t + c1) * (spread + c2))
    return found.mean()


class Loss(Named):
    """The base class of all losses; derive from it and write `value`."""

    @abstractmethod
    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar tensor, of images and their targets (B, H, W): magnitudes of order 1, of one type."""

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """The result of `value`, in the arithmetic of the target; of a user's own class, after checking it.

        Args:
            image: Magnitudes (B, H, W).
            target: Magnitudes (B, H, W).

        Raises:
            LossError: `value` raises, gives anything but a scalar with a gradient, or changes what it is given.
        """
        image = image.to(target.dtype)
        if not self.foreign:
            return self.value(image, target)
        versions = image._version, target._version
        with traced(self.label, "value", LossError):
            found = self.value(image, target)
        if (image._version, target._version) != versions:
            raise LossError(f"value of {self.label} changed an image or target in place; let it work on a clone()")
        return self._checked(found, image)

    def _checked(self, found: object, image: Tensor) -> Tensor:
        if not (isinstance(found, Tensor) and found.shape == () and found.is_floating_point()):
            raise LossError(f"value of {self.label} must return a scalar, a tensor of floats (), not {shown(found)}")
        if image.requires_grad and not found.requires_grad:
            what = "has no gradient in the image; let it compute with torch on the image itself, without detach()"
            raise LossError(f"value of {self.label} {what}")
        return found


class MSE(Loss):
    """Mean squared error."""

    name: Literal["mse"] = Field("mse", description="Mean squared error.")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Over all pixels."""
        return F.mse_loss(image, target)


class L1(Loss):
    """Mean absolute error."""

    name: Literal["l1"] = Field(description="Mean absolute error.")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Over all pixels."""
        return F.l1_loss(image, target)


class SSIM(Loss):
    """1 - SSIM of each slice, with its target's maximum as data range."""

    name: Literal["ssim"] = Field(description="1 - SSIM of each slice.")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Mean over slices."""
        return 1 - ssim(image, target)


class L1SSIM(Loss):
    """The sum of `l1` and `ssim`."""

    name: Literal["l1_ssim"] = Field(description="The sum of l1 and ssim.")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Of equal weights."""
        return F.l1_loss(image, target) + 1 - ssim(image, target)


class KSpace(Loss):
    """Mean absolute error of the images' k-space."""

    name: Literal["kspace"] = Field(description="Mean absolute error of the images' k-space.")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Over all samples of the two magnitude images' k-space."""
        return fft2c(image - target).abs().mean()


class Unread(Loss):
    """A user's loss, of which only the keys are read: its file is not executed."""

    model_config = ConfigDict(extra="allow")

    def value(self, image: Tensor, target: Tensor) -> Tensor:
        """Not known."""
        raise InputError(f"training.loss: {self.name} is a user's own, whose code was not run")


_Known = MSE | L1 | SSIM | L1SSIM | KSpace
LOSSES = Catalogue(
    key="training.loss",
    base=Loss,
    unread=Unread,
    known=_Known.__args__,
    group="fedsim.losses",
    noun="loss",
)
"""Where a user's own losses are found."""


AnyLoss = Annotated[
    SerializeAsAny[Annotated[_Known, Field(discriminator="name")]],
    WrapValidator(LOSSES.read),
    LOSSES,
    *OR_NAME,
]
"""A known loss, or one of the user's own: a name, or a section with the keys of that loss."""
