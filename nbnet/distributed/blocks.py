"""How the own rows of a batch are held while its slices run side by side.

A kernel whose result for a row does not depend on the other rows gives a slice the same bits alone and beside others. So on the compiled
backends all own slices are one block, and such kernels run once on all of it; only sums over rows are taken of each slice. With NumPy,
whose products of matrices depend on the number of rows, each slice is a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nbnet.functional.conv2d import depends_on_rows
from nbnet.layers import (
    AdaptiveAvgPool2D,
    AvgPool1D,
    AvgPool2D,
    Conv1D,
    Conv2D,
    Crop2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    Identity,
    LogSoftmax,
    MaxPool1D,
    MaxPool2D,
    Pad2D,
    Permute,
    Reshape,
    Softmax,
    UpSample2D,
    ZeroPad2D,
)
from nbnet.layers.activations import Elementwise
from nbnet.layers.branches import Branches
from nbnet.runtime.arrays import take

COMPILED = "serial", "parallel"  # backends whose kernels give a row the same bits in every batch
BY_ROWS = {  # layers without parameters, of which rows of y and dx depend on the same rows of x and dy alone
    *Elementwise.__subclasses__(),
    *(Softmax, LogSoftmax, Flatten, Reshape, Permute, Identity, Dropout, Pad2D, ZeroPad2D, Crop2D, UpSample2D),
    *(MaxPool2D, AvgPool2D, GlobalMaxPool2D, GlobalAvgPool2D, AdaptiveAvgPool2D),
    *(MaxPool1D, AvgPool1D, GlobalMaxPool1D, GlobalAvgPool1D),
}
PRODUCTS = Conv2D, DepthwiseConv2D, Conv1D, Dense  # layers of which only the gradients of the parameters are sums over rows


def is_by_rows(layer: Any) -> bool:
    """Whether rows of y and dx of a layer without parameters have the same bits in every batch."""
    return type(layer) in BY_ROWS and (not isinstance(layer, Dropout) or layer.noise_shape is None or layer.noise_shape[0] is None)


def is_product(layer: Any) -> bool:
    """Whether a layer is a product, and rows of its y and dx have the same bits in every batch."""
    if type(layer) not in PRODUCTS:
        return False
    weight = layer.params["weight"].value
    return type(layer) is Dense or not depends_on_rows((1, *weight.shape[:1]) if type(layer) is Conv1D else weight.shape[:2])


class Blocks:
    """The blocks of one pass.

    Args:
        cuts: the rows of each active slice among the own rows, in order. be: the backend.
    Attributes:
        places: of each active slice, the number of its block and its rows there.
    """

    def __init__(self, cuts: Sequence[slice], be: Any) -> None:
        self.cuts, self.be, self.joint = list(cuts), be, be.name in COMPILED
        self.places = [(0, cut) if self.joint else (i, slice(None)) for i, cut in enumerate(self.cuts)]

    def of(self, whole: Any) -> list[Any]:
        """The blocks of an array, or a tuple of arrays, with all own rows."""
        return [whole][: len(self.cuts)] if self.joint else self._cut(whole)

    def split(self, blocks: Sequence[Any]) -> list[Any]:
        """The slices in blocks."""
        return self._cut(blocks[0]) if self.joint and self.cuts else list(blocks)

    def join(self, slices: Sequence[Any]) -> list[Any]:
        """Blocks with the values of slices."""
        return [self.whole(slices)] if self.joint and self.cuts else list(slices)

    def whole(self, parts: Sequence[Any]) -> Any:
        """One array, or a tuple of arrays, with the values of slices or blocks, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        if type(parts[0]) is tuple:
            return tuple([self.whole(of_one) for of_one in zip(*parts)])
        whole = self.be.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
        at = 0
        for part in parts:
            self.be.run(np.copyto, whole[at : at + len(part)], part)
            at += len(part)
        return whole

    def runners(self, members: Sequence[Any]) -> Sequence[Any]:
        """Of the stages of active slices, those that run the blocks."""
        return members[:1] if self.joint else members

    def _cut(self, whole: Any) -> list[Any]:
        return [take(whole, cut) for cut in self.cuts]


def dropouts(stage: Any) -> Iterator[Dropout]:
    """The dropout layers that a stage has."""
    for layer in getattr(stage, "layers", [stage]):
        yield from (one for one in layer.walk() if isinstance(one, Dropout))


def joins_by_rows(stage: Any) -> bool:
    """Whether a container joins its branches row by row."""
    return isinstance(stage, Branches) and type(stage).__module__ == Branches.__module__
