"""Fold batch norm into the convolution or dense layer before it, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from nbnet.errors import BuildError
from nbnet.layers import BatchNorm, Conv2D, Dense, Layer, Param, Residual, Sequential
from nbnet.layers.activations import BY_NAME, LeakyReLU
from nbnet.layers.base import kind


def fold_batch_norm(model: Sequential) -> Sequential:
    """A copy of the model for evaluation in which each BatchNorm right after a Conv2D or Dense is folded into its weights.

    Predictions are the same within rounding: weight * s and (bias - mean) * s + beta, with s = gamma / sqrt(var + eps) of the moving
    statistics. A fused activation becomes a separate layer. Other batch norms are kept, such as those after an activation. The model
    itself does not change.

    Raises:
        BuildError: the model is not built.
    """
    if model.input_shape is None:
        raise BuildError("fold_batch_norm expects a built model: call model.build(input_shape) first")
    folded = _clone(model)
    _fold(folded)
    _rename(folded, "")
    return folded


def _clone(layer: Any) -> Any:
    """A copy with its own parameters and buffers."""
    twin = copy.copy(layer)
    twin._params = {name: Param(param.value.copy()) for name, param in layer._params.items()}
    twin._buffers = {name: array.copy() for name, array in layer._buffers.items()}
    if isinstance(layer, Sequential):
        twin.layers = [_clone(child) for child in layer.layers]
    if isinstance(layer, Residual):
        twin.body, twin.shortcut = _clone(layer.body), _clone(layer.shortcut)
    return twin


def _fold(layer: Layer) -> None:
    if isinstance(layer, Residual):
        _fold(layer.body)
        _fold(layer.shortcut)
        layer._arrange()
    if not isinstance(layer, Sequential):
        return
    kept: list[Layer] = []
    for child in layer.layers:
        before = kept[-1] if kept else None
        if isinstance(before, (Conv2D, Dense)) and isinstance(child, BatchNorm) and _folds(before, child):
            _absorb(before, child)
            kept.extend(_activation(child))
        else:
            _fold(child)
            kept.append(child)
    layer.layers = kept
    layer._arrange()


def _folds(layer: Conv2D | Dense, norm: BatchNorm) -> bool:
    return norm.normalizes_last_axis and layer.activation is None


def _absorb(layer: Conv2D | Dense, norm: BatchNorm) -> None:
    """Give the layer weights that compute the layer and the norm together."""
    mean, var, eps = norm.moving.read(norm.buffers)
    scale = 1 / np.sqrt(np.asarray(var, np.float64) + eps)
    if norm.scale:
        scale = scale * np.asarray(norm.params["gamma"].value)
    weight = layer.params["weight"].value
    bias = np.asarray(layer.params["bias"].value, np.float64) if layer.use_bias else np.zeros(weight.shape[-1])
    bias = (bias - np.asarray(mean)) * scale + (np.asarray(norm.params["beta"].value) if norm.center else 0)
    weight[:] = np.asarray(weight) * scale
    layer.use_bias = True
    layer._params["bias"] = Param(layer.backend.place(np.array(bias, weight.dtype)))


def _activation(norm: BatchNorm) -> list[Layer]:
    if norm.activation is None or norm.input_shape is None:
        return []
    layer = LeakyReLU(norm.slope) if norm.activation == "leaky_relu" else BY_NAME[norm.activation]()
    layer.build(norm.input_shape, backend=norm.backend, dtype=norm.dtype)
    return [layer]


def _rename(layer: Layer, path: str) -> None:
    """Rename layers by their new positions."""
    layer.name = path or kind(layer)
    if isinstance(layer, (Sequential, Residual)):
        for name, child in layer._children().items():
            _rename(child, f"{path}.{name}" if path else name)
