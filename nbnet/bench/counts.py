"""The rules for counting operations and bytes, for every workload.

Bytes: every necessary pass reads each of its input arrays once and writes each of its outputs once. An array that is read and
written counts twice. Data that a cache keeps between two passes still counts; data that a store fetches before overwriting it
(write-allocate) does not. The memory copy is counted in the same way: n bytes read and n written.
Operations: a multiply-add of convolution and dense counts 2; elsewhere each addition, multiplication or comparison counts 1.

Example: batch norm's forward reads x for its moments, then reads x and writes y; its backward reads dy and x for the two sums,
then reads dy and x and writes dx: 8 passes in all. The ReLU after it, scratch, and per-channel parameters cost nothing.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple


class Cost(NamedTuple):
    """The cost of one part of a workload, limited by either arithmetic or memory."""

    flops: float
    bytes: float


def conv2d(x: tuple[int, ...], outputs: int, part: str, itemsize: int, kernel: int = 3) -> Cost:
    """One direction of a convolution (N, H, W, I) to (N, H, W, outputs) with stride 1 and padding "same": the three have
    equally many multiply-adds, and read two and write one of x, y and the weights. Multiply-adds on the padding count, as is usual."""
    weights = kernel * kernel * x[-1] * outputs
    pixels = prod(x[:-1])
    assert part in ("forward", "backward_data", "backward_weights")
    return Cost(2.0 * pixels * weights, itemsize * (pixels * (x[-1] + outputs) + weights))


def convolution(x: tuple[int, ...], weight: tuple[int, ...], stride: int, itemsize: int) -> list[Cost]:
    """Forward, backward_weights, backward_data of (N, H, W, I) by a weight (KH, KW, I / groups, O), with padding that keeps the size or
    divides it by the stride: each reads two and writes one of x, y and the weights."""
    pixels = x[0] * -(-x[1] // stride) * -(-x[2] // stride)
    return [Cost(2.0 * pixels * prod(weight), itemsize * (prod(x) + pixels * weight[3] + prod(weight)))] * 3


def dense(x: tuple[int, ...], outputs: int, itemsize: int) -> list[Cost]:
    """Forward, backward_weights, backward_data of (M, I) to (M, outputs)."""
    rows, inputs = x
    return [Cost(2.0 * rows * inputs * outputs, itemsize * (rows * (inputs + outputs) + inputs * outputs))] * 3


def batchnorm(x: tuple[int, ...], itemsize: int) -> Cost:
    """Forward and backward, with ReLU: 8 passes. Operations per element: moments 4, apply 3, ReLU 1 and 1, sums 4, dx 5."""
    return Cost(18.0 * prod(x), 8.0 * itemsize * prod(x))


def elementwise(x: tuple[int, ...], itemsize: int, operations: float = 2.0) -> Cost:
    """Forward and backward of an elementwise function that saves nothing, such as dropout. Read, write; read, write."""
    return Cost(operations * prod(x), 4.0 * itemsize * prod(x))


def activation(x: tuple[int, ...], itemsize: int, operations: float = 2.0) -> Cost:
    """Forward and backward of an activation. Read x, write y; read dy and x or y, write dx."""
    return Cost(operations * prod(x), 5.0 * itemsize * prod(x))


def max_pool(x: tuple[int, ...], size: int, itemsize: int) -> Cost:
    """Forward reads x and writes y; backward reads x and dy and writes dx. One comparison per element in each."""
    return Cost(2.0 * prod(x), itemsize * prod(x) * (3 + 2 / size**2))


def mean_pool(x: tuple[int, ...], itemsize: int) -> Cost:
    """Forward reads x; backward writes dx. The means themselves are few."""
    return Cost(2.0 * prod(x), 2.0 * itemsize * prod(x))


def softmax(x: tuple[int, ...], itemsize: int) -> Cost:
    """Loss and gradient in one: logits read, gradient written. Operations per element: maximum, difference, exp (as 1), sum, product."""
    return Cost(5.0 * prod(x), 2.0 * itemsize * prod(x))


def adam(parameters: int, itemsize: int) -> Cost:
    """Reads value, gradient and two averages, writes value and averages: 7 arrays. Operations as in the formula: 12."""
    return Cost(12.0 * parameters, 7.0 * itemsize * parameters)
