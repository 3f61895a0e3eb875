"""The gradients of a batch, clipping them, and locating the source of NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from nbnet.errors import NonFiniteError
from nbnet.layers import Param, Sequential
from nbnet.losses.base import check_result, count_rows, divisor
from nbnet.metrics import Metric
from nbnet.optimizers.matrices import squares
from nbnet.runtime.arrays import first, take
from nbnet.runtime.backend import Backend
from nbnet.runtime.commit import Call, commit
from nbnet.runtime.compile_ahead import compile_ahead
from nbnet.training.epoch import Sums, parts
from nbnet.training.evaluation import measure


def gradients(
    trainer: Any, x: Any, y: Any, weights: Any, metrics: Collection[Metric], params: Collection[Param], waiting: list[Call]
) -> Sums:
    """Write the gradients of the batch into the parameters, summed over its parts, and update the metrics.

    waiting: of the model before the step.
    """
    model, backend, loss = trainer.model, trainer.model.backend, trainer.loss
    rows, counted = len(first(x)), count_rows(loss, y)
    options, found = {"rows": divisor(loss, counted), "backend": backend}, Sums(counted=counted)
    adding = Adding(params, backend) if trainer.accumulate > 1 else None
    for start, stop in parts(rows, trainer.accumulate):
        part = slice(start, stop)
        images = take(x, part)
        if trainer._compiled_for is not model:
            compile_ahead(model, stop - start)
            trainer._compiled_for = model
        one = trainer._passes.of(model, images)
        prediction = one.forward(images)
        if weights is not None:
            options["sample_weight"] = weights[part]
        result = check_result(loss(prediction, take(y, part), **options), prediction, loss)
        found = found.plus(result.total, result.correct)
        if metrics:
            measure(metrics, loss, prediction, take(y, part), options.get("sample_weight"))
        if not math.isfinite(found.loss):
            commit(waiting)  # the explanation runs the layers again
            raise NonFiniteError(f"the loss is {found.loss} at step {trainer.step}: {explain_not_finite(model, images)}")
        one.backward(result.gradient)
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
