"""The networks whose training steps are measured: layers independent of any framework, first weights, costs."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from nbnet.bench import counts
from nbnet.bench.counts import Cost

EPS, LR = 1e-5, 1e-3  # of batch norm and of Adam, in every framework


class Network(NamedTuple):
    """Layers are tuples: ("conv", filters) 3x3, or ("conv", filters, 1) 1x1, "same", without bias; ("depthwise", stride) 3x3, padded by one
    pixel, without bias; ("norm",); ("relu",); ("tanh",); ("pool", size); ("mean",) over
    the image; ("flatten",); ("dense", units) with bias; ("dropout", rate)."""

    title: str
    input_shape: tuple[int, ...]
    layers: tuple[tuple[Any, ...], ...]
    dtype: str = "float32"
    loss: str = "softmax_cross_entropy"  # or sum_squared_error


def _conv(filters: int) -> list[tuple[Any, ...]]:
    return [("conv", filters), ("norm",), ("relu",)]


def _separable(filters: int, stride: int = 1) -> list[tuple[Any, ...]]:
    return [("depthwise", stride), ("norm",), ("relu",), ("conv", filters, 1), ("norm",), ("relu",)]


_POOL = ("pool", 2)
NETWORKS = {
    "five-conv": Network(
        "five-conv",
        (32, 32, 3),
        (*_conv(64), _POOL, *_conv(64), _POOL, *_conv(32), _POOL, *_conv(16), *_conv(10), ("mean",)),
    ),
    "mnist-cnn": Network(
        "MNIST CNN",
        (28, 28, 1),
        (*_conv(32), _POOL, *_conv(64), _POOL, ("flatten",), ("dense", 128), ("relu",), ("dropout", 0.25), ("dense", 10)),
    ),
    "digits-cnn": Network("digits CNN", (8, 8, 1), (*_conv(16), _POOL, *_conv(32), _POOL, ("flatten",), ("dropout", 0.25), ("dense", 10))),
    "mobile": Network(
        "mobile",
        (32, 32, 3),
        (
            *_conv(32),
            *(layer for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)) for layer in _separable(filters, stride)),
            *(("mean",), ("dense", 10)),
        ),
    ),
    "mlp": Network("MLP 3-300-3", (3,), (("dense", 300), ("norm",), ("tanh",), ("dense", 3)), "float64", "sum_squared_error"),
}


def shapes(network: Network) -> list[tuple[int, ...]]:
    """The output shape of each layer, without the batch."""
    shape, found = network.input_shape, []
    for kind, *options in network.layers:
        if kind == "conv":
            shape = (*shape[:2], options[0])
        elif kind == "depthwise":
            shape = (-(-shape[0] // options[0]), -(-shape[1] // options[0]), shape[2])
        elif kind == "pool":
            shape = (shape[0] // options[0], shape[1] // options[0], shape[2])
        elif kind == "mean":
            shape = shape[2:]
        elif kind == "flatten":
            shape = (int(np.prod(shape)),)
        elif kind == "dense":
            shape = (options[0],)
        found.append(shape)
    return found


def first_weights(network: Network) -> list[dict[str, np.ndarray]]:
    """One dict per layer: conv "weight" (3, 3, in, out) or (1, 1, in, out); depthwise "weight" (3, 3, in, 1); dense "weight" (in, out) and
    "bias"; norm "gamma" and "beta". He's normal."""
    rng = np.random.default_rng(0)
    found: list[dict[str, np.ndarray]] = []
    before = network.input_shape
    for (kind, *options), shape in zip(network.layers, shapes(network)):
        arrays = {}
        if kind in ("conv", "dense"):
            kernel = (options[1] if len(options) > 1 else 3,) * 2 if kind == "conv" else ()
            size = (*kernel, before[-1], shape[-1])
            arrays["weight"] = rng.normal(0, np.sqrt(2 / np.prod(size[:-1])), size)
        if kind == "depthwise":
            arrays["weight"] = rng.normal(0, np.sqrt(2 / 9), (3, 3, before[-1], 1))
        if kind == "dense":
            arrays["bias"] = np.zeros(shape[-1])
        if kind == "norm":
            arrays = {"gamma": np.ones(shape[-1]), "beta": np.zeros(shape[-1])}
        found.append({name: array.astype(network.dtype) for name, array in arrays.items()})
        before = shape
    return found


def batch(network: Network, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """x (rows, ...), and labels (rows,) int64, or for squared errors targets of the network's output shape."""
    rng = np.random.default_rng(zlib.crc32(f"{network.title} {rows}".encode()))
    x = rng.uniform(-1, 1, (rows, *network.input_shape)).astype(network.dtype)
    if network.loss == "softmax_cross_entropy":
        return x, rng.integers(0, shapes(network)[-1][0], rows)
    return x, (x**2 @ np.array([[1, 2, -3], [2, 1, -4], [3, 3, -5]])).astype(network.dtype)


def without_dropout(network: Network) -> Network:
    """The same network without randomness, so that its losses can be compared exactly."""
    return network._replace(layers=tuple(("dropout", 0.0) if layer[0] == "dropout" else layer for layer in network.layers))


def costs(network: Network, rows: int) -> list[Cost]:
    """The cost of each layer of a training step by itself: forward, backward, and finally Adam over all parameters."""
    size = np.dtype(network.dtype).itemsize
    found: list[Cost] = []
    before, first = network.input_shape, True
    for (kind, *options), shape in zip(network.layers, shapes(network)):
        x, y = (rows, *before), (rows, *shape)
        if kind == "conv":
            kernel = options[1] if len(options) > 1 else 3
            parts = counts.convolution(x, (kernel, kernel, before[-1], shape[-1]), 1, size)
            found += parts[: 2 if first else 3]  # the gradient of the images is not needed
        elif kind == "depthwise":
            found += counts.convolution(x, (3, 3, 1, shape[-1]), options[0], size)
        elif kind == "dense":
            found += counts.dense(x, shape[-1], size)[: 2 if first else 3]
        elif kind == "norm":
            found.append(counts.batchnorm(x, size))
        elif kind in ("relu", "tanh"):
            # Batch norm applies the ReLU after it in the same pass; every other activation takes two passes of its own.
            found += [] if kind == "relu" and len(shape) == 3 else [counts.elementwise(y, size)]
        elif kind == "pool":
            found.append(counts.max_pool(x, options[0], size))
        elif kind == "mean":
            found.append(counts.mean_pool(x, size))
        elif kind == "dropout" and options[0]:
            found.append(counts.elementwise(y, size))
        before, first = shape, first and kind not in ("conv", "dense")
    found.append(counts.elementwise((rows, *before), size))  # the loss and its gradient
    parameters = sum(array.size for arrays in first_weights(network) for array in arrays.values())
    return [*found, counts.adam(parameters, size)]
