"""Gradient clipping, and locating the source of NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbnet.layers import Param, Sequential
from nbnet.runtime.backend import Backend


def clip(params: Iterable[Param], limit: float, backend: Backend) -> None:
    """Scale the gradients of trainable parameters so that their global L2 norm is at most `limit`."""
    grads = [param.grad.reshape(-1) for param in params if param.trainable]
    totals = [backend.empty((1,), np.float64) for _ in grads]
    for grad, total in zip(grads, totals):
        backend.kernel("array.squares")(grad, total)
    norm = math.sqrt(sum(float(total[0]) for total in backend.host(*totals)))
    if norm > limit:
        for grad in grads:
            backend.kernel("array.scale")(grad, limit / norm, grad)


def explain_not_finite(model: Sequential, x: Any) -> str:
    """Which layer is the first to give NaN or infinity for this batch, and how to fix it."""
    hint = "lower the learning rate, or set clip_norm"
    y: Any = model.as_input(x)
    for layer in model.layers:
        if not all(np.isfinite(np.asarray(param.value)).all() for param in layer.params.values()):
            return f"the parameters of layer {layer.name} are not finite; {hint}"
        y, _ = layer.forward(y)
        if not np.isfinite(np.asarray(y)).all():
            return f"layer {layer.name} gives NaN or infinity; {hint}"
    return f"the outputs of all layers are finite, but the loss overflows; {hint}"
