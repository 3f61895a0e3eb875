"""Training steps on CUDA as recorded lists of launches, each of which becomes one CUDA graph: `Trainer(graph=True)`.

The second batch of a shape is recorded while it runs (nbnet.kernels.gpu.launches). From then on the layers' Python no longer runs: the host
checks the targets, computes the numbers of the step (learning rate, Adam's corrections, the counters of dropout), uploads them
with the batch, starts the graph, and waits for the loss at the end. The capture has never run on a GPU so far; that a recorded list
gives the bits of ordinary steps is tested without one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, BackendError, ExtraError
from nbnet.losses.base import Started, count_rows, divisor
from nbnet.losses.base import start as begin
from nbnet.metrics import Metric
from nbnet.optimizers import Optimizer
from nbnet.runtime.arrays import each, on_device, to_float
from nbnet.runtime.commit import Call, commit
from nbnet.runtime.recording import Pass
from nbnet.runtime.replay import Replay, unrecorded
from nbnet.training.epoch import Batch
from nbnet.training.gradients import Found, clip

INSTEAD = "leave it out, or use graph=False"


def check(trainer: Any) -> None:
    """Check that a trainer's steps can become graphs, as far as is known before the first one.

    Raises:
        ArgumentError: the backend is not cuda, or an option needs the host within a step. ExtraError: cuda.core is not installed.
    """
    name = trainer.model.backend.name
    if name != "cuda":
        raise ArgumentError(f"graph=True is for backend 'cuda', got a model on {name!r}: {INSTEAD}")
    if trainer.accumulate != 1:
        raise ArgumentError(f"graph=True with accumulate={trainer.accumulate}, expected 1: {INSTEAD}")
    _check_core()


def _check_core() -> None:
    try:
        import cuda.core  # noqa: F401
    except ImportError as error:
        raise ExtraError(f"graph=True needs cuda.core ({error}): pip install 'nbnet[cuda]'") from None


def capture(recording: Any) -> Callable[[], None]:
    """What launches recorded work as one CUDA graph. It has never run on a GPU so far."""
    from cuda.core import Device, Stream

    from nbnet.kernels.gpu.launches import stream

    gpu = Device()
    gpu.set_current()
    builder = gpu.create_graph_builder()
    builder.begin_building()
    recording.play(builder.stream)
    graph = builder.end_building().complete()
    builder.close()
    return partial(graph.launch, Stream.from_handle(int(stream().handle)))


class Graphs:
    """The recorded steps of a trainer."""

    def __init__(self) -> None:
        self.passes = Replay(True, record=RecordedStep, backends=("cuda",))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy makes graphs of its own."""
        return Graphs, ()

    def launched(
        self, trainer: Any, batch: Batch, lr: float, metrics: tuple[Metric, ...], waiting: list[Call]
    ) -> tuple[Found, list[Call]] | None:
        """What nbnet.training.loop.launched does, recorded or played; None: the batch is to run layer by layer.

        Raises:
            ArgumentError, BackendError: something in the step needs the host.
        """
        from nbnet.kernels.gpu.launches import Changed

        _check_step(trainer)
        x, steps = batch.x, trainer.optimizer.steps
        step = self.passes.of(trainer.model, x, (id(trainer.loss), batch.weights is None, trainer.clip_norm))
        if not isinstance(step, RecordedStep):
            return None
        if step.complete:
            try:
                return step.play(trainer, batch, lr, metrics, waiting), []
            except Changed:  # for example another optimiser: nothing has been launched
                trainer.optimizer.steps = steps
                step.forget()
        return step.record(trainer, batch, lr, metrics, waiting), []


def _check_step(trainer: Any) -> None:
    optimizer = trainer.optimizer
    by_kernels = getattr(optimizer.step, "__func__", None) is Optimizer.step and type(optimizer)._update is Optimizer._update
    reasons = {
        "a regularizer": any(param.regularizer is not None for param in trainer.model.params.values()),
        f"the optimiser {type(optimizer).__name__}": not by_kernels,
    }
    for reason, found in reasons.items():
        if found:
            raise ArgumentError(f"graph=True with {reason}, which the host computes within a step: {INSTEAD}")


class RecordedStep:
    """A training step for batches of one shape: forward, loss, backward and update.

    Args:
        model: whose parameters and buffers it changes. shape: of x.
    """

    def __init__(self, model: Any, shape: Any) -> None:
        if (layer := unrecorded(model)) is not None:
            raise ArgumentError(f"graph=True with layer {layer.name}, whose Python has to run in every step: use graph=False")
        self.model = model
        self.x = each(lambda one: model.backend.empty(one, model.dtype), shape)
        self.forget()

    def forget(self) -> None:
        """Start again."""
        from nbnet.kernels.gpu.launches import Recording

        self.recording = Recording()
        self._start: Callable[[], None] | None = None

    @property
    def complete(self) -> bool:
        return self._start is not None

    def record(self, trainer: Any, batch: Batch, lr: float, metrics: tuple[Metric, ...], waiting: list[Call]) -> Found:
        """Run the step, and record it."""
        each(self._take, self.x, batch.x)
        found = Found(trainer, count_rows(trainer.loss, batch.y), waiting, metrics)
        with self.recording:
            one = Pass(self.model)
            self.prediction = one.forward(self.x)
            started = self._begin_loss(trainer, batch)
            if not started.arrays:
                raise BackendError(f"graph=True with the loss {trainer.loss!r}, which the host computes: use graph=False")
            found.add(started, batch.x, self.prediction, batch.y, batch.weights)
            self.gate, self.arrays = found.gate, started.arrays
            one.backward(started.gradient)
            if trainer.clip_norm is not None:
                clip(self.model.params.values(), trainer.clip_norm, self.model.backend)
            self._update(trainer, lr)
        self._start = capture(self.recording)
        found.read()
        return found

    def play(self, trainer: Any, batch: Batch, lr: float, metrics: tuple[Metric, ...], waiting: list[Call]) -> Found:
        """Run the step as it was recorded.

        Raises:
            Changed: it would make other launches; nothing has been launched.
        """
        from nbnet.kernels.gpu import transfers
        from nbnet.kernels.gpu.launches import stream

        assert self._start is not None
        started = self._begin_loss(trainer, batch)
        self._update(trainer, lr)
        for function, args in self.recording.host_calls:
            function(*args)
        each(self._take, self.x, batch.x)
        self.recording.upload(lambda packed, flat: transfers.staging().upload(packed, flat, stream()))
        self._start()
        found = Found(trainer, count_rows(trainer.loss, batch.y), waiting, metrics)
        found.add_launched(self.gate, started.finish, self.arrays, batch.x, self.prediction, batch.y, batch.weights)
        found.read()
        return found

    def _begin_loss(self, trainer: Any, batch: Batch) -> Started:
        loss, weights = trainer.loss, batch.weights
        options: dict[str, Any] = {"rows": divisor(loss, count_rows(loss, batch.y)), "backend": self.model.backend}
        with self.recording.section("the loss"):
            return begin(loss, self.prediction, batch.y, **options, **({} if weights is None else {"sample_weight": weights}))

    def _update(self, trainer: Any, lr: float) -> None:
        calls = trainer.optimizer.calls(self.model.params, self.model.backend, lr)
        with self.recording.section("the optimiser", strict=True), self.gate.before():
            commit(calls)

    def _take(self, target: Any, x: Any) -> None:
        """Write a batch where the step reads it."""
        if not on_device(x):
            x = np.ascontiguousarray(x)
            x = to_float(x, self.model.backend.on_host(x.shape, self.model.dtype)) if x.dtype != target.dtype else x
        target[:] = x
