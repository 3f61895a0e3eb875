"""Fused runs of layers, private: each is one pair, forward next to its backward, that does in one pass what the layers do in several.

    normalization       batch norm and its epilogue: the normalised values are never written
    product_norm        convolution or dense layer, then normalization: statistics are taken while the product is in the cache
    product_activation  convolution or dense layer, then an activation: ReLU and leaky ReLU on results that are still in registers or in
                        the cache
    product_dropout     product_activation with ReLU, then dropout in place: backward needs y alone, no random numbers

`nbnet.layers.fusion` decides which layers run as which pair. Results are those of the separate calls within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.functional import batchnorm, checks
from nbnet.functional.activations import Activation, ActivationSaved, activate, through
from nbnet.functional.batchnorm import BatchNormSaved, Normalization
from nbnet.functional.conv2d import Conv2DSaved, Window, conv2d_backward, convolve
from nbnet.functional.dense import DenseSaved, dense_backward, multiply
from nbnet.functional.dropout import DropoutSaved, dropout_at
from nbnet.functional.moments import Stats, partials
from nbnet.kernels import chunks
from nbnet.kernels.activations import RECTIFIERS, TABLE
from nbnet.runtime.backend import Backend

BLOCK = 1 << 23  # bytes of the gradient between a batch norm and its convolution that are computed at a time: they stay in the cache
OF_WEIGHTS = 8  # a block has at least so many times the bytes of the weights, which are transformed again for each
FEW_INPUTS = 8  # up to which the weights' gradient of a first dense layer skips the gradient of its outputs


class Epilogue(NamedTuple):
    """What follows in the same pass, in this order: an activation, and a max-pool of 2 x 2."""

    slope: float = 1.0  # of the negative part: 1 is no activation, 0 is ReLU, between them leaky ReLU
    smooth: Activation | None = None  # another one than by slope; slope is then 1 and there is no pool
    max_pool: bool = False


def epilogue_of(activation: Activation | None) -> Epilogue:
    """The epilogue that is this activation."""
    if activation is None:
        return Epilogue()
    if activation.kernel in RECTIFIERS:
        return Epilogue(slope=activation.options[0] if activation.options else 0.0)
    return Epilogue(smooth=activation)


class Product(NamedTuple):
    """A convolution or a dense layer: its input and parameters. window: of a convolution."""

    x: Any
    weight: Any
    bias: Any
    backend: Backend
    window: Window | None = None

    def run(self, slope: float = 1.0, stats: bool = False) -> tuple[Any, Conv2DSaved | DenseSaved, Stats | None]:
        """y, what backward needs, and the statistics of y's channels if stats is True."""
        x, weight, bias, be, window = self
        if window is None:
            return multiply(x, weight, bias, be, slope, stats)
        return convolve(x, weight, bias, window, be, slope, stats)


class Gradients(NamedTuple):
    """Arrays that the gradients of parameters are written into; None where a layer has no such parameter."""

    weight: Any = None
    bias: Any = None
    gamma: Any = None
    beta: Any = None


# ------------------------------------------------------------------------------------------------- normalization


class NormalizationSaved(NamedTuple):
    norm: BatchNormSaved
    epilogue: Epilogue
    y: Any  # of an activation whose gradient follows from it, else None
    out_shape: tuple[int, ...]


def normalization_forward(x: Any, by: Normalization, epilogue: Epilogue, be: Backend) -> tuple[Any, NormalizationSaved]:
    """y = max_pool(act(batch norm of x))."""
    saved = batchnorm.prepare(x, by, be)
    x = saved.x
    if epilogue.max_pool:
        y = be.empty((len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3]), x.dtype)
        be.kernel("batchnorm.apply_max_pool")(x, *saved.affine, epilogue.slope, y)
    elif epilogue.smooth is not None:
        (kernel, options), y, rows = epilogue.smooth, be.empty(x.shape, x.dtype), x.reshape(-1, x.shape[-1])
        if x.size:
            be.kernel(f"batchnorm.apply_{kernel}")(rows, *saved.affine, *options, y.reshape(rows.shape))
    else:
        y = batchnorm.apply(saved, epilogue.slope)
    from_y = epilogue.smooth is not None and TABLE[epilogue.smooth.kernel].saves == "y"
    return y, NormalizationSaved(saved, epilogue, y if from_y else None, y.shape)


def normalization_backward(dy: Any, saved: NormalizationSaved, grads: Gradients, overwrite_dy: bool = False) -> tuple[Any, Any, Any]:
    """dx, dgamma, dbeta; overwrite_dy: dx may replace dy in memory."""
    g, coefficients, dgamma, dbeta = _coefficients(dy, saved, grads, overwrite_dy)
    return normalization_input_gradient(g, saved, coefficients, g if overwrite_dy else None), dgamma, dbeta


def _coefficients(dy: Any, saved: NormalizationSaved, grads: Gradients, overwrite_dy: bool) -> tuple[Any, list[Any], Any, Any]:
    """g, the coefficients of dx, dgamma and dbeta."""
    g, sum_g, sum_gx = normalization_sums(dy, saved, dy if overwrite_dy else None)
    return g, *batchnorm.backward_coefficients(sum_g, sum_gx, saved.norm.affine[0], saved.norm, grads.gamma, grads.beta)


def normalization_sums(dy: Any, saved: NormalizationSaved, out: Any = None) -> tuple[Any, Any, Any]:
    """g, which is dy times the derivative of a smooth activation, else dy itself; and sum g and sum g * (x - center), (C,) float64.

    out: an array for g after a smooth activation; it may be dy.
    """
    norm, epilogue = saved.norm, saved.epilogue
    x, be = norm.x, norm.backend
    dy = checks.shaped(dy, "dy", saved.out_shape, x.dtype, be=be)
    channels = x.shape[-1]
    if epilogue.max_pool:
        sum_g, sum_gx = be.vectors(2, channels, np.float64)
        scratch = partials(be, len(x) * dy.shape[1], channels, 2 * x.shape[2])
        be.kernel("batchnorm.backward_reduce_max_pool")(dy, x, *norm.affine, epilogue.slope, scratch, sum_g, sum_gx)
    elif epilogue.smooth is not None and norm.weights is not None:
        (kernel, options), g = epilogue.smooth, be.empty(x.shape, x.dtype) if out is None else out
        value = batchnorm.apply(norm) if saved.y is None else saved.y
        be.kernel(f"activation.{kernel}_backward")(dy.reshape(-1), value.reshape(-1), *options, g.reshape(-1))
        sum_g, sum_gx = batchnorm.reduce(g, norm)
        dy = g
    elif epilogue.smooth is not None:
        sum_g, sum_gx = be.vectors(2, channels, np.float64)
        rows, g = x.reshape(-1, channels), be.empty(x.shape, x.dtype) if out is None else out
        y, (kernel, options) = rows if saved.y is None else saved.y.reshape(rows.shape), epilogue.smooth
        arguments = dy.reshape(rows.shape), y, rows, *norm.affine, *options, partials(be, *rows.shape)
        be.kernel(f"batchnorm.backward_reduce_{kernel}")(*arguments, g.reshape(rows.shape), sum_g, sum_gx)
        dy = g
    else:
        sum_g, sum_gx = batchnorm.reduce(dy, norm, epilogue.slope)
    return dy, sum_g, sum_gx


def normalization_input_gradient(g: Any, saved: NormalizationSaved, coefficients: list[Any], out: Any = None) -> Any:
    """dx from g. After a smooth activation g is an array of our own, and dx replaces it, unless there is `out`, an array for dx. It may be
    g, which is then not used where a pool makes g smaller than dx."""
    norm, epilogue = saved.norm, saved.epilogue
    if not epilogue.max_pool:
        return batchnorm.input_gradient(g, norm, coefficients, epilogue.slope, g if out is None and epilogue.smooth is not None else out)
    be, x = norm.backend, norm.x
    dx = be.empty(x.shape, x.dtype) if out is None or out is g else out
    be.kernel("batchnorm.backward_apply_max_pool")(g, x, *norm.affine, epilogue.slope, *coefficients, dx)
    return dx


# -------------------------------------------------------------------------------------------------- product_norm


class ProductNormSaved(NamedTuple):
    product: Conv2DSaved | DenseSaved
    norm: NormalizationSaved


def product_norm_forward(
    product: Product, by: Callable[[Any, Stats | None], Normalization], stats: bool, epilogue: Epilogue
) -> tuple[Any, ProductNormSaved]:
    """The product, then normalization by `by(product, its statistics)`; stats: whether to take them."""
    y, saved, taken = product.run(stats=stats)
    y, norm = normalization_forward(y, by(y, taken), epilogue, product.backend)
    return y, ProductNormSaved(saved, norm)


def product_norm_backward(dy: Any, saved: ProductNormSaved, grads: Gradients, need_dx: bool, overwrite_dy: bool = False) -> Any:
    """dx, or None if need_dx is False."""
    product, norm = saved
    on_gpu = product.backend.name == "cuda"  # its cache holds nothing from one kernel to the next
    of_few = isinstance(product, DenseSaved) and len(product.weight) <= FEW_INPUTS
    if of_few and not need_dx and not on_gpu and norm.epilogue.slope == 1:
        return _backward_weights_norm(dy, product, norm, grads, overwrite_dy)  # type: ignore[arg-type]
    g, coefficients, _, _ = _coefficients(dy, norm, grads, overwrite_dy)
    if isinstance(product, Conv2DSaved) and not on_gpu:
        return _backward_in_blocks(g, coefficients, product, norm, grads, need_dx, overwrite_dy)
    return product_backward(normalization_input_gradient(g, norm, coefficients, g if overwrite_dy else None), product, grads, need_dx)


def _backward_weights_norm(dy: Any, product: DenseSaved, norm: NormalizationSaved, grads: Gradients, overwrite_dy: bool) -> None:
    """The gradients of a first dense layer with few inputs, without the gradient of its outputs, in which they are affine."""
    g, coefficients, _, sum_g = _coefficients(dy, norm, grads, overwrite_dy)
    x, weight, be = product
    inputs, outputs = weight.shape
    dweight = checks.output(grads.weight, "dweight", weight.shape, x.dtype, be=be)
    dbias = checks.output(grads.bias, "dbias", (outputs,), x.dtype, be=be)
    parts = chunks.count(len(x), outputs)
    products = be.scratch("products", (parts, inputs, outputs), np.float64)
    moments = be.scratch("moments", (parts, inputs, inputs + 1), np.float64)
    of_norm = (norm.norm.x, weight, norm.norm.mean, norm.norm.affine[0], sum_g, *coefficients)
    be.kernel("dense.backward_weights_norm")(x, g, *of_norm, products, moments, dweight, dbias)


def _backward_in_blocks(
    dy: Any, coefficients: list[Any], product: Conv2DSaved, norm: NormalizationSaved, grads: Gradients, need_dx: bool, overwrite_dy: bool
) -> Any:
    """The convolution goes on with the gradient of a block of images while it is still in the cache."""
    x = norm.norm.x
    images = _images_of_block(x, product.weight)
    if images >= len(x) or product.padded is not None:
        return product_backward(normalization_input_gradient(dy, norm, coefficients, dy if overwrite_dy else None), product, grads, need_dx)
    be = product.backend
    totals = [total for total in (grads.weight, grads.bias) if total is not None]
    parts = [be.empty(total.shape, total.dtype) for total in totals]
    dx = be.empty(product.x.shape, product.x.dtype) if need_dx else None
    for start in range(0, len(x), images):
        block = slice(start, start + images)
        g = dy[block]
        g = normalization_input_gradient(g, rows_of_norm(norm, block), coefficients)
        into = grads if start == 0 else Gradients(*parts)
        product_backward(g, rows_of_product(product, block), into, need_dx, None if dx is None else dx[block])
        for total, part in zip(totals, parts if start else []):
            be.kernel("array.add")(total.reshape(-1), part.reshape(-1), total.reshape(-1))
    return dx


def _images_of_block(x: Any, weight: Any) -> int:
    """How many images a block has, so that all have about as many."""
    images = max(1, max(BLOCK, OF_WEIGHTS * weight.nbytes) // x[0].nbytes)
    return -(-len(x) // -(-len(x) // images))


def product_backward(dy: Any, saved: Conv2DSaved | DenseSaved, grads: Gradients | None, need_dx: bool, dx: Any = None) -> Any:
    """dx, or None if need_dx is False, of a product alone. grads: None skips the gradients of the parameters."""
    weight, bias = (None, None) if grads is None else (grads.weight, grads.bias)
    if isinstance(saved, DenseSaved):
        return dense_backward(dy, saved, dweight=weight, dbias=bias, need_dx=need_dx, need_dweight=grads is not None)[0]
    options = {"need_dx": need_dx, "need_dbias": bias is not None, "need_dweight": grads is not None}
    return conv2d_backward(dy, saved, dweight=weight, dbias=bias, dx=dx, **options)[0]


# ------------------------------------------------------------------------------------------------------ some rows


def rows_of_norm(saved: NormalizationSaved, rows: slice) -> NormalizationSaved:
    """What would be saved of some rows of x, without weights."""
    norm = saved.norm._replace(x=saved.norm.x[rows])
    return saved._replace(norm=norm, y=None if saved.y is None else saved.y[rows], out_shape=(len(norm.x), *saved.out_shape[1:]))


def rows_of_product(saved: Any, rows: slice) -> Any:
    """What would be saved of some rows of x, for the gradients of the parameters, and where the padding is zeros also for dx."""
    x = saved.x[rows]
    return saved._replace(x=x) if isinstance(saved, DenseSaved) else saved._replace(x=x, out_shape=(len(x), *saved.out_shape[1:]))


# -------------------------------------------------------------------------------------------- product_activation


class ProductActivationSaved(NamedTuple):
    product: Conv2DSaved | DenseSaved
    activation: ActivationSaved


def product_activation_forward(product: Product, activation: Activation) -> tuple[Any, ProductActivationSaved]:
    """y = act(product): ReLU and leaky ReLU in the same pass, whose y has the sign of the product; others in a second one, in place where
    the derivative follows from y."""
    slope = epilogue_of(activation).slope
    y, saved, _ = product.run(slope)
    if activation.kernel in RECTIFIERS:
        return y, ProductActivationSaved(saved, ActivationSaved(y, activation, product.backend))
    y, of_activation = activate(y, activation, product.backend, overwrite=True)
    return y, ProductActivationSaved(saved, of_activation)


def product_activation_backward(dy: Any, saved: ProductActivationSaved, grads: Gradients, need_dx: bool) -> Any:
    """dx, or None if need_dx is False."""
    return product_backward(through(dy, saved.activation), saved.product, grads, need_dx)


# ----------------------------------------------------------------------------------------------- product_dropout


class ProductDropoutSaved(NamedTuple):
    product: Conv2DSaved | DenseSaved
    y: Any
    dropout: DropoutSaved


def product_dropout_forward(
    product: Product, rate: float, counter: np.ndarray, variant: str, train: bool
) -> tuple[Any, ProductDropoutSaved]:
    """y = dropout(ReLU(product)); variant: "inverted" or "vanilla", which set dropped elements to 0."""
    y, saved, _ = product.run(slope=0.0)
    y, dropout = dropout_at(y, rate, counter, variant, None, train, product.backend, out=y)
    return y, ProductDropoutSaved(saved, y, dropout)


def product_dropout_backward(dy: Any, saved: ProductDropoutSaved, grads: Gradients, need_dx: bool) -> Any:
    """dx, or None if need_dx is False."""
    return product_backward(before_dropout(dy, saved), saved.product, grads, need_dx)


def before_dropout(dy: Any, saved: ProductDropoutSaved) -> Any:
    """The gradient of the product. Where y is 0, either ReLU or dropout made it 0, and the gradient is 0."""
    product, y, dropout = saved
    be = product.backend
    dy = checks.shaped(dy, "dy", y.shape, y.dtype, be=be)
    g = be.empty(y.shape, y.dtype)
    be.kernel("dropout.relu_backward")(dy.reshape(-1), y.reshape(-1), dropout.scale, g.reshape(-1))
    return g
