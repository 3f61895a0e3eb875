"""Replay: the kernel calls of a training pass are recorded once and then repeated, without the layers' Python between them.

Between the kernels of a small network, Python takes as long as the kernels themselves. But for a batch of the same shape the layers
make the same calls, of the same functions, with the same numbers, and with arrays of which only the values differ. So the second
pass over a shape is recorded, with arrays that stay where they are, and later passes are replayed. Results have the same bits.

A layer takes part if it is `replayable`: between the calls of its backend it looks at shapes and settings, never at values. Any
other layer runs live: its forward and backward are themselves calls of the recording. When a setting changes, the next pass is
recorded again. `Trainer(replay=False)` turns replay off.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import numpy as np

from nbnet.errors import DTypeError, ShapeError
from nbnet.kernels.cpu.numba_private import machine_code
from nbnet.runtime.backend import FLOATS, Backend, channelwise_kernel, to_float
from nbnet.runtime.memory import Arena
from nbnet.runtime.watched import Watched

BACKENDS = ("serial", "parallel")  # whose passes are recorded: on the others, calls are not what takes the time
BUFFERS = (*FLOATS, np.dtype(np.int64), np.dtype(np.uint64))  # dtypes of buffers that kernels take without a copy
KEPT = 4  # recordings: for example a batch in two parts, and the last batch of an epoch, have up to four shapes
_END = object()  # ends a list of settings, so that a longer or shorter list is a different one
_arrays = attrgetter("value", "grad")


class Stage(Watched):
    """What a pass runs: a layer, or several layers fused into one step (nbnet.layers)."""

    replayable: Any = False  # a bool, or a property: whether forward(train=True) and backward may be recorded
    backend: Any
    dtype: Any
    name: str
    output_shape: tuple[int, ...]
    params: Any  # by name

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        """y, and what backward needs (None if train is False)."""
        raise NotImplementedError

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        """dx, from what forward saved; may be None if need_dx is False."""
        raise NotImplementedError

    def apply_updates(self) -> None:
        """Make updates of buffers that forward(train=True) deferred. The Trainer calls this after each step."""

    def settings(self) -> list[Callable[[], Iterable[Any]]]:
        """Functions that return what decides, apart from the shape of x, which calls are made: attributes of Watched objects."""
        return [vars(self).values]

    def contents(self) -> list[Callable[[], Iterable[Any]]]:
        """The same for the contents of dicts and lists, which change without an attribute assignment."""
        return []

    def inner(self) -> Sequence[Stage]:
        """The stages that this one runs."""
        return ()


def overrides(thing: Any) -> bool:
    """Whether an object has attributes of its own that replace methods of its class."""
    return any(callable(getattr(type(thing), name, None)) for name in vars(thing))


def can_replay(stage: Stage, backend: Any) -> bool:
    """Whether the calls of a stage on this backend can be recorded: it is replayable, none of its methods is replaced on the object, and
    kernels take its arrays without a copy, which would not be part of the recording."""
    if not stage.replayable or overrides(stage) or stage.backend is not backend:
        return False
    if stage.inner():
        return True
    params, buffers = vars(stage)["_params"], vars(stage)["_buffers"]
    return all(param.value.flags.c_contiguous and param.value.dtype == stage.dtype for param in params.values()) and all(
        array.flags.c_contiguous and array.dtype in BUFFERS for array in buffers.values()
    )


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
        kept = tuple([self.arena.alias(arg) if type(arg) is np.ndarray else arg for arg in args])
        self.calls.append((machine_code(function, kept), kept))

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = self.empty(shape, dtype)
        self.run(np.ndarray.fill, array, 0)
        return array

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        self.run(channelwise_kernel(function, outputs, args, clamp), *outputs, *args)

    def take_calls(self) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        """The calls so far; the next ones start a new list."""
        calls, self.calls = self.calls, []
        return calls


class Live(Stage):
    """In a recording, a stage that cannot be recorded: its forward and backward are calls of the recording, and run each time."""

    def __init__(self, stage: Stage, backend: Any) -> None:
        self.stage, self.backend = stage, backend
        self.saved: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y = self.backend.empty((len(x), *self.stage.output_shape), self.stage.dtype)
        self.backend.run(self._forward, x, y)
        return y, (x, y)  # on the tape they keep their memory, which the stage may need until backward

    def _forward(self, x: Any, y: Any) -> None:
        result, self.saved = self.stage.forward(x, train=True)
        if result.shape != y.shape or result.dtype != y.dtype:
            name, error = type(self.stage).__name__, ShapeError if result.shape != y.shape else DTypeError
            raise error(
                f"{name}.forward returned shape {result.shape} and dtype {result.dtype}, expected {y.shape} and {y.dtype}: "
                f"{name}.create(input_shape) must return the shape of one output, and forward must keep the dtype of x"
            )
        np.copyto(y, result)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        dx = self.backend.empty(saved[0].shape, saved[0].dtype) if need_dx else None
        self.backend.run(self._backward, dy, dx)
        return dx

    def _backward(self, dy: Any, dx: Any) -> None:
        result = self.stage.backward(dy, self.saved, dx is not None)
        self.saved = None
        if dx is not None:
            np.copyto(dx, result)

    def apply_updates(self) -> None:
        self.stage.apply_updates()


def copy_on(stage: Stage, backend: Any) -> tuple[Any, list[Live]]:
    """A copy of a stage, and of all that it runs, on another backend; and those of its stages that run live.

    Parameters, buffers and everything else are shared with the original.
    """
    copies: dict[int, Any] = {}
    live: list[Live] = []
    return _copied(stage, stage.backend, backend, copies, live), live


def _copied(thing: Any, original: Any, backend: Any, copies: dict[int, Any], live: list[Live]) -> Any:
    """A stage or a list of them on `backend` instead of `original`; anything else as it is. copies: by id, of what was copied before."""
    if isinstance(thing, list):
        return [_copied(part, original, backend, copies, live) for part in thing]
    if not isinstance(thing, Stage):
        return thing
    if id(thing) not in copies and can_replay(thing, original):
        twin: Any = copy.copy(thing)
        copies[id(thing)] = twin
        vars(twin).update({name: _copied(value, original, backend, copies, live) for name, value in vars(thing).items()})
        if "backend" in vars(thing):
            twin.backend = backend
    elif id(thing) not in copies:
        copies[id(thing)] = Live(thing, backend)
        live.append(copies[id(thing)])
    return copies[id(thing)]


class Recording:
    """Forward and backward of batches of one shape: recorded the first time, then replayed.

    Args:
        model: the model, whose stages are copied onto a Recorder; parameters and buffers are shared.
        shape: of the batch.
    """

    def __init__(self, model: Any, shape: tuple[int, ...]) -> None:
        self.recorder = Recorder(model.backend)
        twin, self.live = copy_on(model, self.recorder)
        self.x = self.recorder.empty(shape, model.dtype)
        self.prediction: Any = None
        self.gradient: Any = None
        self.pass_ = Pass(twin)
        self.calls_forward: list[Any] | None = None
        self.calls_backward: list[Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether both passes were recorded to their end."""
        return self.calls_backward is not None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The prediction for x."""
        to_float(x, self.x)
        if self.calls_forward is None:
            self.prediction = self.pass_.forward(self.x)
            self.calls_forward = self.recorder.take_calls()
        else:
            for function, args in self.calls_forward:
                function(*args)
        return self.prediction.copy()

    def backward(self, gradient: np.ndarray) -> None:
        """Write the gradients of the parameters, from the gradient of the prediction."""
        wanted = self.prediction
        if gradient.shape != wanted.shape or gradient.dtype != wanted.dtype:
            error = ShapeError if gradient.shape != wanted.shape else DTypeError
            raise error(
                f"the gradient of the loss has shape {gradient.shape} and dtype {gradient.dtype}, "
                f"expected {wanted.shape} and {wanted.dtype}, as the prediction has"
            )
        if self.calls_backward is None:
            self.gradient = self.recorder.empty(gradient.shape, gradient.dtype)
            np.copyto(self.gradient, gradient)
            self.pass_.backward(self.gradient)
            self.calls_backward = self.recorder.take_calls()
            del self.pass_
            return
        np.copyto(self.gradient, gradient)
        for function, args in self.calls_backward:
            function(*args)
        for stage in self.live:
            stage.apply_updates()


# --------------------------------------------------------------------------------------------------------------- replay


class Replay:
    """Chooses how a batch passes through a model: replayed for the last few shapes, else layer by layer.

    To record takes as long as some passes of a small model. So the first batch of a shape, and the first one after a change, runs
    layer by layer: a rate that changes in every step, or a new shape for every batch, costs only the check.

    Args:
        enabled: False runs every batch layer by layer.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._recordings: OrderedDict[tuple[int, ...], Recording] = OrderedDict()
        self.model: Any = None
        self._changes = 0  # Watched.changes at the last check of all settings

    def of(self, model: Any, x: Any) -> Pass | Recording:
        """What runs forward and then backward for a batch like x."""
        if not self.enabled or model.backend.name not in BACKENDS:
            return Pass(model)
        if model is not self.model:
            self._start(model)
        changes = Watched.changes  # before the check: a change during the check is seen the next time
        same = all(map(is_, _values(self._contents), self._held))
        if same and changes != self._changes:
            same = all(map(is_, self._now(), self._settings))
            self._changes = changes
        if not same or self._place != _place():
            self._start(model)
        if not self._recorded:
            return Pass(model)
        recording = self._recordings.pop(x.shape, None)
        if recording is not None and recording.complete:  # an interrupted one is made again
            self._recordings[x.shape] = recording  # in order of use
            return recording
        if x.shape not in self._seen:
            self._seen.add(x.shape)
            return Pass(model)
        recording = self._recordings[x.shape] = Recording(model, x.shape)
        if len(self._recordings) > KEPT:
            self._seen.remove(self._recordings.popitem(last=False)[0])
        return recording

    def clear(self) -> None:
        """Drop the recordings; their memory returns to the backend."""
        self._recordings.clear()

    def _start(self, model: Any) -> None:
        """Start again with the settings as they are now."""
        self.clear()
        self.model = model
        self._seen: set[tuple[int, ...]] = set()  # shapes of batches so far: a shape is recorded when it comes again
        stages = list(dict.fromkeys(_stages(model, model.backend)))
        replayed = [stage for stage in stages if can_replay(stage, model.backend)]
        self._changes = Watched.changes
        self._contents = [look for stage in replayed for look in stage.contents()]
        self._held = list(_values(self._contents))
        # Of a live stage, which may change its attributes in every step, only whether it is still live.
        live: list[Callable[[], Iterable[Any]]]
        live = [partial(_replays, stage, model.backend) for stage in stages if stage not in replayed]
        self._looks = [*(look for stage in replayed for look in stage.settings()), *live]
        self._params = [param for stage in replayed for param in vars(stage).get("_params", {}).values()]
        self._settings = list(self._now())
        self._recorded = any(not stage.inner() for stage in replayed)
        self._place = _place()

    def _now(self) -> Iterator[Any]:
        """The attributes that decide which calls are made, apart from the shape of the batch."""
        return chain(_values(self._looks), chain.from_iterable(map(_arrays, self._params)))


def _stages(stage: Stage, backend: Any) -> Iterator[Stage]:
    """A stage, and the stages inside it that a recording sees."""
    yield stage
    if can_replay(stage, backend):
        for inner in stage.inner():
            yield from _stages(inner, backend)


def _replays(stage: Stage, backend: Any) -> tuple[bool]:
    return (can_replay(stage, backend),)


def _values(looks: list[Callable[[], Iterable[Any]]]) -> Iterator[Any]:
    return chain(chain.from_iterable([look() for look in looks]), (_END,))


def _place() -> tuple[int, int]:
    """Process and thread: a forked process starts its threads when it asks for a kernel, and each thread has its own scratch."""
    return os.getpid(), threading.get_ident()
