"""Training passes that are recorded once and played back: the calls of forward and backward, without the Python around them.

Between the kernels of a small network, Python takes as long as the kernels themselves, and longer still after a kernel has filled
the caches with other things. But for a batch of the same shape the layers make the same calls, of the same functions, with the
same numbers, and with arrays whose values alone differ. So a pass over a second batch of a shape is recorded, with arrays that
stay where they are, and the next ones are played back.

That holds for layers that are `replayable`: between the calls of their backend they look at shapes and settings alone, never at
values. A setting that changes is noticed, and the next pass is recorded anew. Other models are run layer by layer, as ever.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import numpy as np

from nbnet.functional import checks
from nbnet.kernels.cpu.numba_private import machine_code
from nbnet.layers import Layer, Sequential
from nbnet.layers.base import Watched
from nbnet.layers.fusion import copied
from nbnet.preprocessing import to_float
from nbnet.runtime.backend import FLOATS, Backend
from nbnet.runtime.compile_ahead import compile_ahead
from nbnet.runtime.memory import Arena

REPLAYED = ("serial", "parallel")  # backends: on the others, calls are not what takes the time, or graphs are the way to save it
BUFFERS = (*FLOATS, np.dtype(np.int64), np.dtype(np.uint64))  # dtypes of buffers that kernels take without a copy
_END = object()  # of the settings: so that more or fewer of them are other ones
_arrays = attrgetter("value", "grad")
KEPT = 4  # recordings: a batch in two parts and the last batch of an epoch, for example, are of up to four shapes


class Pass:
    """Forward and backward of one batch, layer by layer."""

    def __init__(self, model: Sequential) -> None:
        self.model = model

    def forward(self, x: Any) -> Any:
        """The prediction for x, as the model takes it."""
        prediction, tape = self.model.forward(x, train=True)
        self.tape = list(tape)
        return prediction

    def backward(self, gradient: Any) -> None:
        """Leave the gradients in the parameters, from the gradient of the prediction. Memory is freed on the way."""
        self.model.backward(gradient, self.tape, need_dx=False)
        self.model.apply_updates()


class Recorder(Backend):
    """A backend that notes all calls in `calls`. Its arrays stay where they are as long as it lives."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.backend = backend
        self.pool = self.arena = Arena(backend.pool)
        self._scratch = backend._scratch  # of this thread, and so is the recording
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def kernel(self, op: str) -> Callable[..., Any]:
        return partial(self.run, self.backend.kernel(op))

    def no_bias(self, size: int, dtype: Any) -> Any:
        return self.backend.no_bias(size, dtype)  # which never changes, and so is none of the calls

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)
        kept = tuple([self.arena.alias(arg) if type(arg) is np.ndarray else arg for arg in args])
        self.calls.append((machine_code(function, kept), kept))


class Recording:
    """Forward and backward of batches of one shape: recorded the first time, then played back.

    Args:
        model: a copy that runs on `recorder`, and shares parameters and buffers with the model it was copied from.
        shape: of the batch.
    """

    def __init__(self, model: Sequential, recorder: Recorder, shape: tuple[int, ...]) -> None:
        self.recorder = recorder
        self.x = recorder.empty(shape, model.dtype)
        self.prediction: Any = None
        self.gradient: Any = None
        self.pass_ = Pass(model)
        self.calls_forward: list[Any] | None = None
        self.calls_backward: list[Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether both passes were recorded to their end."""
        return self.calls_backward is not None

    def forward(self, x: np.ndarray) -> np.ndarray:
        to_float(x, self.x)
        if self.calls_forward is None:
            self.prediction = self.pass_.forward(self.x)
            self.calls_forward, self.recorder.calls = self.recorder.calls, []
        else:
            for function, args in self.calls_forward:
                function(*args)
        return self.prediction.copy()

    def backward(self, gradient: np.ndarray) -> None:
        gradient = checks.shaped(gradient, "the gradient of the loss", self.prediction.shape, self.prediction.dtype, be=self.recorder)
        if self.calls_backward is None:
            self.gradient = self.recorder.empty(gradient.shape, gradient.dtype)
            np.copyto(self.gradient, gradient)
            self.pass_.backward(self.gradient)
            self.calls_backward, self.recorder.calls = self.recorder.calls, []
            del self.pass_
            return
        np.copyto(self.gradient, gradient)
        for function, args in self.calls_backward:
            function(*args)


class Passes:
    """The passes of a model: recorded ones for batches of the last few shapes, where its layers can be replayed.

    To record takes as long as some passes of a small model. So the first batch of a shape, and the first after a change, is run: a rate
    that changes with every step, or batches of ever other shapes, cost nothing but the look.
    """

    def __init__(self) -> None:
        self._recordings: OrderedDict[tuple[int, ...], Recording] = OrderedDict()
        self.model: Sequential | None = None
        self._changes = 0  # Watched.changes at the last look at all settings

    def of(self, model: Sequential, x: np.ndarray) -> Pass | Recording:
        """What runs forward and then backward for a batch like x."""
        if model.backend.name not in REPLAYED:
            return Pass(model)
        if model is not self.model:
            self._start(model)
            if self._replayable:
                compile_ahead(model, len(x))
        changes = Watched.changes  # before the look: what is set meanwhile is noticed the next time
        held = all(map(is_, _values(self._contents), self._held))
        if held and changes != self._changes:
            held = all(map(is_, self._now(), self._settings))
            self._changes = changes
        if not held or self._place != _place():
            self._start(model)
        if not self._replayable:
            return Pass(model)
        recording = self._recordings.pop(x.shape, None)
        if recording is not None and recording.complete:  # one that was interrupted is made anew
            self._recordings[x.shape] = recording  # the last one used is the last one
            return recording
        if x.shape not in self._seen:
            self._seen.add(x.shape)
            return Pass(model)
        recording = self._recordings[x.shape] = _recording(model, x.shape)
        if len(self._recordings) > KEPT:
            self._seen.remove(self._recordings.popitem(last=False)[0])
        return recording

    def clear(self) -> None:
        """Forget the recordings; the backend gets their memory back."""
        self._recordings.clear()

    def _start(self, model: Sequential) -> None:
        """Begin anew with the settings as they are now."""
        self.clear()
        self.model = model
        self._seen: set[tuple[int, ...]] = set()  # shapes of batches so far: a shape is recorded when it comes again
        layers = list(model.walk())
        self._changes = Watched.changes
        self._contents = [look for layer in layers for look in layer.contents()]
        self._held = list(_values(self._contents))
        self._looks = [look for layer in layers for look in layer.settings()]
        self._params = [param for layer in layers for param in layer._params.values()]
        self._settings = list(self._now())
        self._replayable = all(_replayable(layer, model) for layer in layers)
        self._place = _place()

    def _now(self) -> Iterator[Any]:
        """The attributes that decide which calls are made, besides the shape of the batch."""
        return chain(_values(self._looks), chain.from_iterable(map(_arrays, self._params)))


def _values(looks: list[Callable[[], Iterable[Any]]]) -> Iterator[Any]:
    return chain(chain.from_iterable([look() for look in looks]), (_END,))


def _replayable(layer: Layer, model: Sequential) -> bool:
    """Whether the layer is replayable, on the model's backend, and its arrays are such that kernels take them as they are: a copy that is
    made for a kernel is none of the calls."""
    params = all(param.value.flags.c_contiguous and param.value.dtype == layer.dtype for param in layer._params.values())
    buffers = all(array.flags.c_contiguous and array.dtype in BUFFERS for array in layer._buffers.values())
    return layer.replayable and layer.backend is model.backend and params and buffers


def _place() -> tuple[int, int]:
    """Process and thread: a fork starts threads when it asks for kernels; another thread has scratch of its own."""
    return os.getpid(), threading.get_ident()


def _recording(model: Sequential, shape: tuple[int, ...]) -> Recording:
    """A recording that is still to be made."""
    recorder = Recorder(model.backend)
    return Recording(copied(model, recorder, {}), recorder, shape)
