"""Fusion: runs of layers that go through memory as one.

`fuse` cuts a list of layers into steps. A step has forward and backward like a layer; most steps are a layer. The layers
stay what they are: they own the parameters and buffers, and their results and gradients are the same either way.

    Conv2D, BatchNorm       the convolution takes the channels' statistics of each chunk while it is in the cache; Dense does, too, and a
                            first one of few inputs has the gradient of its weights without the gradient of its outputs
    BatchNorm, ReLU         one pass, forward and backward: the normalised values are never written
    ..., MaxPool2D(2)       the same pass writes only the maxima
    BatchNorm, Tanh         one pass forward; backward, the activation's gradient and its sums are another
    Conv2D, ReLU            the activation is applied to results that are still in registers or in the cache; Dense does, too
    ..., ReLU, Dropout      the dropout works on y in place; backward, y alone tells what either of them made 0: no random numbers

ReLU stands for LeakyReLU too, but before a Dropout, and Tanh for Sigmoid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet.functional.batchnorm import SMOOTH, batch_norm_backward_rows
from nbnet.functional.dense import FEW
from nbnet.functional.dropout import dropout_backward, relu_dropout_backward
from nbnet.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from nbnet.layers.base import Layer
from nbnet.layers.batchnorm import BatchNorm
from nbnet.layers.conv2d import Conv2D
from nbnet.layers.dense import Dense
from nbnet.layers.dropout import Dropout
from nbnet.layers.pool import MaxPool2D
from nbnet.runtime.backend import Backend
from nbnet.runtime.watched import Watched

BLOCK = 1 << 22  # bytes: of the gradient between a batch norm and its convolution


class NormStep(Watched):
    """[Conv2D or Dense,] BatchNorm [, activation] [, MaxPool2D(2)] in two passes, or one where there is no product."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self.product = next((layer for layer in layers if isinstance(layer, (Conv2D, Dense))), None)
        self.norm = next(layer for layer in layers if isinstance(layer, BatchNorm))
        activation = next((layer for layer in layers if isinstance(layer, (ReLU, LeakyReLU))), None)
        self.slope = None if activation is None else _slope(activation)
        self.activation = next((layer.function for layer in layers if isinstance(layer, (Tanh, Sigmoid))), None)
        self.max_pool = isinstance(layers[-1], MaxPool2D)
        self.name = ", ".join(layer.name for layer in layers)

    def forward(self, x, train: bool = False) -> tuple[Any, Any]:
        product = stats = None
        if self.product is not None:
            x, product = self.product.run(x, stats=self.norm.wants_statistics(train))
            stats = product.stats
        y, norm = self.norm.forward(x, train, stats=stats, slope=self.slope, activation=self.activation, max_pool=self.max_pool)
        return y, (product, norm) if train else None

    def backward(self, dy, saved, need_dx: bool = True, *, overwrite_dy: bool = False):
        """dx; overwrite_dy: dy is not needed any more, and another gradient may take its place."""
        product, norm = saved
        options = {"overwrite_dy": True} if overwrite_dy else {}
        if self.product is None:
            return self.norm.backward(dy, norm, **options)
        on_gpu = self.product.backend.name == "cuda"  # whose cache keeps nothing for the next kernel
        if isinstance(self.product, Dense) and not (need_dx or on_gpu) and self._spares_gradient(product, norm):
            g, part, coefficients, sum_g = self.norm.backward_coefficients(dy, norm, overwrite_dy)
            return self.product.backward_norm(g, part, coefficients, sum_g, product)
        if isinstance(self.product, Dense) or on_gpu:
            return self.product.backward(self.norm.backward(dy, norm, **options), product, need_dx)
        return self._backward_in_blocks(self.product, dy, product, norm, need_dx, overwrite_dy)

    def _spares_gradient(self, product, norm) -> bool:
        """Whether a first dense layer gets its weights' gradient without its outputs': it has few inputs; batch norm's gradient is affine
        in the g of backward_coefficients, which behind a ReLU is still to go through it; and no backward is the user's own."""
        ((_, part),) = norm
        plain = not any("backward" in vars(layer) for layer in (self.product, self.norm))
        return plain and len(product.weight) <= FEW and (part.smooth is not None or part.slope == 1)

    def _backward_in_blocks(self, layer: Conv2D, dy, conv, norm, need_dx: bool, overwrite_dy: bool):
        """Batch norm's gradient of a block of images is still in the caches when the convolution goes on with it."""
        dy, part, coefficients, _ = self.norm.backward_coefficients(dy, norm, overwrite_dy)
        blocks = _blocks(part.x)
        if len(blocks) == 1:
            return layer.backward(batch_norm_backward_rows(dy, part, coefficients, overwrite_dy), conv, need_dx)
        be = layer.backend
        totals = [param.grad for param in layer.params.values()]
        grads = [be.empty(total.shape, total.dtype) for total in totals]
        dx = be.empty(conv.x.shape, conv.x.dtype) if need_dx else None
        for images in blocks:
            of_block = part._replace(x=part.x[images], out_shape=dy[images].shape)
            g = batch_norm_backward_rows(dy[images], of_block, coefficients)
            first = images.start == 0
            conv_of_block, dx_of_block = conv._replace(x=conv.x[images], out_shape=g.shape), None if dx is None else dx[images]
            layer.backward(g, conv_of_block, need_dx, dx_of_block, None if first else grads)
            for total, grad in zip(totals, [] if first else grads):
                be.kernel("array.add")(total.reshape(-1), grad.reshape(-1), total.reshape(-1))
        return dx


class ActivationStep(Watched):
    """Conv2D or Dense, the activation that follows [, Dropout]. Backward goes through what follows the product first, from y alone."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self.product, activation, *rest = layers
        self.dropout = rest[0] if rest else None
        self.slope = _slope(activation)
        self.name = ", ".join(layer.name for layer in layers)

    def forward(self, x, train: bool = False) -> tuple[Any, Any]:
        y, product = self.product.run(x, slope=self.slope)
        if self.dropout is None:
            return y, (product, None, None) if train else None
        from_y = _drops_to_0(self.dropout)  # now: layers may be set otherwise after they were built
        y, dropped = self.dropout.run(y, train, in_place=from_y)
        return y, (product, dropped, from_y) if train else None

    def backward(self, dy, saved, need_dx: bool = True):
        product, dropped, from_y = saved
        if from_y:
            dy, product = relu_dropout_backward(dy, product.y, dropped), product._replace(y=None)
        elif dropped is not None:
            dy = dropout_backward(dy, dropped)
        return self.product.backward(dy, product, need_dx)


def _slope(activation: Layer) -> float:
    return activation.options[0] if isinstance(activation, LeakyReLU) else 0.0


def _blocks(x: np.ndarray) -> list[slice]:
    """A batch in blocks of images that stay in the caches from one kernel to the next."""
    images = max(1, BLOCK // x[0].nbytes)
    return [slice(start, start + images) for start in range(0, len(x), images)]


Step = Layer | NormStep | ActivationStep


def may_overwrite(step: Step, above: Step) -> bool:
    """Whether the backward of a step may overwrite the gradient that it gets from the one above, `overwrite_dy`: a new array, which
    nobody else has. A backward of the user's own in place of a layer's may keep what it gets and gives."""
    if not isinstance(step, NormStep) or type(above) not in (Conv2D, Dense, NormStep, ActivationStep):
        return False
    return not any("backward" in vars(each) for of_two in (step, above) for each in (of_two, *getattr(of_two, "layers", ())))


def _product(layer: Layer) -> bool:
    return type(layer) in (Conv2D, Dense)


def _norm(layer: Layer) -> bool:
    return type(layer) is BatchNorm and layer.fuses


def _plain_norm(layer: Layer) -> bool:
    return type(layer) is BatchNorm and layer.fuses and layer.activation is None


def _linear_norm(layer: Layer) -> bool:
    return type(layer) is BatchNorm and layer.fuses and layer.activation not in SMOOTH


def _activation(layer: Layer) -> bool:
    return type(layer) in (ReLU, LeakyReLU)


def _any_activation(layer: Layer) -> bool:
    return type(layer) in (ReLU, LeakyReLU, Tanh, Sigmoid)


def _relu(layer: Layer) -> bool:
    return type(layer) is ReLU


def _dropout(layer: Layer) -> bool:
    return type(layer) is Dropout and _drops_to_0(layer)


def _drops_to_0(layer: Dropout) -> bool:
    """Whether each element is dropped by itself, and what is dropped is 0."""
    return layer.variant != "alpha" and layer.noise_shape is None


def _max_pool(layer: Layer) -> bool:
    return type(layer) is MaxPool2D and (layer.size, layer.stride, layer.padding) == ((2, 2), (2, 2), "valid")


# Tried in order at each layer; the first that fits is taken.
PATTERNS: tuple[tuple[type[NormStep | ActivationStep], tuple[Callable[[Layer], bool], ...]], ...] = (
    (NormStep, (_product, _plain_norm, _activation, _max_pool)),
    (NormStep, (_product, _plain_norm, _any_activation)),
    (NormStep, (_product, _linear_norm, _max_pool)),
    (NormStep, (_product, _norm)),
    (NormStep, (_plain_norm, _activation, _max_pool)),
    (NormStep, (_plain_norm, _any_activation)),
    (NormStep, (_linear_norm, _max_pool)),
    (ActivationStep, (_product, _relu, _dropout)),
    (ActivationStep, (_product, _activation)),
)


def fuse(layers: Sequence[Layer]) -> list[Step]:
    """The steps of built layers, in order."""
    steps: list[Step] = []
    at = 0
    while at < len(layers):
        step = next((kind(layers[at : at + len(run)]) for kind, run in PATTERNS if _fits(run, layers[at:])), layers[at])
        steps.append(step)
        at += 1 if isinstance(step, Layer) else len(step.layers)
    return steps


def _fits(run: Sequence[Callable[[Layer], bool]], layers: Sequence[Layer]) -> bool:
    """Whether the first of these layers are such a run."""
    return len(run) <= len(layers) and all(fits(layer) for fits, layer in zip(run, layers))


def copied(thing: Any, backend: Backend, copies: dict[int, Any]) -> Any:
    """A layer, a fused step or a list of them on another backend. Parameters, buffers and all else that hangs on them are shared."""
    if isinstance(thing, list):
        return [copied(part, backend, copies) for part in thing]
    if not isinstance(thing, Step):
        return thing
    if id(thing) not in copies:
        twin: Any = copy.copy(thing)
        copies[id(thing)] = twin
        vars(twin).update({name: copied(value, backend, copies) for name, value in vars(thing).items()})
        if isinstance(thing, Layer):
            twin.backend = backend
    return copies[id(thing)]
