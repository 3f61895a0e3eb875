"""Prediction with a trained model that does not change any more: from Python by `Predictor`, in jitted code by `compile`.

Both fold batch norm into the layers before it, leave dropout out, transform the weights of convolutions once, and turn the kernel calls of
a forward pass into one function of machine code (nbnet.runtime.tracing).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, BackendError, BuildError, ShapeError
from nbnet.folding import fold_batch_norm
from nbnet.functional import checks
from nbnet.kernels.cpu.inference import for_callers, layout, on_arrays, runner
from nbnet.layers import Sequential
from nbnet.runtime.arrays import several, take, to_float
from nbnet.runtime.backend import Backend, get_backend
from nbnet.runtime.memory import pages
from nbnet.runtime.tracing import BACKENDS, NotTraceable, trace

KEPT = 8  # programs of a Predictor; another one replaces the oldest
FEW, TRIALS = 4, 5  # rows up to which the faster backend is chosen by so many runs of both
Run = Callable[[Any, Any], None]


class Predictor:
    """The predictions of a model as it is now, prepared once. Later changes of the model do not affect it.

    The first batch of a size runs layer by layer, the second one is traced, which takes a fraction of a second, and later ones are one
    call of machine code. Any number of threads may predict at once: they share the weights, and each uses a workspace of its own.
    A model with layers that compute in Python, with several inputs or outputs, or on another backend than "serial" and "parallel",
    predicts layer by layer.

    Args:
        model: a built Sequential.
    Raises:
        BuildError: the model is not built. ArgumentError: it is not a Sequential.
    """

    def __init__(self, model: Sequential) -> None:
        self.model = fold_batch_norm(_checked(model, "Predictor"))
        self._runs: dict[tuple[int, ...], Run | None] = {}  # by shape of the batch; None: seen once
        self._traceable = not several(model.input_shape) and not several(model.output_shape)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"nb.Predictor({self.model!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy compiles programs of its own."""
        return Predictor, (self.model,)

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """The outputs for x, as model.predict gives them within rounding, batch by batch: (N, ...) in the model's dtype.

        Args:
            x: (N, ...) uint8, float32 or float64; of a model with several inputs a tuple of arrays. batch_size: rows at a time.
        Raises:
            ShapeError, DTypeError, ArgumentError: x or batch_size does not fit.
        """
        model = self.model
        run = self._runs.get(x.shape) if type(x) is np.ndarray and type(batch_size) is int else None
        if run is not None and len(x) <= batch_size and x.dtype == model.dtype and x.flags.c_contiguous:  # in every call
            y = np.empty((len(x), *model.output_shape), model.dtype)
            run(x, y)
            return y
        if not self._traceable:
            return model.predict(x, batch_size)
        x, batch_size = model.check_rows(x), checks.whole(batch_size, "batch_size")
        y = np.empty((len(x), *model.output_shape), model.dtype)
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            batch = take(x, rows)
            batch = to_float(batch, np.empty(batch.shape, model.dtype))
            run = self._run(batch.shape)
            if run is None:
                y[rows], _ = model.forward(batch)
            else:
                run(batch, y[rows])
        return y

    def _run(self, shape: tuple[int, ...]) -> Run | None:
        """The program for batches of a shape, if one was seen before."""
        with self._lock:
            known = shape in self._runs
            run = self._runs.pop(shape, None)
            if known and run is None and self._traceable:
                run = self._compiled(shape)
            self._runs[shape] = run
            if len(self._runs) > KEPT:
                del self._runs[next(iter(self._runs))]
            return run

    def _compiled(self, shape: tuple[int, ...]) -> Run | None:
        """The faster program of those that fit: for a few rows, threads may take longer to meet than one takes alone."""
        backends = {self.model.backend, get_backend("serial")} if shape[0] <= FEW else {self.model.backend}
        try:
            runs = [on_arrays(_program(self.model, shape, backend)) for backend in backends]
        except NotTraceable:
            self._traceable = False
            return None
        x, y = np.zeros(shape, self.model.dtype), np.empty((shape[0], *self.model.output_shape), self.model.dtype)
        return min(runs, key=lambda run: _seconds(run, x, y))


def compile(model: Sequential, into: bool = False) -> Any:  # noqa: A001  # nb.compile
    """A model's prediction as a jitted function, to be called in other jitted functions, inside a prange and without the GIL too.

        predict = nb.compile(model)                  # predict(x) -> y
        predict_into = nb.compile(model, into=True)  # predict_into(x, y) writes into y and allocates nothing

    It computes on the thread that calls it. The model as it is now is part of the function: later changes do not reach it, so Numba does
    not cache jitted functions that call it on disk. It cannot be pickled.

    Args:
        model: a built Sequential on "serial" or "parallel", with one input and one output, of layers that compute with kernels alone.
    Returns:
        A function of x: one example, of the model's input_shape, or a batch (N, ...) of them, C-contiguous, in the model's dtype.
    Raises:
        BuildError: the model is not built. ArgumentError: it is not a Sequential, or has a layer that computes in Python. BackendError: it
        is on another backend. ShapeError: it has several inputs or outputs.
    """
    folded: Any = fold_batch_norm(_checked(model, "compile"))
    if folded.backend.name not in BACKENDS:
        raise BackendError(f"compile got a model on {folded.backend.name!r}, expected {' or '.join(map(repr, BACKENDS))}: build it there")
    if several(folded.input_shape) or several(folded.output_shape):
        raise ShapeError("compile got a model with several inputs or outputs, expected one of each: use nb.Predictor(model)")
    try:
        run = _program(folded, (1, *folded.input_shape), get_backend("serial"))
    except NotTraceable as error:
        raise ArgumentError(f"compile got a model that computes with more than kernels ({error}): use nb.Predictor(model)") from None
    return for_callers(run, folded.input_shape, folded.output_shape, folded.dtype)[into]


def _program(model: Sequential, shape: tuple[int, ...], backend: Backend) -> Callable[[int, int], None]:
    """A jitted function (address of x, address of y) for batches of this shape.

    Raises:
        NotTraceable: the model computes with more than kernels.
    """
    program = trace(model, shape, backend)
    y = np.empty((shape[0], *model.output_shape), model.dtype)
    run = runner(program, pages(math.prod(layout(program.workspace))), y.nbytes)
    # The trace saw zeros. Another x gives other results if a layer of a user computed something without a kernel.
    x = np.random.default_rng(0).random(shape).astype(model.dtype)
    run(x.ctypes.data, y.ctypes.data)
    if not np.array_equal(y, model.forward(x)[0], equal_nan=True):
        raise NotTraceable("a replayable layer computes in Python")
    return run


def _checked(model: Any, function: str) -> Sequential:
    if not isinstance(model, Sequential):
        raise ArgumentError(f"{function} got {type(model).__name__}, expected a built Sequential: write nb.{function}(model)")
    if model.input_shape is None:
        raise BuildError(f"{function} expects a built model: call model.build(input_shape) first")
    return model


def _seconds(run: Run, x: np.ndarray, y: np.ndarray) -> float:
    """The shortest of a few runs, after one that compiles."""
    run(x, y)
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        run(x, y)
        times.append(time.perf_counter() - start)
    return min(times)
