"""nbnet as a contender, on any of its backends, through its public names; batch norm and ReLU as layers run them, fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nbnet as nb
from nbnet import functional as F
from nbnet.bench import networks, workloads
from nbnet.bench.networks import EPS, LR, Network
from nbnet.bench.workloads import Workload
from nbnet.functional import fused
from nbnet.functional.batchnorm import by_statistics

Arrays = dict[str, np.ndarray]


class Contender:
    """nbnet on one backend. The environment sets the number of threads: setting it through Numba would start them too early."""

    def __init__(self, threads: int, backend: str = "parallel") -> None:
        self.backend = nb.get_backend(backend)
        # For backends with device arrays and asynchronous calls.
        self.place = getattr(self.backend, "place", lambda array: array)
        self.finish = getattr(self.backend, "synchronize", lambda: None)

    def kernel(self, workload: Workload, arrays: Arrays) -> Callable[[], tuple[Any, ...]]:
        """A function without arguments that runs the kernel once and returns its workloads.RESULTS."""
        placed = {name: self.place(array) if array.dtype.kind == "f" else array for name, array in arrays.items()}
        if workload.op in workloads.CONVOLUTIONS:
            run = self._convolution(workload.convolution, **placed)
        else:
            make = getattr(self, "_" + workload.op.replace("-", "_"))
            run = make(workload.part, **placed) if workload.part else make(**placed)

        def finished():
            results = run()
            self.finish()
            return results

        return finished

    def numpy(self, array: Any) -> np.ndarray:
        return array.copy_to_host() if hasattr(array, "copy_to_host") else np.asarray(array)

    def _conv2d(self, part: str, x, weight, dy):
        y, saved = F.conv2d_forward(x, weight, backend=self.backend)
        if part == "forward":
            return lambda: (F.conv2d_forward(x, weight, backend=self.backend)[0],)
        if part == "backward_data":
            return lambda: (F.conv2d_backward(dy, saved, need_dweight=False)[0],)
        dweight, dbias = self.backend.empty(weight.shape, y.dtype), self.backend.empty(y.shape[-1:], y.dtype)
        return lambda: (F.conv2d_backward(dy, saved, dweight=dweight, dbias=dbias, need_dx=False)[1],)

    def _convolution(self, convolution: workloads.Convolution, x, weight, dy):
        dweight, (_, _, stride, groups) = self.backend.empty(weight.shape, x.dtype), convolution

        def run():
            y, saved = F.conv2d_forward(x, weight, stride=stride, padding=convolution.padding, groups=groups, backend=self.backend)
            dx, _, _ = F.conv2d_backward(dy, saved, dweight=dweight, need_dbias=False)
            return y, dx, dweight

        return run

    def _activation(self, name: str, x, dy):
        forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")

        def run():
            y, saved = forward(x, backend=self.backend)
            return y, backward(dy, saved)

        return run

    def _batchnorm(self, x, dy, gamma, beta):
        def run():
            numbers = by_statistics(x.shape, F.batch_norm_stats(x, backend=self.backend), gamma, beta, EPS)
            y, saved = fused.normalization_forward(x, numbers, fused.Epilogue(slope=0.0), self.backend)
            return y, *fused.normalization_backward(dy, saved, fused.Gradients())

        return run

    def _dropout(self, x, dy):
        steps = iter(range(1 << 32))

        def run():
            y, saved = F.dropout_forward(x, workloads.RATE, seed=0, step=next(steps), backend=self.backend)
            return y, F.dropout_backward(dy, saved)

        return run

    def _dense(self, x, weight, bias, dy):
        dweight, dbias = (self.backend.empty(array.shape, array.dtype) for array in (weight, bias))

        def run():
            y, saved = F.dense_forward(x, weight, bias, backend=self.backend)
            return y, *F.dense_backward(dy, saved, dweight=dweight, dbias=dbias)

        return run

    def _max_pool(self, x, dy):
        def run():
            y, saved = F.max_pool2d_forward(x, 2, backend=self.backend)
            return y, F.max_pool2d_backward(dy, saved)

        return run

    def _softmax(self, logits, labels):
        def run():
            result = nb.losses.softmax_cross_entropy(logits, labels, backend=self.backend)
            return result.total / len(logits), result.gradient

        return run

    def _adam(self, value, grad):
        param = nb.Param(value)
        param.grad[:] = grad
        optimizer, params = nb.Adam(LR), {"value": param}

        def run():
            optimizer.step(params, self.backend)
            return (param.value,)

        return run

    # ------------------------------------------------------------------------------------------------ training

    def step(self, network: Network, rows: int) -> Callable[[], float]:
        """A function that runs one training step on the network's batch and returns its loss, as a user's loop would."""
        made, (x, y) = trainer(network, self.backend), networks.batch(network, rows)
        return lambda: made.train_batch(x, y)["loss"]


def trainer(network: Network, backend: Any, **options: Any) -> nb.Trainer:
    """A trainer of the network, with its first weights. options: of the Trainer."""
    model = nb.Sequential([_layer(*layer) for layer in network.layers])
    model.build(network.input_shape, backend=backend, dtype=network.dtype)
    for layer, arrays in zip(model.layers, networks.first_weights(network)):
        for name, array in arrays.items():
            layer.params[name].value[...] = array
    return nb.Trainer(model, loss=network.loss, optimizer=nb.Adam(LR), **options)


def _layer(kind: str, *options: Any) -> nb.Layer:
    layers: dict[str, Callable[..., nb.Layer]] = {
        "conv": lambda filters, size=3: nb.Conv2D(filters, size, use_bias=False),
        "depthwise": lambda stride: nb.DepthwiseConv2D(3, stride, padding=1, use_bias=False),
        "norm": lambda: nb.BatchNorm(eps=EPS),
        "relu": nb.ReLU,
        "tanh": nb.Tanh,
        "pool": nb.MaxPool2D,
        "mean": nb.GlobalAvgPool2D,
        "flatten": nb.Flatten,
        "dropout": nb.Dropout,
        "dense": nb.Dense,
    }
    return layers[kind](*options)
