"""Exponential moving averages of named arrays: of statistics, or of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.layers import Layer
from nbnet.runtime.arrays import FLOATS
from nbnet.runtime.commit import Call, assignment, commit


class ExponentialMovingAverage(CodeRepr):
    """shadow <- d * shadow + (1 - d) * value, for any named arrays   (tf.train.ExponentialMovingAverage).

    Args:
        decay: d, the weight of the old average, 0 to 1.
        zero_debias: the average starts at 0 and is divided by 1 - (product of d so far), which makes it a true weighted mean of
            the values so far. False starts at the first value, as TensorFlow does for a variable; see `start` of apply.
    Raises:
        ArgumentError: decay is out of range.
    """

    def __init__(self, decay: float, zero_debias: bool = False) -> None:
        self.decay = checks.number(decay, "decay", "the weight of the old average, from 0 to 1", lambda decay: 0 <= decay <= 1)
        self.zero_debias = bool(zero_debias)
        self._shadow: dict[str, np.ndarray] = {}
        self._remaining: dict[str, float] = {}  # weight of the initial value in each average

    def apply(self, values: Mapping[str, Any], num_updates: int | None = None, start: Mapping[str, Any] | None = None) -> None:
        """Update the averages with new values.

        Args:
            values: arrays or numbers by name: {"loss": 0.3}, or model.state().
            num_updates: with it, d = min(decay, (1 + num_updates) / (10 + num_updates)): the average follows faster at first.
            start: the initial averages of new names; TensorFlow uses 0 for a tensor. Without it, a new name starts at its own
                value, as a variable does.
        Raises:
            ShapeError: the shape of a value has changed. ArgumentError: `start` is used with zero_debias, which starts at 0, or
                lacks a new name. Nothing has changed.
        """
        commit(self._calls(values, num_updates, start))

    def _calls(self, values: Mapping[str, Any], num_updates: int | None = None, start: Mapping[str, Any] | None = None) -> list[Call]:
        """The calls that make an update, for nbnet.runtime.commit. Args, Raises: as in `apply`."""
        if start is not None and self.zero_debias:
            raise ArgumentError("start= with zero_debias=True, which starts every average at 0: leave start= out")
        arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
        for name, array in arrays.items():
            if name in self._shadow and self._shadow[name].shape != array.shape:
                raise ShapeError(f"{name!r} has shape {array.shape}, but its average has {self._shadow[name].shape}")
        missing = [name for name in arrays if start is not None and name not in self._shadow and name not in start]
        if missing:
            raise ArgumentError(f"start= lacks {missing[0]!r}: expected the initial average of every new name")
        d = self.decay if num_updates is None else min(self.decay, (1 + num_updates) / (10 + num_updates))
        shadow, remaining = {}, {}
        for name, array in arrays.items():
            before = self._shadow.get(name)
            if before is None:
                first = np.zeros_like(array) if self.zero_debias else array if start is None else np.asarray(start[name], np.float64)
                before = np.broadcast_to(first, array.shape)
            shadow[name] = d * before + (1 - d) * array
            remaining[name] = d * self._remaining.get(name, 1.0)
        return [partial(self._shadow.update, shadow), partial(self._remaining.update, remaining)]

    def average(self, name: str) -> np.ndarray:
        """The average of one name, float64, in the shape of its values.

        Raises:
            ArgumentError: no value of that name was applied.
        """
        if name not in self._shadow:
            raise ArgumentError(f"no average of {name!r} yet: apply it first")
        if self.zero_debias:
            weight = 1 - self._remaining[name]
            return self._shadow[name] / weight if weight > 0 else self._shadow[name].copy()
        return self._shadow[name].copy()

    def averages(self) -> dict[str, np.ndarray]:
        """All averages by name."""
        return {name: self.average(name) for name in self._shadow}

    @contextmanager
    def swapped(self, model: Layer) -> Iterator[None]:
        """Inside the `with` block the parameters of the model are their averages, and so are buffers of floats that have one, such as
        moving statistics. Afterwards all parameters and buffers are restored, whatever the block did.

            trainer = nb.Trainer(model, average=nb.ExponentialMovingAverage(0.999))
            trainer.fit((x, y), epochs=3)
            with trainer.average.swapped(model):
                trainer.evaluate(x_test, y_test)

        Raises:
            ArgumentError: a parameter of the model has no average.
        """
        averages = {name: self.average(name) for name in model.params}
        averages |= {name: self.average(name) for name, array in model.buffers.items() if name in self._shadow and array.dtype in FLOATS}
        arrays = {name: param.value for name, param in model.params.items()} | model.buffers
        before = {name: array.copy() for name, array in arrays.items()}
        try:
            commit([assignment(arrays[name], average) for name, average in averages.items()])
            yield
        finally:
            commit([assignment(array, before[name]) for name, array in arrays.items()])

    def follow(self, model: Layer, *calls: Call) -> None:
        """Update the averages of all parameters, and of the buffers that hold floats, together with other calls."""
        values = {name: param.value for name, param in model.params.items()}
        commit([*self._calls(values | {name: array for name, array in model.buffers.items() if array.dtype in FLOATS}), *calls])

    def state(self) -> dict[str, np.ndarray]:
        """All that a copy needs to continue, as arrays by name. They are not copied."""
        shadow = {f"shadow.{name}": array for name, array in self._shadow.items()}
        return shadow | {f"remaining.{name}": np.array([weight]) for name, weight in self._remaining.items()}

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned; the arrays are copied.

        Raises:
            ArgumentError: it is not such a state; nothing has changed.
        """
        commit(self.loading(arrays))

    def loading(self, arrays: Mapping[str, np.ndarray]) -> list[Call]:
        """The calls of `load_state`, for nbnet.runtime.commit."""
        found: dict[str, dict[str, np.ndarray]] = {"shadow": {}, "remaining": {}}
        for key, array in arrays.items():
            kind, _, name = key.partition(".")
            if kind not in found or array.dtype != np.float64 or (kind == "remaining" and (array.shape != (1,) or not 0 <= array[0] <= 1)):
                raise ArgumentError(f"{key!r} is not part of the state of an average: expected what state() returned")
            found[kind][name] = array
        shadow, remaining = found.values()
        if shadow.keys() != remaining.keys():
            raise ArgumentError("the state of an average is incomplete: expected what state() returned")
        weights = {name: float(array[0]) for name, array in remaining.items()}
        copies = {name: array.copy() for name, array in shadow.items()}
        return [partial(setattr, self, "_shadow", copies), partial(setattr, self, "_remaining", weights)]
