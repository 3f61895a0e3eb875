"""Replay: the kernel calls of a training pass are recorded once and then repeated, without the layers' Python between them.

Between the kernels of a small network, Python takes as long as the kernels themselves. But for a batch of the same shape the layers
make the same calls, of the same functions, with the same numbers, and with arrays of which only the values differ. So the second
pass over a shape is recorded, with arrays that stay where they are, and later passes are replayed. Results have the same bits.

A layer takes part if it is `replayable`: between the calls of its backend it looks at shapes and settings, never at values. Any
other layer runs live: its forward and backward are themselves calls of the recording. When a setting changes, the next pass is
recorded again. `Trainer(replay=False)` turns replay off.
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

from nbnet.runtime.arrays import each
from nbnet.runtime.recording import Pass, Recording
from nbnet.runtime.stage import Stage, can_replay
from nbnet.runtime.watched import Watched

BACKENDS = ("serial", "parallel")  # whose passes are recorded: on the others, calls are not what takes the time
KEPT = 4  # shapes: for example a batch in two parts, and the last batch of an epoch, have up to four
_END = object()  # ends a list of settings, so that a longer or shorter list is a different one
_arrays = attrgetter("value", "grad")
_shape = attrgetter("shape")


class Replay:
    """Chooses how a batch passes through a model: replayed if its shape is one of the last few, else layer by layer.

    To record takes as long as some passes of a small model, and a recording keeps its memory. So the first batch of a shape, and the
    first one after a change, runs layer by layer: a rate that changes in every step, or a new shape for every batch, costs only the check.

    Args:
        enabled: False runs every batch layer by layer.
        stage_of: of a model, the stage that runs in its place; None: the model itself. Where a stage of the model cannot be recorded, it
            is made again for each pass, and none is recorded.
        record: makes a recording of a stage, for batches of a shape; it is `complete` once it can be replayed.
        backends: whose passes are recorded.
    """

    def __init__(
        self,
        enabled: bool = True,
        stage_of: Callable[[Any], Any] | None = None,
        record: Callable[[Any, Any], Any] = Recording,
        backends: tuple[str, ...] = BACKENDS,
    ) -> None:
        self.enabled = enabled
        self._record, self._backends = record, backends
        self._stage_of = stage_of
        self._stage: Any = None  # what runs
        self._recordings: OrderedDict[tuple[Any, ...], Any] = OrderedDict()  # of the last KEPT shapes, in order of use
        self.model: Any = None
        self._changes = 0  # Watched.changes at the last check of all settings

    def of(self, model: Any, x: Any, also: Any = None) -> Any:
        """What runs forward and then backward for a batch like x.

        Args:
            also: what decides which calls are made, besides the shape of x and the settings.
        """
        if not self.enabled or model.backend.name not in self._backends:
            return Pass(self._made(model))
        if model is not self.model:
            self._start(model)
        changes = Watched.changes  # before the check: a change during the check is seen the next time
        same = all(map(is_, _values(self._contents), self._held))
        if same and changes != self._changes:
            same = all(map(is_, self._now(), self._settings))
            if same:  # else an interruption before the new start would hide the change
                self._changes = changes
        if not same or self._place != _place():
            self._start(model)
        if not self._recorded:
            return Pass(self._made(model))
        shape = each(_shape, x)
        key = shape if also is None else (shape, also)
        known = key in self._recordings
        recording = self._recordings.pop(key, None)
        if known and (recording is None or not recording.complete):  # an interrupted one is made again
            recording = self._record(self._stage, shape)
        self._recordings[key] = recording
        if len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)
        return recording or Pass(self._stage)

    def _made(self, model: Any) -> Any:
        return model if self._stage_of is None else self._stage_of(model)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy makes recordings of its own."""
        return Replay, (self.enabled, self._stage_of, self._record, self._backends)

    def clear(self) -> None:
        """Drop the recordings; their memory returns to the backend."""
        self._recordings = OrderedDict.fromkeys(self._recordings)

    def _start(self, model: Any) -> None:
        """Start again with the settings as they are now."""
        self._recordings.clear()
        self.model = None  # until the end: an interrupted start is made again
        stages = {id(stage): stage for stage in _stages(model, model.backend)}  # a layer may define == and no hash
        replayed = [stage for stage in stages.values() if can_replay(stage, model.backend)]
        self._changes = Watched.changes
        self._contents = [look for stage in replayed for look in stage.contents()]
        self._held = list(_values(self._contents))
        # Of a live stage, which may change its attributes in every step, only whether it is still live.
        live: list[Callable[[], Iterable[Any]]]
        ids = {id(stage) for stage in replayed}
        live = [partial(_replays, stage, model.backend) for key, stage in stages.items() if key not in ids]
        self._looks = [*(look for stage in replayed for look in stage.settings()), *live]
        self._params = [param for stage in replayed for param in vars(stage).get("_params", {}).values()]
        self._settings = list(self._now())
        self._recorded = any(not stage.inner() for stage in replayed) and (self._stage_of is None or not live)
        self._stage = self._made(model) if self._recorded else None
        self._place = _place()
        self.model = model

    def _now(self) -> Iterator[Any]:
        """The attributes that decide which calls are made, apart from the shape of the batch."""
        return chain(_values(self._looks), chain.from_iterable(map(_arrays, self._params)))


def unrecorded(model: Any) -> Stage | None:
    """The first stage of a model that cannot be recorded."""
    return next((stage for stage in _stages(model, model.backend) if not can_replay(stage, model.backend)), None)


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
