"""Recordings: the kernel calls of one forward and one backward pass over batches of one shape.

A recorder notes every call and keeps the arrays where they are. A stage that cannot be recorded runs live: its forward and backward are
themselves calls of the recording.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nbnet.errors import DTypeError, ShapeError
from nbnet.kernels.cpu.packed import Playback
from nbnet.runtime.arrays import each, to_float
from nbnet.runtime.backend import Backend, channelwise_kernel
from nbnet.runtime.memory import Arena
from nbnet.runtime.stage import Stage, can_replay

# --------------------------------------------------------------------------------------------- one pass, layer by layer


class Pass:
    """Forward and backward of one batch, layer by layer."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, x: Any) -> Any:
        """The prediction for x."""
        prediction, tape = self.model.forward(x, train=True)
        self.tape = list(tape)
        return prediction

    def backward(self, gradient: Any) -> None:
        """Write the gradients of the parameters, from the gradient of the prediction. The tape is freed on the way."""
        self.model.backward(gradient, self.tape, need_dx=False)
        self.model.apply_updates()


# ------------------------------------------------------------------------------------------------------------ recording


class Recorder:
    """A backend around another one that notes every call in `calls`. Its arrays stay where they are as long as it lives."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.threads = backend.name, backend.threads
        self.backend = backend
        self.arena = Arena(backend.pool)
        self.empty = self.on_host = self.arena.empty
        self.vectors, self.scratch, self.place, self.host = backend.vectors, backend.scratch, backend.place, backend.host
        self.no_bias = backend.no_bias  # it never changes, so no call has to make it
        self.upload, self.synchronize = backend.upload, backend.synchronize
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def kernel(self, op: str) -> Callable[..., Any]:
        return partial(self.run, self.backend.kernel(op))

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)
        self.note(function, *args)

    def note(self, function: Callable[..., Any], *args: Any) -> None:
        """Let replays call this function with these arrays. It is not called now."""
        kept = tuple([self.arena.alias(arg) if type(arg) is np.ndarray else self._aliases(arg) for arg in args])
        self.calls.append((function, kept))

    def _aliases(self, arg: Any) -> Any:
        """An argument that is no array, but may be a tuple of arrays."""
        if type(arg) is not tuple or not arg or type(arg[0]) is not np.ndarray:
            return arg
        return tuple([self.arena.alias(array) for array in arg])

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = self.empty(shape, dtype)
        self.run(np.ndarray.fill, array, 0)
        return array

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        self.run(channelwise_kernel(function, outputs, args, clamp), *outputs, *args)

    def take_calls(self) -> Playback:
        """The calls so far; the next ones start a new list."""
        calls, self.calls = self.calls, []
        return Playback(calls)


class Live(Stage):
    """In a recording, a stage that cannot be recorded: its forward and backward are calls of the recording, and run each time.

    It works on copies of x and dy, which it may keep: the recording uses its own arrays again.
    """

    def __init__(self, stage: Stage, recorder: Recorder) -> None:
        self.stage, self.recorder = stage, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        call = LiveCall(self.stage)
        result = call.forward(x)
        y = each(self._copy, result)
        self.recorder.note(call.forward_into, x, y)
        return y, call

    def backward(self, dy: Any, saved: LiveCall, need_dx: bool = True) -> Any:
        result, dx = saved.backward(dy, need_dx), None
        if result is not None and need_dx:
            dx = each(self._copy, result)
        self.recorder.note(saved.backward_into, dy, dx)
        return dx

    def _copy(self, result: Any) -> Any:
        copied = self.recorder.empty(result.shape, result.dtype)
        np.copyto(copied, result)
        return copied

    def apply_updates(self) -> None:
        self.stage.apply_updates()


class LiveCall:
    """One use of a live stage in a pass: forward, and then backward with what it saved."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.saved: Any = None

    def forward(self, x: Any) -> Any:
        """y, in memory of the stage's own."""
        y, self.saved = self.stage.forward(each(self._copy, x), True)
        return y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        """dx, in memory of the stage's own."""
        saved, self.saved = self.saved, None
        return self.stage.backward(each(self._copy, dy), saved, need_dx)

    def forward_into(self, x: Any, y: Any) -> None:
        """forward in a replay."""
        self._put(y, self.forward(x), "forward")

    def backward_into(self, dy: Any, dx: Any) -> None:
        """backward in a replay."""
        result = self.backward(dy, dx is not None)
        if dx is not None:
            self._put(dx, result, "backward")

    def _copy(self, array: Any) -> Any:
        copied = self.stage.backend.empty(array.shape, array.dtype)
        np.copyto(copied, array)
        return copied

    def _put(self, target: Any, result: Any, method: str) -> None:
        if type(target) is tuple and type(result) is tuple and len(result) == len(target):
            for one, values in zip(target, result):
                self._put(one, values, method)
            return
        if type(target) is tuple:
            raise ShapeError(f"layer {self.stage.name}: {method} returned {type(result).__name__}, expected {len(target)} arrays as before")
        if getattr(result, "shape", None) != target.shape or result.dtype != target.dtype:
            got = f"shape {result.shape} and dtype {result.dtype}" if hasattr(result, "shape") else type(result).__name__
            error = DTypeError if getattr(result, "shape", None) == target.shape else ShapeError
            raise error(
                f"layer {self.stage.name}: {method} returned {got}, expected shape {target.shape} and dtype {target.dtype} as in the step "
                f"before; for a layer whose results change, use Trainer(replay=False)"
            )
        np.copyto(target, result)


def copy_on(stage: Stage, backend: Any, stand_in: Callable[[Stage, Any], Any] = Live) -> tuple[Any, list[Any]]:
    """A copy of a stage, and of all that it runs, on another backend; and what stands in for the stages that cannot be recorded.

    Parameters, buffers and everything else are shared with the original.

    Args:
        stand_in: makes, of a stage that cannot be recorded and the backend, what takes its place.
    """
    copies: dict[int, Any] = {}
    others: list[Any] = []

    def replace(thing: Stage) -> Any:
        others.append(stand_in(thing, backend))
        return others[-1]

    return _copied(stage, stage.backend, backend, copies, replace), others


def _copied(thing: Any, original: Any, backend: Any, copies: dict[int, Any], replace: Callable[[Stage], Any]) -> Any:
    """A stage or a list of them on `backend` instead of `original`; anything else as it is. copies: by id, of what was copied before."""
    if isinstance(thing, list):
        return [_copied(part, original, backend, copies, replace) for part in thing]
    if not isinstance(thing, Stage):
        return thing
    if id(thing) not in copies and can_replay(thing, original):
        twin: Any = copy.copy(thing)
        copies[id(thing)] = twin
        vars(twin).update({name: _copied(value, original, backend, copies, replace) for name, value in vars(thing).items()})
        if "backend" in vars(thing):
            twin.backend = backend
    elif id(thing) not in copies:
        copies[id(thing)] = replace(thing)
    return copies[id(thing)]


class Recording:
    """Forward and backward of batches of one shape: recorded the first time, then replayed.

    Args:
        model: the model, whose stages are copied onto a Recorder; parameters and buffers are shared.
        shape: of the batch; of several inputs, the tuple of their shapes.
    """

    def __init__(self, model: Any, shape: tuple[Any, ...]) -> None:
        self.recorder = Recorder(model.backend)
        twin, self.live = copy_on(model, self.recorder)
        self.x = each(lambda one: self.recorder.empty(one, model.dtype), shape)
        self.prediction: Any = None
        self.gradient: Any = None
        self.pass_ = Pass(twin)
        self.calls_forward: Playback | None = None
        self.calls_backward: Playback | None = None

    @property
    def complete(self) -> bool:
        """Whether both passes were recorded to their end."""
        return self.calls_backward is not None

    def forward(self, x: Any) -> Any:
        """The prediction for x."""
        each(to_float, x, self.x)
        if self.calls_forward is None:
            self.prediction = self.pass_.forward(self.x)
            self.calls_forward = self.recorder.take_calls()
        else:
            self.calls_forward()
        return each(np.ndarray.copy, self.prediction)

    def backward(self, gradient: Any) -> None:
        """Write the gradients of the parameters, from the gradient of the prediction."""
        each(self._check, gradient, self.prediction)
        if self.calls_backward is None:
            self.gradient = each(lambda one: self.recorder.empty(one.shape, one.dtype), gradient)
            each(np.copyto, self.gradient, gradient)
            self.pass_.backward(self.gradient)
            self.calls_backward = self.recorder.take_calls()
            del self.pass_
            return
        each(np.copyto, self.gradient, gradient)
        self.calls_backward()
        for stage in self.live:
            stage.apply_updates()

    def _check(self, gradient: np.ndarray, expected: np.ndarray) -> None:
        if gradient.shape != expected.shape or gradient.dtype != expected.dtype:
            error = ShapeError if gradient.shape != expected.shape else DTypeError
            raise error(
                f"the gradient of the loss has shape {gradient.shape} and dtype {gradient.dtype}, "
                f"expected {expected.shape} and {expected.dtype}, as the prediction has"
            )
