"""Which layers of PyTorch and Keras a layer of nbnet is, and where each of its arrays stands there.

One row for each class with weights. `into` makes our array of theirs, `back` theirs of ours; both only move axes, so no bit changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.layers import (
    BatchNorm,
    Conv1D,
    Conv2D,
    ConvTranspose1D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    PReLU,
    RMSNorm,
    SeparableConv2D,
)

Move = Callable[[Any, Layer], Any]


class Form(NamedTuple):
    """How an array is laid out elsewhere."""

    into: Move
    back: Move


class Entry(NamedTuple):
    """One array of a layer, and what the other framework calls it."""

    ours: str  # a name in params, or "moving_mean", "moving_var", "updates" of a BatchNorm
    theirs: str
    form: Form
    option: str = ""  # of Keras: if it is False, the array is not there


class Row(NamedTuple):
    """One kind of layer elsewhere: its classes, and its arrays in the order in which Keras lists them."""

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]


def _axes(*order: int) -> Form:
    """Axis i of ours is axis order[i] of theirs."""
    inverse = tuple(np.argsort(order).tolist())
    return Form(lambda theirs, layer: theirs.transpose(order), lambda ours, layer: ours.transpose(inverse))


def _depthwise_into(theirs: Any, layer: Layer) -> Any:
    """(in * multiplier, 1, kh, kw) -> (kh, kw, in, multiplier)."""
    channels = layer.params["weight"].value.shape[2]
    return theirs.reshape(channels, -1, *theirs.shape[2:]).transpose(2, 3, 0, 1)


def _depthwise_back(ours: Any, layer: Layer) -> Any:
    return ours.transpose(2, 3, 0, 1).reshape(-1, 1, *ours.shape[:2])


def _channels(source: int, target: int) -> Move:
    """Moves the channels of a gamma that has several axes: (C, H, W) there, (H, W, C) here."""

    def move(array: Any, layer: Layer) -> Any:
        if 1 < array.ndim < len(layer.input_shape or ()):
            raise ArgumentError(
                f"layer {layer.name} normalises over {array.ndim} of {len(layer.input_shape or ())} axes, which PyTorch has in another "
                "order: expected the last axis, or all of them"
            )
        return np.moveaxis(array, source, target)

    return move


def _slopes_back(ours: Any, layer: Layer) -> Any:
    """(C,) or (1,) -> (1, 1, C) or (1, 1, 1)."""
    return ours.reshape(*[1] * (len(layer.input_shape or ()) - 1), -1)


SAME = Form(lambda theirs, layer: theirs, lambda ours, layer: ours)
DEPTHWISE = Form(_depthwise_into, _depthwise_back)
CHANNELS = Form(_channels(0, -1), _channels(-1, 0))
SLOPES = Form(lambda theirs, layer: theirs.reshape(-1), _slopes_back)

BIAS = Entry("bias", "bias", SAME, "use_bias")
STATISTICS = Entry("moving_mean", "running_mean", SAME), Entry("moving_var", "running_var", SAME)


def _torch(classes: str, *entries: Entry) -> Row:
    return Row(tuple(classes.split()), entries)


def _weighted(classes: str, form: Form) -> Row:
    return _torch(classes, Entry("weight", "weight", form), BIAS)


def _affine(classes: str, form: Form, *more: Entry) -> Row:
    return _torch(classes, Entry("gamma", "weight", form), Entry("beta", "bias", form), *more)


TORCH: dict[type[Layer], Row] = {
    Dense: _weighted("Linear", _axes(1, 0)),
    Conv1D: _weighted("Conv1d", _axes(2, 1, 0)),
    Conv2D: _weighted("Conv2d", _axes(2, 3, 1, 0)),
    DepthwiseConv2D: _weighted("Conv2d", DEPTHWISE),
    ConvTranspose1D: _weighted("ConvTranspose1d", _axes(2, 1, 0)),
    ConvTranspose2D: _weighted("ConvTranspose2d", _axes(2, 3, 1, 0)),
    BatchNorm: _affine(
        "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm", SAME, *STATISTICS, Entry("updates", "num_batches_tracked", SAME)
    ),
    LayerNorm: _affine("LayerNorm", CHANNELS),
    GroupNorm: _affine("GroupNorm", SAME),
    InstanceNorm: _affine("InstanceNorm1d InstanceNorm2d", SAME),
    RMSNorm: _torch("RMSNorm", Entry("gamma", "weight", CHANNELS)),
    PReLU: _torch("PReLU", Entry("weight", "weight", SAME)),
}

KERNEL = Entry("weight", "kernel", SAME)
GAMMA, BETA = Entry("gamma", "gamma", SAME, "scale"), Entry("beta", "beta", SAME, "center")


def _keras(classes: str, *entries: Entry) -> Row:
    return Row(tuple(classes.split()), entries)


KERAS: dict[type[Layer], Row] = {
    Dense: _keras("Dense", KERNEL, BIAS),
    Conv1D: _keras("Conv1D", KERNEL, BIAS),
    Conv2D: _keras("Conv2D", KERNEL, BIAS),
    DepthwiseConv2D: _keras("DepthwiseConv2D", KERNEL, BIAS),
    SeparableConv2D: _keras(
        "SeparableConv2D",
        Entry("0.depthwiseconv2d.weight", "depthwise_kernel", SAME),
        Entry("1.conv2d.weight", "pointwise_kernel", SAME),
        Entry("1.conv2d.bias", "bias", SAME, "use_bias"),
    ),
    ConvTranspose1D: _keras("Conv1DTranspose", KERNEL, BIAS),
    ConvTranspose2D: _keras("Conv2DTranspose", KERNEL, BIAS),
    BatchNorm: _keras(
        "BatchNormalization", GAMMA, BETA, Entry("moving_mean", "moving_mean", SAME), Entry("moving_var", "moving_variance", SAME)
    ),
    LayerNorm: _keras("LayerNormalization", GAMMA, BETA),
    GroupNorm: _keras("GroupNormalization", GAMMA, BETA),
    InstanceNorm: _keras("GroupNormalization", GAMMA, BETA),
    RMSNorm: _keras("RMSNormalization", Entry("gamma", "scale", SAME)),
    PReLU: _keras("PReLU", Entry("weight", "alpha", SLOPES)),
}


def row_of(layer: Layer, table: dict[type[Layer], Row]) -> Row | None:
    """The row of a layer's class, or of the nearest base class that has one."""
    return next((table[cls] for cls in type(layer).__mro__ if cls in table), None)


def known_class(cls: type, table: dict[type[Layer], Row]) -> str:
    """The name of a class of the other framework as the table has it, or of its nearest base there; "" if there is none."""
    names = {name for row in table.values() for name in row.classes}
    return next((base.__name__ for base in cls.__mro__ if base.__name__ in names), "")
