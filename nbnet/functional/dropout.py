"""Dropout on plain arrays. The mask is a function of (seed, stream, step, element): backward recomputes it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.kernels import load
from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend, get_backend

VARIANTS = ("inverted", "vanilla", "alpha")
# -scale * alpha of SELU: the value of a saturated unit (Klambauer, Unterthiner, Mayr and Hochreiter 2017, section 3).
SELU_FLOOR = -1.7580993408473766


class DropoutSaved(NamedTuple):
    rate: float
    scale: float  # factor of the elements that are kept; of all elements when train is False
    counter: np.ndarray  # as dropout_at takes it
    noise_shape: tuple[int, ...] | None
    train: bool
    shape: tuple[int, ...]  # of x
    dtype: np.dtype
    backend: Backend


def dropout_forward(
    x: Any,
    rate: float,
    *,
    seed: int,
    step: int = 0,
    stream: int = 0,
    variant: str = "inverted",
    noise_shape: tuple[int, ...] | None = None,
    train: bool = True,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, DropoutSaved]:
    """Drop each element with probability `rate`.

    Args:
        x: any shape, float32 or float64.
        rate: the probability to DROP, 0 to 1. (Many versions of the cs231n code mean the probability of keeping.)
        seed: 0 to 2^64 - 1. step, stream: 0 to 2^32 - 1; another step or stream is another mask.
        variant: "inverted" divides what is kept by 1 - rate, so that evaluation is the identity (Srivastava et al. 2014);
            "vanilla" multiplies by 1 - rate in evaluation instead; "alpha" keeps mean 0 and variance 1 after SELU (Klambauer et al. 2017).
        noise_shape: x's shape with 1 on some axes: one decision for the whole of those axes. (N, 1, 1, C) is spatial dropout.
        train: False gives the evaluation result.
    Returns:
        y, and what dropout_backward needs: a few numbers.
    Raises:
        ArgumentError: rate, variant, seed, step or stream is out of range. ShapeError: noise_shape does not fit.
    """
    for name, value, bits in (("seed", seed, 64), ("step", step, 32), ("stream", stream, 32)):
        checks.whole(value, name, 0, (1 << bits) - 1)
    return dropout_at(x, rate, np.array([seed, stream, step], np.uint64), variant, noise_shape, train, get_backend(backend))


def dropout_at(
    x: Any,
    rate: float,
    counter: np.ndarray,
    variant: str,
    noise_shape: tuple[int, ...] | None,
    train: bool,
    be: Backend,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, DropoutSaved]:
    """dropout_forward with the counter of its random numbers in the form of the kernels: (3,) uint64, seed, stream and step; or
    `counter_of_part`, where x is some rows of a batch.

    out: an array for y, without noise_shape; it may be x.
    """
    x = checks.floats(x, "x", be=be)
    rate = check_rate(rate)
    if variant not in VARIANTS:
        raise ArgumentError(unknown("dropout variant", variant, VARIANTS))
    if noise_shape is not None:
        noise_shape = check_noise_shape(tuple(noise_shape), x.shape)
    keep = 1 - rate
    scale, shift, dropped = 1.0, 0.0, 0.0
    if variant == "inverted":
        scale = 1 / keep if train and keep > 0 else 1.0
    elif variant == "vanilla":
        scale = 1.0 if train else keep
    elif train and 0 < rate < 1:
        scale = (keep * (1 + rate * SELU_FLOOR**2)) ** -0.5
        shift = -scale * SELU_FLOOR * rate
        dropped = scale * SELU_FLOOR + shift
    saved = DropoutSaved(rate, scale, counter, noise_shape, train, x.shape, x.dtype, be)
    return _run(x, saved, shift, dropped, out), saved


def dropout_backward(dy: Any, saved: DropoutSaved) -> np.ndarray:
    """dx: dy times the factor of the elements that were kept, 0 elsewhere."""
    checks.from_training(saved)
    return _run(checks.shaped(dy, "dy", saved.shape, saved.dtype, be=saved.backend), saved, 0.0, 0.0)


def counter_of_part(row: int, shape: tuple[int, ...]) -> np.ndarray:
    """A counter, whose first three numbers are still to be written, for rows of a batch from `row` on: (5,) uint64. Such a part has the
    mask that it has in the whole batch.

    Args:
        shape: of one row.
    """
    return np.array([0, 0, 0, row * math.prod(shape) // 4, row], np.uint64)


def _elements_before(counter: np.ndarray, shape: tuple[int, ...]) -> int:
    """How many elements of the batch are before the first one of an array of this shape, which has some rows of it."""
    return int(counter[4]) * math.prod(shape[1:]) if counter.size > 4 else 0


def check_rate(rate: float) -> float:
    return checks.number(rate, "dropout rate", "the probability to drop, from 0 to 1", lambda rate: 0 <= rate <= 1)


def _run(x: np.ndarray, saved: DropoutSaved, shift: float, dropped: float, out: np.ndarray | None = None) -> np.ndarray:
    be = saved.backend
    if not saved.train or saved.rate == 0:
        if saved.scale == 1:
            return x
        y = be.empty(x.shape, x.dtype) if out is None else out
        be.kernel("array.scale")(x.reshape(-1), saved.scale, y.reshape(-1))
        return y
    random = saved.counter, round(saved.rate * 2**32)
    y = be.empty(x.shape, x.dtype) if out is None else out
    if saved.noise_shape is None:
        skipped = _elements_before(saved.counter, x.shape) % 4
        if skipped:  # a counter is of four elements: start at the first of them
            whole = be.empty((skipped + x.size,), x.dtype)
            be.run(np.ndarray.fill, whole[:skipped], 0)
            be.run(np.copyto, whole[skipped:], x.reshape(-1))
            be.kernel("dropout.apply")(whole, *random, saved.scale, shift, dropped, whole)
            be.run(np.copyto, y.reshape(-1), whole[skipped:])
            return y
        be.kernel("dropout.apply")(x.reshape(-1), *random, saved.scale, shift, dropped, y.reshape(-1))
        return y
    # The few decisions are made on the host, from the same bits as anywhere.
    shape, before = saved.noise_shape, _elements_before(saved.counter, saved.noise_shape)
    keep = np.empty(before % 4 + math.prod(shape), x.dtype)
    random = np.array([*saved.counter[:3], before // 4], np.uint64), random[1]
    load("dropout.apply", "numpy")(np.ones_like(keep), *random, 1.0, 0.0, 0.0, keep)
    keep = keep[before % 4 :].reshape(shape)
    factors = keep * x.dtype.type(saved.scale)
    terms = keep * x.dtype.type(shift) + (1 - keep) * x.dtype.type(dropped) if shift or dropped else None
    if on_device(x):
        _by_shared_decisions(x, factors, terms, y, be)
        return y
    np.multiply(x, factors, out=y)
    if terms is not None:
        y += terms
    return y


def _by_shared_decisions(x: Any, factors: np.ndarray, terms: np.ndarray | None, y: Any, be: Backend) -> None:
    """y = x * factors + terms on the GPU. A factor is uploaded once for the longest run of axes that share it."""
    start, stop = _longest_run(factors.shape, x.shape)
    shape = math.prod(x.shape[:start]), math.prod(x.shape[start:stop]), math.prod(x.shape[stop:])

    def uploaded(numbers: np.ndarray) -> Any:
        numbers = numbers.reshape((*factors.shape[:start], *factors.shape[stop:]))
        return be.place(np.broadcast_to(numbers, (*x.shape[:start], *x.shape[stop:]))).reshape(shape[0], shape[2])

    be.kernel("array.multiply_rows")(x.reshape(shape), uploaded(factors), y.reshape(shape))
    if terms is not None:
        added = be.empty(shape, x.dtype)
        added[:] = 1
        be.kernel("array.multiply_rows")(added, uploaded(terms), added)
        be.kernel("array.add")(y.reshape(-1), added.reshape(-1), y.reshape(-1))


def _longest_run(noise_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    """The first axis and the end of the neighbouring axes of size 1 in noise_shape that have the most elements in shape."""
    runs = [(i, j) for j in range(len(shape) + 1) for i in range(j + 1) if all(n == 1 for n in noise_shape[i:j])]
    return max(runs, key=lambda run: math.prod(shape[slice(*run)]))


def check_noise_shape(noise_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(noise_shape) != len(shape) or any(n not in (1, s) for n, s in zip(noise_shape, shape)):
        raise ShapeError(
            f"noise_shape {noise_shape} does not fit x of shape {shape}: expected its sizes, or 1 on the axes that share a decision"
        )
    return noise_shape
