"""Pooling layers on sequences (N, L, C): those on images, of height 1."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape
from nbnet.layers.pool import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D


class _OfSequences(Layer):
    """Mixin before a layer of images: the same on sequences, which it sees as images of height 1."""

    _attributes = {"padding": "as it was passed"}  # the attribute is the padding of images

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ShapeError(f"{type(self).__name__} got inputs of shape {input_shape}, expected sequences (L, C)")
        shape = super().create((1, *input_shape))
        return shape[1:] if len(shape) == 3 else shape

    def check_input(self, x: Any) -> Any:
        x = super().check_input(x)
        return x.reshape(len(x), 1, *x.shape[1:])

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved = super().forward(x, train)
        return y.reshape(len(y), *self.output_shape), saved

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        dx = super().backward(dy, saved, need_dx)
        return dx.reshape(len(dx), *dx.shape[2:])


def _window(size: Any, stride: Any, padding: Any) -> tuple[Any, Any, Any]:
    """Size, stride and padding of images of height 1."""
    steps = None if stride is None else (1, checks.whole(stride, "stride"))
    size = (1, checks.whole(size, "size"))
    return size, steps, checks.padding_of_steps(padding)


class MaxPool1D(_OfSequences, MaxPool2D):
    """The largest value of each window of a sequence: (L, C) -> (OL, C).

    Args:
        size, stride: numbers of steps; stride None means size.
        padding: "valid", "same", a number of steps on both sides, or (before, after).
        ceil_mode: as in MaxPool2D.
    """

    replayable = True

    def __init__(self, size: int = 2, stride: int | None = None, padding: Any = "valid", *, ceil_mode: bool = False):
        super().__init__(*_window(size, stride, padding), ceil_mode=ceil_mode)


class AvgPool1D(_OfSequences, AvgPool2D):
    """The mean of each window of a sequence: (L, C) -> (OL, C).

    Args:
        size, stride: numbers of steps; stride None means size.
        padding: "valid", "same", a number of steps on both sides, or (before, after).
        ceil_mode, count_include_pad: as in AvgPool2D.
    """

    replayable = True

    def __init__(
        self, size: int = 2, stride: int | None = None, padding: Any = "valid", *, ceil_mode: bool = False, count_include_pad: bool = False
    ):
        super().__init__(*_window(size, stride, padding), ceil_mode=ceil_mode, count_include_pad=count_include_pad)


class GlobalMaxPool1D(_OfSequences, GlobalMaxPool2D):
    """The largest value of each channel in the whole sequence: (L, C) -> (C,), or (1, C) with keepdims."""

    replayable = True


class GlobalAvgPool1D(_OfSequences, GlobalAvgPool2D):
    """The mean of each channel over the whole sequence: (L, C) -> (C,)."""

    replayable = True
