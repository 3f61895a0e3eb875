"""The gradients of a batch, clipping them, and locating the source of NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from nbnet.errors import NonFiniteError
from nbnet.layers import Param, Sequential
from nbnet.losses.base import Started, count_rows, divisor
from nbnet.losses.base import start as begin
from nbnet.metrics import Metric
from nbnet.optimizers.matrices import squares
from nbnet.runtime.arrays import first, take
from nbnet.runtime.backend import Backend, CudaBackend
from nbnet.runtime.commit import Call, commit
from nbnet.runtime.compile_ahead import compile_ahead
from nbnet.training.epoch import Sums, parts
from nbnet.training.evaluation import copied, measure


class Found:
    """What the losses of a batch add up, part by part, and what the metrics measure in it. On CUDA it may still be computed: `gate` then
    keeps a step from changing anything if a loss is not finite.

    Args:
        counted: rows that the loss counts. waiting: of the model before the step. metrics: those of the epoch so far.
    Attributes:
        waits: whether `finish` waits for the GPU.
    """

    def __init__(self, trainer: Any, counted: int, waiting: list[Call], metrics: Collection[Metric]) -> None:
        self.trainer, self.waiting, self.metrics, self.waits = trainer, waiting, metrics, False
        self.gate: Any = None
        self._sums = Sums(counted=counted)
        self._parts: list[tuple[Any, ...]] = []  # how to finish it, its arrays, x
        self._rows: list[tuple[Any, ...]] = []  # prediction, target and weights
        self._reading: Any = None

    def add(self, started: Started, x: Any, *rows: Any) -> None:
        """Add a part.

        Args:
            rows: its prediction, target and weights.
        Raises:
            NonFiniteError: its loss is known, and not finite.
        """
        if self.metrics:
            self._rows.append(rows)
        backend = self.trainer.model.backend
        if backend.name == "cuda" and started.arrays:
            self.gate, self.waits = self.gate or backend.gate(), True
            for array in started.arrays:
                if array.dtype == np.float64:
                    self.gate.check(array)
            self._parts.append((started.finish, started.arrays, x))
        else:
            self._sums = self._plus(self._sums, started.finish(backend.host(*started.arrays)), x)

    def add_launched(self, gate: Any, finish: Callable[..., tuple[float, int | None]], arrays: Any, x: Any, *rows: Any) -> None:
        """Add a part whose loss, and whose gate, are launched already.

        Args:
            finish, arrays: as in Started. rows: its prediction, target and weights.
        """
        self.gate, self.waits = gate, True
        self._parts.append((finish, arrays, x))
        if self.metrics:
            self._rows.append(rows)

    def read(self) -> None:
        """Start to copy what `finish` needs, without waiting for it."""
        if self.waits and self._reading is None:
            arrays = [array for _, part, _ in self._parts for array in part]
            self._reading = self.trainer.model.backend.device.Download([*arrays, self.gate.state])

    def finish(self) -> tuple[Sums, tuple[Metric, ...]]:
        """The sums, and new metrics. It may be called again.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        sums, metrics = self._sums, copied(self.metrics) if self.metrics else ()
        if self.waits:
            self.read()
            *arrays, is_open = self._reading.arrived()
            for finish, of_part, x in self._parts:
                own, arrays = arrays[: len(of_part)], arrays[len(of_part) :]
                sums = self._plus(sums, finish(own), x)
            if not is_open[0]:
                raise self._not_finite(sums, self._parts[-1][2])
        for rows in self._rows:
            measure(metrics, self.trainer.loss, *rows)
        return sums, metrics

    def _plus(self, sums: Sums, found: tuple[float, int | None], x: Any) -> Sums:
        sums = sums.plus(*found)
        if not math.isfinite(sums.loss):
            raise self._not_finite(sums, x)
        return sums

    def _not_finite(self, sums: Sums, x: Any) -> NonFiniteError:
        commit(self.waiting)  # the explanation runs the layers again
        return NonFiniteError(f"the loss is {sums.loss} at step {self.trainer.step}: {explain_not_finite(self.trainer.model, x)}")


class Known:
    """The same, where nothing is waited for."""

    waits = False
    gate: Any = None

    def __init__(self, sums: Sums, metrics: Collection[Metric]) -> None:
        self.sums, self.metrics = sums, tuple(metrics)

    def read(self) -> None:
        """There is nothing to copy."""

    def finish(self) -> tuple[Sums, tuple[Metric, ...]]:
        return self.sums, self.metrics


def gradients(
    trainer: Any, x: Any, y: Any, weights: Any, metrics: Collection[Metric], params: Collection[Param], waiting: list[Call]
) -> Found:
    """Write the gradients of the batch into the parameters, summed over its parts.

    metrics: of the epoch so far. waiting: of the model before the step.
    """
    model, backend, loss = trainer.model, trainer.model.backend, trainer.loss
    rows, counted = len(first(x)), count_rows(loss, y)
    options: dict[str, Any] = {"rows": divisor(loss, counted), "backend": backend}
    found = Found(trainer, counted, waiting, metrics)
    adding = Adding(params, backend) if trainer.accumulate > 1 else None
    for start, stop in parts(rows, trainer.accumulate):
        part = slice(start, stop)
        images, targets = take(x, part), take(y, part)
        if trainer._compiled_for is not model:
            compile_ahead(model, stop - start)
            trainer._compiled_for = model
        one = trainer._passes.of(model, images)
        prediction = one.forward(images)
        if weights is not None:
            options["sample_weight"] = weights[part]
        started = begin(loss, prediction, targets, **options)
        found.add(started, images, prediction, targets, options.get("sample_weight"))
        one.backward(started.gradient)
        if adding is not None:
            adding.add(stop - start < rows)
    if adding is not None:
        adding.finish()
    return found


class Adding:
    """Adds up the gradients of parts of a batch."""

    def __init__(self, params: Collection[Param], backend: Backend) -> None:
        self.params, self.backend = params, backend
        self.sums: list[Any] = []

    def add(self, is_part: bool) -> None:
        """Add the gradients as they are now. is_part: False if they are of the whole batch."""
        if is_part:
            self.sums = self.sums or [self.backend.zeros(p.grad.shape, p.grad.dtype) for p in self.params]
            for s, p in zip(self.sums, self.params):
                self.backend.kernel("array.add")(s.reshape(-1), p.grad.reshape(-1), s.reshape(-1))

    def finish(self) -> None:
        """Let the gradients be the sums."""
        for param, value in zip(self.params, self.sums):
            param.grad[:] = value


def clip(params: Iterable[Param], limit: float, backend: Backend) -> None:
    """Scale the gradients of trainable parameters so that their global L2 norm is at most `limit`."""
    grads = [param.grad.reshape(-1) for param in params if param.trainable]
    if isinstance(backend, CudaBackend):
        backend.clip(grads, limit)
        return
    norm = math.sqrt(sum(squares(backend, *grads)))
    if norm > limit:
        for grad in grads:
            backend.kernel("array.scale")(grad, limit / norm, grad)


def explain_not_finite(model: Sequential, x: Any) -> str:
    """Which layer is the first to give NaN or infinity for this batch, and how to fix it."""
    hint = "lower the learning rate, or set clip_norm"
    y: Any = model.as_input(x)
    for layer in model.layers:
        if not all(np.isfinite(np.asarray(param.value)).all() for param in layer.params.values()):
            return f"the parameters of layer {layer.name} are not finite; {hint}"
        y, _ = layer.forward(y)
        if not all(np.isfinite(np.asarray(output)).all() for output in (y if type(y) is tuple else (y,))):
            return f"layer {layer.name} gives NaN or infinity; {hint}"
    return f"the outputs of all layers are finite, but the loss overflows; {hint}"
