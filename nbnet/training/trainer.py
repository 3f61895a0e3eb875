"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet import losses, schedules
from nbnet.errors import ArgumentError, BuildError, NbnetError, NonFiniteError, ShapeError
from nbnet.functional import checks
from nbnet.kernels import chunks
from nbnet.layers import Param, Sequential
from nbnet.optimizers import Optimizer
from nbnet.preprocessing import check_arrays, permutation, to_float
from nbnet.runtime.replay import Passes
from nbnet.training import checkpoint
from nbnet.training.callbacks import Callback
from nbnet.training.progress import epoch_bar


class Position(NamedTuple):
    """Where an epoch stands, so that a run can stop and resume within it."""

    batches: int = 0
    rows: int = 0
    loss: float = 0.0
    correct: int | None = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0
    data_rows: int = 0  # of the data set, and
    batch_size: int = 0  # what it is cut into: both must be the same when the epoch goes on


class Trainer:
    """Trains a model: batches, loss, gradients, optimiser, schedule, checkpoints.

    Args:
        model: a built Sequential.
        loss: "softmax_cross_entropy", "mean_squared_error", "sum_squared_error", or a function as in nbnet.losses.
        optimizer: nb.SGD, RMSProp, Adam or AdamW.
        schedule: "constant", "cosine", "step", "one_cycle", "warm_up", or a function of progress (0 to 1) whose value multiplies
            the optimiser's lr. It applies in `fit`, which knows the number of steps.
        clip_norm: gradients are scaled down so that their global L2 norm is at most this   (Pascanu, Mikolov and Bengio 2013).
        accumulate: each batch is run in this many parts and their gradients are added: the same step in less memory, except
            that batch normalisation sees the statistics of a part.
        seed: of the shuffling.
    Attributes: step (optimiser steps done), epoch (epochs done), history (dict of lists), stop_reason.
    """

    def __init__(
        self,
        model: Sequential,
        loss: Any = "softmax_cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        schedule: Any = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        if model.input_shape is None:
            raise BuildError("the model is not built yet: call model.build(input_shape) before Trainer(model)")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"optimizer={optimizer!r}: wanted an optimiser such as nb.Adam(1e-3)")
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError(f"clip_norm={clip_norm!r}: wanted a number above 0, or None")
        self.model = model
        self.loss = losses.get(loss)
        self.optimizer = optimizer
        self.schedule = schedules.get(schedule)
        self.clip_norm = clip_norm
        self.accumulate = checks.whole(accumulate, "accumulate")
        self.seed = seed
        self.step = 0
        self.epoch = 0
        self.history: dict[str, list[float]] = {}
        self.position = Position()
        self.stop_reason: str | None = None
        self._passes = Passes()

    # ------------------------------------------------------------------------------------------------ training

    def fit(
        self,
        data: tuple[Any, Any],
        epochs: int,
        batch_size: int = 64,
        validation: tuple[Any, Any] | None = None,
        callbacks: Iterable[Callback] = (),
        progress: bool | None = None,
    ) -> dict[str, list[float]]:
        """Train until `epochs` epochs are done, counted from the start of the run: after restoring epoch 3, epochs=6 runs 3 more.

        Args:
            data: (x, y): x (N, ...) uint8 (scaled to [0, 1] batch by batch) or float; y (N,) labels, or targets.
            batch_size: a last batch of one row joins the one before it, since it has no variance to normalise by.
            validation: (x, y) to evaluate after each epoch.
            callbacks: objects with on_batch_end(trainer) and on_epoch_end(trainer).
            progress: whether to draw a progress bar; None draws one on a terminal.
        Returns:
            history: loss, accuracy (classification), val_loss, val_accuracy (with validation), lr, seconds: one value an epoch.
        Raises:
            DataError, ShapeError, DTypeError, ArgumentError: the data or an option does not fit; nothing has changed.
            NonFiniteError: NaN or infinity in the data or the loss; parameters and buffers are as before that step.
        """
        x, y = self._check_data(data, "data")
        if validation is not None:
            validation = self._check_data(validation, "validation")
        epochs, batch_size = checks.whole(epochs, "epochs"), checks.whole(batch_size, "batch_size")
        if self.position.batches and (self.position.data_rows, self.position.batch_size) != (len(x), batch_size):
            was = self.position
            raise ArgumentError(
                f"this run stopped within an epoch of {was.data_rows} rows in batches of {was.batch_size}: it cannot go on "
                f"with {len(x)} rows in batches of {batch_size}; give the same data and batch_size"
            )
        self.stop_reason = None
        callbacks = list(callbacks)
        while self.epoch < epochs and self.stop_reason is None:
            if self._run_epoch(x, y, epochs, batch_size, callbacks, progress):
                self._close_epoch(validation)
                for callback in callbacks:
                    callback.on_epoch_end(self)
        return self.history

    def _run_epoch(self, x, y, epochs: int, batch_size: int, callbacks: list[Callback], progress: bool | None) -> bool:
        """Run the rest of the current epoch. Returns False when `stop` ended it before its last batch."""
        starts = _batch_starts(len(x), batch_size)
        last_step = max(1, epochs * (len(starts) - 1) - 1)
        order = permutation(len(x), self.seed, self.epoch)
        with epoch_bar(self.epoch + 1, epochs, len(x), self.position.rows, progress) as bar:
            began = time.perf_counter() - self.position.seconds
            batches = [order[start:stop] for start, stop in pairwise(starts)][self.position.batches :]
            images = self._arriving(x, batches)
            for batch, rows in enumerate(batches, start=self.position.batches):
                lr = self.optimizer.lr * self.schedule(min(1.0, self.step / last_step))
                loss, correct = self._train_step(next(images), y[rows], lr)
                was = self.position
                self.position = Position(
                    batch + 1,
                    was.rows + len(rows),
                    was.loss + loss,
                    _add(was.correct, correct),
                    lr,
                    time.perf_counter() - began,
                    len(x),
                    batch_size,
                )
                bar.update(self.position.rows, _metrics(self.position.loss, self.position.correct, self.position.rows))
                for callback in callbacks:
                    callback.on_batch_end(self)
                if self.stop_reason is not None and batch + 2 < len(starts):
                    return False
        return True

    def _close_epoch(self, validation: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Add the row of a complete epoch to the history; a column that this row or an earlier one lacks gets NaN there."""
        done = self.position
        row = _metrics(done.loss, done.correct, done.rows)
        if validation is not None:
            row |= {f"val_{key}": value for key, value in self.evaluate(*validation).items()}
        row |= {"lr": done.lr, "seconds": done.seconds}
        for key in [*row, *(self.history.keys() - row.keys())]:
            self.history.setdefault(key, [math.nan] * self.epoch).append(row.get(key, math.nan))
        self.epoch += 1
        self.position = Position()

    def train_batch(self, x, y) -> dict[str, float]:
        """One optimiser step on one batch, at the optimiser's lr. Returns {"loss": ..., "accuracy": ...} (accuracy for classification)."""
        x, y = self._check_data((x, y), "batch")
        loss, correct = self._train_step(x, y, self.optimizer.lr)
        return _metrics(loss, correct, len(x))

    def _train_step(self, x: np.ndarray, y: np.ndarray, lr: float) -> tuple[float, int | None]:
        """Forward, loss, backward, update. Returns the sum of the rows' losses and the number of correct rows."""
        params, buffers = self.model.params, self.model.buffers
        before = [array.copy() for array in buffers.values()]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a run that blows up is told by its loss, in one line
                total, correct = self._gradients(x, y, list(params.values()))
        except Exception:
            self.model.discard_updates()
            self._passes.clear()
            for array, old in zip(buffers.values(), before):
                array[:] = old
            raise
        for param in params.values():
            if param.regularizer is not None:
                param.grad[:] = np.asarray(param.grad) + param.regularizer(np.asarray(param.value))
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        self.optimizer.step(params, self.model.backend, lr)
        self.step += 1
        return total, correct

    def _gradients(self, x: np.ndarray, y: np.ndarray, params: list[Param]) -> tuple[float, int | None]:
        """Leave the gradients of the batch in the parameters, from one part of it after the other."""
        parts = min(self.accumulate, len(x))
        total = 0.0
        sums: list[Any] = []
        correct: int | None = 0
        for part in range(parts):
            start, stop = chunks.bounds(part, parts, len(x))
            images = x[start:stop]
            one = self._passes.of(self.model, images)
            prediction = one.forward(images)
            result = self.loss(prediction, y[start:stop], rows=len(x), backend=self.model.backend)
            total += result.total
            correct = _add(correct, result.correct)
            if not math.isfinite(total):
                self.model.discard_updates()
                raise NonFiniteError(f"the loss is {total} at step {self.step}: {self._first_bad(images)}")
            one.backward(result.gradient)
            if parts > 1:
                sums = sums or [self.model.backend.zeros(p.grad.shape, p.grad.dtype) for p in params]
                for s, p in zip(sums, params):
                    self.model.backend.kernel("array.add")(s.reshape(-1), p.grad.reshape(-1), s.reshape(-1))
        for param, value in zip(params, sums):
            param.grad[:] = value
        return total, correct

    def _clip(self, limit: float) -> None:
        grads = [param.grad for param in self.model.params.values() if param.trainable]
        be = self.model.backend
        totals = [be.empty((1,), np.float64) for _ in grads]
        for grad, total in zip(grads, totals):
            be.kernel("array.squares")(grad.reshape(-1), total)
        norm = math.sqrt(sum(float(total[0]) for total in be.host(*totals)))
        if norm > limit:
            for grad in grads:
                be.kernel("array.scale")(grad.reshape(-1), limit / norm, grad.reshape(-1))

    def stop(self, reason: str) -> None:
        """End `fit` after the current batch; for callbacks and signal handlers."""
        self.stop_reason = reason

    # ---------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, x, y, batch_size: int = 256) -> dict[str, float]:
        """Loss and accuracy on moving statistics: {"loss": ..., "accuracy": ...} (accuracy for classification)."""
        batch_size = checks.whole(batch_size, "batch_size")
        x, y = self._check_data((x, y), "evaluation data")
        self._passes.clear()  # so that there is no memory for training beside that for evaluation
        total: float = 0.0
        correct: int | None = 0
        for start in range(0, len(x), batch_size):
            batch = slice(start, start + batch_size)
            prediction, _ = self.model.forward(x[batch])
            result = self.loss(prediction, y[batch], backend=self.model.backend)
            total += result.total
            correct = _add(correct, result.correct)
        return _metrics(total, correct, len(x))

    # --------------------------------------------------------------------------------------------- checkpoints

    def save(self, path: str | Path) -> None:
        """Write the whole run to a safetensors file: parameters, buffers, optimiser state, step, position, history, seeds.

        Raises:
            CheckpointError: it cannot be written; an older file there is untouched.
        """
        checkpoint.save(self, path)

    def restore(self, path: str | Path) -> None:
        """Continue a saved run, bit for bit. Make the model, optimiser and trainer as they were made first; then restore.

        Raises:
            CheckpointError: the file cannot be read or belongs to another model or optimiser; nothing has changed.
        """
        checkpoint.restore(self, path)

    # ------------------------------------------------------------------------------------------------- helpers

    def _check_data(self, data: tuple[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ArgumentError(f"{name}: wanted a pair (x, y) of arrays, got {type(data).__name__}")
        classes = self.model.output_shape[-1] if self.loss is losses.softmax_cross_entropy else None
        try:
            x, y = check_arrays(*data, num_classes=classes)
        except NbnetError as error:
            raise type(error)(f"{name}: {error}") from None
        shape = self.model.input_shape or ()
        if x.shape[1:] != shape:
            wanted = ", ".join(map(str, shape))
            mend = checks.mend_of_shape(x.shape, shape)
            raise ShapeError(f"{name}: x has shape {x.shape}, but the model was built for (N, {wanted}){mend}")
        targets = (len(x), *self.model.output_shape)
        fits = y.shape == targets or math.prod(y.shape) == math.prod(targets) == len(x)
        if self.loss in (losses.mean_squared_error, losses.sum_squared_error) and not fits:
            raise ShapeError(f"{name}: targets have shape {y.shape}, wanted {targets}: one value an output")
        return x if x.dtype == np.uint8 else x.astype(self.model.dtype, copy=False), y

    def _take(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The given rows of x, on recycled memory."""
        out = self.model.backend.on_host((len(rows), *x.shape[1:]), x.dtype)
        return np.take(x, rows, axis=0, out=out, mode="clip")

    def _arriving(self, x: np.ndarray, batches: Iterable[np.ndarray]) -> Iterator[Any]:
        """The rows of x of each batch; on a GPU, the next ones are on their way while these are computed with."""
        be = self.model.backend
        if be.name != "cuda":
            yield from (self._take(x, rows) for rows in batches)
            return
        from nbnet.kernels.gpu.device import Upload

        coming = None
        for rows in batches:
            taken = self._take(x, rows)
            if taken.dtype == np.uint8:
                taken = to_float(taken, be.on_host(taken.shape, self.model.dtype))
            following = Upload(taken)
            if coming is not None:
                yield coming.arrived()
            coming = following
        if coming is not None:
            yield coming.arrived()

    def _first_bad(self, x: np.ndarray) -> str:
        """Which layer first gives NaN or infinity for this batch."""
        y = self.model.as_input(x)
        for layer in self.model.layers:
            if not all(np.isfinite(np.asarray(param.value)).all() for param in layer.params.values()):
                return f"the parameters of layer {layer.name} are not finite; lower the learning rate, or set clip_norm"
            y, _ = layer.forward(y)
            if not np.isfinite(np.asarray(y)).all():
                return f"layer {layer.name} gives NaN or infinity; lower the learning rate, or set clip_norm"
        return "all layers are finite, the loss itself overflows; lower the learning rate, or set clip_norm"


def _batch_starts(rows: int, batch_size: int) -> list[int]:
    """Where batches start, and the end of the last: a last batch of one row is joined to the one before it."""
    starts = list(range(0, rows, batch_size))
    if len(starts) > 1 and rows - starts[-1] == 1:
        starts.pop()
    return [*starts, rows]


def _add(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _metrics(loss: float, correct: int | None, rows: int) -> dict[str, float]:
    metrics = {"loss": loss / rows}
    if correct is not None:
        metrics["accuracy"] = correct / rows
    return metrics
