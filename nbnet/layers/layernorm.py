"""Layer and RMS normalisation layers."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.errors import ShapeError
from nbnet.functional.groupnorm import check_groups, last_axes
from nbnet.layers.base import Shape, kind
from nbnet.layers.groupnorm import RowNorm


class _LastAxesNorm(RowNorm):
    """Base of the layers that normalise over the last axis or several, with gamma and beta of the shape of these axes."""

    axes: Any

    def _affine_shape(self, input_shape: Shape) -> Shape:
        shape = last_axes(self.axes, (0, *input_shape))  # with the batch axis
        if len(shape) > len(input_shape):
            raise ShapeError(f"{kind(self)}: axes={self.axes!r} of inputs (N, *{input_shape}) include that of the examples: leave it out")
        return shape


class LayerNorm(_LastAxesNorm):
    """Normalise over the last axis: each example, and each pixel of an image, by the mean and variance of its own channels.

    y = gamma * (x - mean) / sqrt(var + eps) + beta   (Ba, Kiros and Hinton 2016)

    Training and evaluation are the same. For statistics over the whole of an image, axes=(-3, -2, -1) has a gamma for each number, and
    GroupNorm(1) one for each channel.

    Args:
        eps: added to the variance.
        center, scale: whether there is a beta, a gamma.
        gamma_initializer, beta_initializer: a name or a function (rng, shape) -> array.
        axes: the last one, -1, or several last ones, such as (-2, -1).
    Params: gamma and beta, of the shape of the axes: (C,).
    """

    replayable = True

    def __init__(
        self,
        eps: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        gamma_initializer: Any = "ones",
        beta_initializer: Any = "zeros",
        axes: int | tuple[int, ...] = -1,
    ):
        super().__init__(eps, center, scale, gamma_initializer, beta_initializer)
        self.axes = axes

    def _affine_shape(self, input_shape: Shape) -> Shape:
        shape = super()._affine_shape(input_shape)
        check_groups(1, shape)
        return shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.layer_norm_forward(x, *self._values(), axes=self.axes, eps=self.eps, backend=self.backend)
        return y, saved if train else None


class RMSNorm(_LastAxesNorm):
    """Scale the last axis to a mean square of 1: y = gamma * x / sqrt(mean of x^2 + eps)   (Zhang and Sennrich 2019)

    There is no mean to subtract and no beta. Training and evaluation are the same.

    Args:
        eps: added to the mean of squares.
        scale: whether there is a gamma.
        gamma_initializer: a name or a function (rng, shape) -> array.
        axes: the last one, -1, or several last ones, such as (-2, -1).
    Params: gamma, of the shape of the axes: (C,).
    """

    replayable = True

    def __init__(self, eps: float = 1e-5, scale: bool = True, gamma_initializer: Any = "ones", axes: int | tuple[int, ...] = -1):
        super().__init__(eps, False, scale, gamma_initializer, "zeros")
        self.axes = axes

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.rms_norm_forward(x, self._values()[0], axes=self.axes, eps=self.eps, backend=self.backend)
        return y, saved if train else None
