"""Stages: what a training pass runs, one after the other, and whether replay may record them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nbnet.runtime.arrays import FLOATS, on_device
from nbnet.runtime.watched import Watched

BUFFERS = (*FLOATS, np.dtype(np.int64), np.dtype(np.uint64))  # dtypes of buffers that kernels take without a copy


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
    """Whether a method is overridden on the instance."""
    return any(callable(getattr(type(thing), name, None)) for name in vars(thing))


def can_replay(stage: Stage, backend: Any) -> bool:
    """Whether the calls of a stage on this backend can be recorded: its class says so, no method is overridden on the instance, and
    kernels take its arrays without a copy, which would not be part of the recording."""
    if not stage.replayable or not _is_declared(type(stage)) or overrides(stage) or stage.backend is not backend or _hides_stages(stage):
        return False
    if stage.inner():
        return True
    params, buffers = vars(stage)["_params"], vars(stage)["_buffers"]
    return all(_is_plain(param.value) and param.value.dtype == stage.dtype for param in params.values()) and all(
        _is_plain(array) and array.dtype in BUFFERS for array in buffers.values()
    )


def _is_plain(array: Any) -> bool:
    """Whether kernels take an array as it is."""
    return on_device(array) or array.flags.carray


def _is_declared(cls: type) -> bool:
    """Whether `replayable` was declared for the code of this class: by the class itself, or by a base class whose methods no class
    between the two replaces. Only constructors, `create` and plain values may differ."""
    for each in cls.__mro__:
        if "replayable" in vars(each):
            return True
        if any(callable(value) or hasattr(type(value), "__get__") for name, value in vars(each).items() if name not in _HARMLESS):
            return False
    return False


_HARMLESS = {"__init__", "create", "__dict__", "__weakref__", "__annotate__", "__annotate_func__"}


def _hides_stages(stage: Stage) -> bool:
    """Whether a stage holds stages that it does not return from `inner()`, or where a copy of it would not find them."""
    known = {id(each) for inner in stage.inner() for each in (inner, *inner.inner())}
    for value in vars(stage).values():
        if isinstance(value, (tuple, set, dict)) and any(isinstance(each, Stage) for each in _members(value)):
            return True
        held = value if isinstance(value, list) else [value]
        if any(isinstance(each, Stage) and id(each) not in known for each in held):
            return True
    return False


def _members(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
