"""Group and instance normalisation layers, and what they share with layer normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet import functional as F
from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.functional.groupnorm import check_groups
from nbnet.layers.base import Layer, Shape, kind


class RowNorm(Layer):
    """Base of the layers that normalise each example by its own statistics and have gamma and beta."""

    replayable = True

    def __init__(self, eps: float, center: bool, scale: bool, gamma_initializer: Any, beta_initializer: Any):
        super().__init__()
        self.eps = checks.number(eps, f"{kind(self)}: eps", "a number above 0", lambda eps: 0 < eps < float("inf"))
        self.center = center
        self.scale = scale
        self.gamma_initializer = gamma_initializer
        self.beta_initializer = beta_initializer

    def create(self, input_shape: Shape) -> Shape:
        shape = self._affine_shape(input_shape)
        if self.scale:
            self.add_param("gamma", shape, self.gamma_initializer)
        if self.center:
            self.add_param("beta", shape, self.beta_initializer)
        return input_shape

    def _affine_shape(self, input_shape: Shape) -> Shape:
        """The shape of gamma and beta, once it is clear that inputs of this shape can be normalised."""
        raise NotImplementedError

    def _values(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """gamma and beta, None for one that there is not."""
        return self.params["gamma"].value if self.scale else None, self.params["beta"].value if self.center else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        dgamma = self.params["gamma"].grad if self.scale else None
        dbeta = self.params["beta"].grad if self.center else None
        dx, _, _ = F.group_norm_backward(dy, saved, dgamma=dgamma, dbeta=dbeta)
        return dx


class GroupNorm(RowNorm):
    """Normalise each example by its own statistics: one mean and variance for each group of channels (the last axis).

    y = gamma * (x - mean) / sqrt(var + eps) + beta   (Wu and He 2018)

    Statistics never cross examples, so training and evaluation are the same, and a batch may be of one.

    Args:
        groups: how many, a divisor of the channels: 1 is layer normalisation over the whole example, as many as there are
            channels instance normalisation.
        eps: added to the variance.
        center, scale: whether there is a beta, a gamma.
        gamma_initializer, beta_initializer: a name or a function (rng, shape) -> array.
    Params: gamma (C,), beta (C,).
    """

    replayable = True

    def __init__(
        self,
        groups: int,
        eps: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        gamma_initializer: Any = "ones",
        beta_initializer: Any = "zeros",
    ):
        super().__init__(eps, center, scale, gamma_initializer, beta_initializer)
        if not isinstance(groups, (int, np.integer)) or isinstance(groups, bool) or groups < 1:
            raise ArgumentError(f"GroupNorm({groups!r}): expected a positive number of groups")
        self.groups = int(groups)

    def _affine_shape(self, input_shape: Shape) -> Shape:
        check_groups(self.groups, input_shape)
        return input_shape[-1:]

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.group_norm_forward(x, *self._values(), self.groups, eps=self.eps, backend=self.backend)
        return y, saved if train else None


class InstanceNorm(RowNorm):
    """Normalise each channel (the last axis) of each example by its own mean and variance, over all points of the example.

    y = gamma * (x - mean) / sqrt(var + eps) + beta   (Ulyanov, Vedaldi and Lempitsky 2016)

    It is GroupNorm with as many groups as channels. Training and evaluation are the same.

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

    def _affine_shape(self, input_shape: Shape) -> Shape:
        check_groups(input_shape[-1], input_shape)
        return input_shape[-1:]

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.group_norm_forward(x, *self._values(), x.shape[-1], eps=self.eps, backend=self.backend)
        return y, saved if train else None
