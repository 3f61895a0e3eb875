"""Layer normalisation layer."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional.groupnorm import check_groups
from nbnet.layers.base import Shape
from nbnet.layers.groupnorm import RowNorm


class LayerNorm(RowNorm):
    """Normalise over the last axis: each example, and each pixel of an image, by the mean and variance of its own channels.

    y = gamma * (x - mean) / sqrt(var + eps) + beta   (Ba, Kiros and Hinton 2016)

    Training and evaluation are the same. For statistics over the whole of an image use GroupNorm(1).

    Args:
        eps: added to the variance.
        center, scale: whether there is a beta, a gamma.
        gamma_initializer, beta_initializer: a name or a function (rng, shape) -> array.
    Params: gamma (C,), beta (C,).
    """

    replayable = True

    def __init__(
        self, eps: float = 1e-5, center: bool = True, scale: bool = True, gamma_initializer: Any = "ones", beta_initializer: Any = "zeros"
    ):
        super().__init__(eps, center, scale, gamma_initializer, beta_initializer)

    def create(self, input_shape: Shape) -> Shape:
        check_groups(1, input_shape[-1:])
        return super().create(input_shape)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.layer_norm_forward(x, *self._values(), eps=self.eps, backend=self.backend)
        return y, saved if train else None
