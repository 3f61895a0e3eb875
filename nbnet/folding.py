"""Fold batch norm into the convolution or dense layer before it, for evaluation."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np

from nbnet.errors import BuildError
from nbnet.layers import BatchNorm, Layer, Param, Sequential
from nbnet.layers.activations import BY_NAME, LeakyReLU
from nbnet.layers.base import kind
from nbnet.layers.containers import Container
from nbnet.layers.product import ProductLayer


def fold_batch_norm(model: Sequential) -> Sequential:
    """A copy of the model for evaluation in which each BatchNorm right after a dense or convolution layer is folded into its weights.

    Predictions are the same within rounding: weight * s and (bias - mean) * s + beta, with s = gamma / sqrt(var + eps) of the moving
    statistics. A fused activation becomes a separate layer. Other batch norms are kept, such as those after an activation. The model
    itself does not change.

    Raises:
        BuildError: the model is not built.
    """
    if model.input_shape is None:
        raise BuildError("fold_batch_norm expects a built model: call model.build(input_shape) first")
    folded = _clone(model, {})
    containers = [layer for layer in folded.walk() if isinstance(layer, Container)]
    _fold(folded, Counter(id(child) for container in containers for child in container._layers()), set())
    _rename(folded, "", set())
    return folded


def _clone(layer: Any, copies: dict[int, Any]) -> Any:
    """A copy with its own parameters and buffers. copies: by id, of what was copied before."""
    if id(layer) not in copies:
        twin = copies[id(layer)] = copy.copy(layer)
        twin._params = {name: Param(param.value.copy()) for name, param in layer._params.items()}
        twin._buffers = {name: array.copy() for name, array in layer._buffers.items()}
        for name in ("layers", "branches"):
            if isinstance(layer, Container) and name in vars(layer):
                setattr(twin, name, [_clone(child, copies) for child in getattr(layer, name)])
    return copies[id(layer)]


def _fold(layer: Layer, places: Counter[int], done: set[int]) -> None:
    """Fold within a container. places: by id of a layer, in how many it is: one in several is not folded. done: ids of containers."""
    if not isinstance(layer, Container) or id(layer) in done:
        return
    done.add(id(layer))
    for child in layer._layers():
        _fold(child, places, done)
    if isinstance(layer, Sequential):
        kept: list[Layer] = []
        for child in layer.layers:
            before = kept[-1] if kept else None
            alone = places[id(child)] == 1 and places[id(before)] == 1
            if alone and isinstance(before, ProductLayer) and isinstance(child, BatchNorm) and _folds(before, child):
                _absorb(before, child)
                kept.extend(_activation(child))
            else:
                kept.append(child)
        layer.layers = kept
    layer._arrange()


def _folds(layer: ProductLayer, norm: BatchNorm) -> bool:
    return norm.normalizes_last_axis and layer.activation is None


def _absorb(layer: ProductLayer, norm: BatchNorm) -> None:
    """Give the layer weights that compute the layer and the norm together."""
    mean, var, eps = norm.moving.read(norm.buffers)
    scale = 1 / np.sqrt(np.asarray(var, np.float64) + eps)
    if norm.scale:
        scale = scale * np.asarray(norm.params["gamma"].value)
    weight = layer.in_form(layer.params["weight"].value)
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


def _rename(layer: Layer, path: str, renamed: set[int]) -> None:
    """Rename layers by their new positions; one in several places by the first. renamed: ids of those that are done."""
    if id(layer) in renamed:
        return
    renamed.add(id(layer))
    layer.name = path or kind(layer)
    if isinstance(layer, Container):
        for name, child in layer._children():
            _rename(child, f"{path}.{name}" if path else name, renamed)
