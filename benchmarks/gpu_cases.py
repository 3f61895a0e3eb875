"""The cases that benchmarks/gpu.py checks and times: each is a call of nbnet and the same call of PyTorch.

A case counts the bytes that must move through device memory (each input read once, each output written once, plus whatever a
two-pass operation has to read again) and 2 operations per multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import nbnet.functional as F
from nbnet import losses
from nbnet.functional import fused
from nbnet.functional.batchnorm import by_statistics
from nbnet.functional.pool import MaxPool2DSaved
from nbnet.kernels import load
from nbnet.runtime.backend import get_backend

BACKEND = "cuda"
RATE = 0.25
POOL = (2, 2, 2, 2, 0, 0)  # windows of 2 x 2 pixels, stride 2, no padding
TOLERANCE = {"exact": 0.0, "elementwise": 2e-6, "reduction": 1e-5, "matmul": 1e-5}  # of the largest value, in float32


@dataclass
class Case:
    """make(rng) returns host arrays; run(*device arrays) returns nbnet's results; torch(torch, *tensors) returns a function without
    arguments that does the same; reference(*float64 arrays) returns the correct results. small: the same case at a size that NumPy can
    check."""

    name: str
    kind: str  # of TOLERANCE
    size: int  # bytes that must move
    flops: int
    make: Callable[..., list[np.ndarray]]
    run: Callable[..., Any]
    torch: Callable[..., Callable[[], Any]]
    reference: Callable[..., list[np.ndarray]]
    small: Case | None = None


def cases(toy: bool) -> Iterator[Case]:
    """All cases; at toy size, only what the simulator can run."""
    for n, side, channels in [(2, 3, 5)] if toy else [(256, 56, 64), (128, 32, 64)]:
        yield from batch_norm(n, side, channels, False, toy)
        yield from batch_norm(n, side, channels, True, toy)
    yield from dropout(100 if toy else 10**8, toy)
    shapes = [(2, 4, 3, 5)] if toy else [(256, 32, 3, 64), (256, 16, 64, 64), (256, 8, 64, 32), (256, 4, 32, 16), (256, 4, 16, 10)]
    for n, side, inputs, outputs in [*shapes, *([] if toy else [(256, 28, 128, 128)])]:
        yield from convolution(n, side, inputs, outputs, toy)
    n, side, channels = (1, 4, 4) if toy else (256, 32, 64)
    yield from pooling(n, side, channels, toy)
    yield from activation(n, side, channels, toy)
    yield loss(6 if toy else 65536, 5 if toy else 1000, toy)
    yield adam(50 if toy else 10**8, toy)


def _normal(*shapes: tuple[int, ...]) -> Callable[..., list[np.ndarray]]:
    return lambda rng: [rng.standard_normal(shape, np.float32) for shape in shapes]


def _nchw(x: Any) -> Any:
    """NHWC images as PyTorch expects them: the same memory, in channels-last format."""
    return x.permute(0, 3, 1, 2)


# -------------------------------------------------------------------------------------------------- batch norm


def batch_norm(n: int, side: int, channels: int, max_pool: bool, checked: bool) -> Iterator[Case]:
    """With ReLU, optionally followed by a 2 x 2 max-pool."""
    shape, size = (n, side, side, channels), 4 * n * side * side * channels
    out_shape = (n, side // 2, side // 2, channels) if max_pool else shape
    epilogue, be = fused.Epilogue(slope=0.0, max_pool=max_pool), get_backend(BACKEND)

    def reference(x, gamma, beta, dy):
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        xhat = (x - mean) / np.sqrt(var + 1e-5)
        z = gamma * xhat + beta
        y = np.maximum(z, 0)
        if max_pool:
            activated, y, winners = y, np.empty(dy.shape), np.empty_like(x)
            load("pool.max_forward", "numpy")(activated, *POOL, y)
            load("pool.max_backward", "numpy")(dy, activated, *POOL, winners)
            dy = winners
        g = np.where(z > 0, dy, 0)
        dgamma, dbeta = (g * xhat).sum(axis=(0, 1, 2)), g.sum(axis=(0, 1, 2))
        rows = x.size // x.shape[-1]
        return [y], [gamma / np.sqrt(var + 1e-5) * (g - dbeta / rows - xhat * dgamma / rows), dgamma, dbeta]

    def run(x, gamma, beta):
        numbers = by_statistics(x.shape, F.batch_norm_stats(x, backend=be), gamma, beta)
        return fused.normalization_forward(x, numbers, epilogue, be)

    def forward(x, gamma, beta, dy):
        return [run(x, gamma, beta)[0]]

    def both(x, gamma, beta, dy):
        return list(fused.normalization_backward(dy, run(x, gamma, beta)[1], fused.Gradients()))

    def torch_forward(torch, x, gamma, beta, dy):
        mean, var = torch.zeros_like(gamma), torch.ones_like(gamma)

        def call():
            y = torch.relu(torch.nn.functional.batch_norm(_nchw(x), mean, var, gamma, beta, True))
            return torch.nn.functional.max_pool2d(y, 2) if max_pool else y

        return call

    def torch_both(torch, x, gamma, beta, dy):
        leaves = [a.detach().requires_grad_() for a in (x, gamma, beta)]
        forward = torch_forward(torch, *leaves, dy)
        return lambda: torch.autograd.grad(forward(), leaves, _nchw(dy))

    make = _normal(shape, (channels,), (channels,), out_shape)
    small = None if checked else list(batch_norm(4, 7, channels, max_pool, True))
    name = f"batch norm + ReLU{' + max pool' if max_pool else ''} {n}x{side}x{side}x{channels}"
    written = size * (out_shape[1] * out_shape[2]) // (side * side)  # y, or dy
    forward_size, backward_size = 2 * size + written, 3 * size + 2 * written  # x for each of two passes, dx
    yield Case(
        f"{name}, forward", "reduction", forward_size, 0, make, forward, torch_forward, lambda *a: reference(*a)[0], small and small[0]
    )
    yield Case(
        f"{name}, forward and backward", "reduction", forward_size + backward_size, 0, make, both, torch_both,
        lambda *a: reference(*a)[1], small and small[1],
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- dropout


def dropout(n: int, checked: bool) -> Iterator[Case]:
    def mask(x):
        y = np.empty_like(x)
        load("dropout.apply", "numpy")(x, np.array([1, 0, 0], np.uint64), round(RATE * 2**32), 1 / (1 - RATE), 0.0, 0.0, y)
        return y

    def both(x, dy):
        y, saved = F.dropout_forward(x, RATE, seed=1, backend=BACKEND)
        return [y, F.dropout_backward(dy, saved)]

    def torch_both(torch, x, dy):
        leaf = x.detach().requires_grad_()
        return lambda: torch.autograd.grad(torch.nn.functional.dropout(leaf, RATE, True), leaf, dy)

    small = None if checked else next(dropout(10_001, True))
    yield Case(
        f"dropout {n:.0e}, forward and backward", "elementwise", 16 * n, 0, _normal((n,), (n,)), both, torch_both,
        lambda x, dy: [mask(x), mask(dy)], small,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- convolution


def convolution(n: int, side: int, inputs: int, outputs: int, checked: bool) -> Iterator[Case]:
    x_shape, y_shape, w_shape = (n, side, side, inputs), (n, side, side, outputs), (3, 3, inputs, outputs)
    flops = 2 * n * side * side * 9 * inputs * outputs
    size = 4 * n * side * side * (inputs + outputs) + 36 * inputs * outputs
    results = {"forward": y_shape, "forward_with_statistics": y_shape, "backward_data": x_shape, "backward_weights": w_shape}
    same, scratch = (1, 1, 1, 1, 1, 1), (None, False, None)

    def ours(function):
        def call(x, weight, dy):
            be = get_backend(BACKEND)
            kernel, out = be.kernel(f"conv2d.{function.removesuffix('_with_statistics')}"), be.empty(results[function])
            if function == "forward":
                kernel(x, weight, be.zeros((outputs,)), 1.0, *same, *scratch, out, None, None, None)
            elif function == "forward_with_statistics":
                mean, m2 = be.vectors(2, outputs, np.float64)
                kernel(x, weight, be.zeros((outputs,)), 1.0, *same, *scratch, out, None, mean, m2)
                return [out, mean, m2]
            elif function == "backward_data":
                kernel(dy, weight, *same, None, None, None, out)
            else:
                kernel(x, dy, *same, None, None, out, be.empty((outputs,)))
            return [out]

        return call

    def right(function):
        def call(x, weight, dy):
            out, none = np.empty(results[function]), np.empty((0, 3, outputs))
            if function == "forward_with_statistics":
                (y,) = right("forward")(x, weight, dy)
                return [y, y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2)) * n * side * side]
            args = {
                "forward": (x, weight, np.zeros(outputs), 1.0, *same, *scratch, out, none, None, None),
                "backward_data": (dy, weight, *same, None, None, None, out),
                "backward_weights": (x, dy, *same, None, None, out, np.empty(outputs)),
            }[function]
            load(f"conv2d.{function}", "numpy")(*args)
            return [out]

        return call

    def theirs(function):
        def make(torch, x, weight, dy):
            x, dy, weight = _nchw(x), _nchw(dy), weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            if function == "forward":
                return lambda: torch.nn.functional.conv2d(x, weight, padding=1)
            if function == "forward_with_statistics":
                return lambda: torch.var_mean(torch.nn.functional.conv2d(x, weight, padding=1), (0, 2, 3))
            needed = [function == "backward_data", function == "backward_weights", False]
            return lambda: torch.ops.aten.convolution_backward(dy, x, weight, [0], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, needed)

        return make

    small = [None] * len(results) if checked else list(convolution(3, side, inputs, outputs, True))
    for i, function in enumerate(results):
        name = f"conv2d 3x3 {inputs} to {outputs} at {side}x{side}, batch {n}, {function.replace('_', ' ')}"
        make = _normal(x_shape, w_shape, y_shape)
        yield Case(name, "matmul", size, flops, make, ours(function), theirs(function), right(function), small[i])


# --------------------------------------------------------------------------- pooling, activation, loss, optimiser


def pooling(n: int, side: int, channels: int, checked: bool) -> Iterator[Case]:
    shape, out_shape = (n, side, side, channels), (n, side // 2, side // 2, channels)
    size = 4 * n * side * side * channels

    def windows(x):
        return (
            x.reshape(x.shape[0], side // 2, 2, side // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4).reshape(*x.shape[:1], *out_shape[1:], 4)
        )

    def gradient(x, dy):
        winners = np.eye(4)[windows(x).argmax(axis=-1)] * dy[..., None]
        return [winners.reshape(*dy.shape, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)]

    def backward(x, dy):
        saved = MaxPool2DSaved(x, POOL, dy.shape, get_backend(BACKEND))
        return [F.max_pool2d_backward(dy, saved)]

    def torch_backward(torch, x, dy):
        x, dy = _nchw(x), _nchw(dy)
        _, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        return lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, [2, 2], [2, 2], [0, 0], [1, 1], False, indices)

    small = [None] * 2 if checked else list(pooling(2, side, channels, True))
    name = f"max pool 2x2 {n}x{side}x{side}x{channels}"
    yield Case(
        f"{name}, forward", "exact", size * 5 // 4, 0, _normal(shape, out_shape),
        lambda x, dy: [F.max_pool2d_forward(x, 2, backend=BACKEND)[0]],
        lambda torch, x, dy: lambda: torch.nn.functional.max_pool2d(_nchw(x), 2),
        lambda x, dy: [windows(x).max(axis=-1)], small[0],
    )  # fmt: skip
    yield Case(f"{name}, backward", "exact", size * 9 // 4, 0, _normal(shape, out_shape), backward, torch_backward, gradient, small[1])


def activation(n: int, side: int, channels: int, checked: bool) -> Iterator[Case]:
    count = n * side * side * channels

    def relu(x):
        y = get_backend(BACKEND).empty(x.shape)
        load("activation.relu_forward", BACKEND)(x, y)
        return [y]

    small = None if checked else next(activation(1, 7, 3, True))
    yield Case(
        f"ReLU {count} elements, forward", "exact", 8 * count, 0, _normal((count,)), relu,
        lambda torch, x: lambda: torch.relu(x), lambda x: [np.maximum(x, 0)], small,
    )  # fmt: skip


def loss(rows: int, classes: int, checked: bool) -> Case:
    labels = np.arange(rows) % classes

    def reference(logits):
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [(e / e.sum(axis=1, keepdims=True) - np.eye(classes)[labels]) / rows]

    def theirs(torch, logits):
        leaf, target = logits.detach().requires_grad_(), torch.as_tensor(labels, device=logits.device)
        return lambda: torch.autograd.grad(torch.nn.functional.cross_entropy(leaf, target), leaf)

    return Case(
        f"softmax cross-entropy {rows}x{classes}, loss and gradient", "reduction", 8 * rows * classes, 0, _normal((rows, classes)),
        lambda logits: [losses.softmax_cross_entropy(logits, labels, backend=BACKEND).gradient], theirs, reference,
        None if checked else loss(64, classes, True),
    )  # fmt: skip


def adam(n: int, checked: bool) -> Case:
    options = (1e-3, 0.9, 0.999, 1e-8, 0.0, False, 0.1, 0.001)

    def run(param, grad, m, v):
        load("optimizer.adam", BACKEND)(param, grad, m, v, *options)
        return [param, m, v]

    def reference(param, grad, m, v):
        load("optimizer.adam", "numpy")(param, grad, m, v, *options)
        return [param, m, v]

    def theirs(torch, param, grad, m, v):
        leaf = torch.nn.Parameter(param.clone())
        leaf.grad = grad
        return torch.optim.Adam([leaf], fused=True).step

    def make(rng):
        arrays = [rng.standard_normal(n, np.float32) for _ in range(4)]
        arrays[3] **= 2
        return arrays

    return Case(f"Adam {n:.0e} parameters", "elementwise", 28 * n, 0, make, run, theirs, reference, None if checked else adam(1001, True))
