"""Averages of named arrays: of statistics, or of a model's weights, which they follow step by step."""

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


class Average(CodeRepr):
    """Base class of averages: arrays in float64 by name, and numbers. A subclass defines `follow`."""

    _kind = "count"  # how the names of the numbers begin in `state`
    _hint = "apply it first"

    def __init__(self, numbers: dict[str, float]) -> None:
        self._shadow: dict[str, np.ndarray] = {}
        self._numbers = numbers

    @property
    def used(self) -> bool:
        """Whether it has followed anything."""
        return bool(self._shadow) or any(self._numbers.values())

    def begin(self, model: Layer) -> None:
        """Called before each step of a Trainer."""

    def follow(self, model: Layer, *calls: Call) -> None:
        """Called after each step of a Trainer: update the averages, together with other calls."""
        raise NotImplementedError

    def average(self, name: str) -> np.ndarray:
        """The average of one name, float64, in the shape of its values.

        Raises:
            ArgumentError: there is none.
        """
        if name not in self._shadow:
            raise ArgumentError(f"no average of {name!r} yet: {self._hint}")
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

    def state(self) -> dict[str, np.ndarray]:
        """All that a copy needs to continue, as arrays by name. They are not copied."""
        shadow = {f"shadow.{name}": array for name, array in self._shadow.items()}
        return shadow | {f"{self._kind}.{name}": np.array([number], np.float64) for name, number in self._numbers.items()}

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned; the arrays are copied.

        Raises:
            ArgumentError: it is not such a state; nothing has changed.
        """
        commit(self.loading(arrays))

    def loading(self, arrays: Mapping[str, np.ndarray]) -> list[Call]:
        """The calls of `load_state`, for nbnet.runtime.commit."""
        found: dict[str, dict[str, np.ndarray]] = {"shadow": {}, self._kind: {}}
        for key, array in arrays.items():
            kind, _, name = key.partition(".")
            is_number = array.shape == (1,) and array.dtype == np.float64 and self._is_number(array[0])
            if kind not in found or array.dtype != np.float64 or (kind == self._kind and not is_number):
                raise ArgumentError(f"{key!r} is not part of the state of an average: expected what state() returned")
            found[kind][name] = array
        shadow, numbers = found.values()
        if numbers.keys() != self._expected(shadow):
            raise ArgumentError("the state of an average is incomplete: expected what state() returned")
        copies = {name: array.copy() for name, array in shadow.items()}
        values = {name: float(array[0]) for name, array in numbers.items()}
        return [partial(setattr, self, "_shadow", copies), partial(setattr, self, "_numbers", values)]

    def _is_number(self, number: float) -> bool:
        """Whether one of the numbers can have this value."""
        return number >= 0 and float(number).is_integer()

    def _expected(self, shadow: Mapping[str, np.ndarray]) -> set[str]:
        """The names of the numbers beside these averages."""
        return set(self._numbers)


class ExponentialMovingAverage(Average):
    """shadow <- d * shadow + (1 - d) * value, for any named arrays   (tf.train.ExponentialMovingAverage).

    Args:
        decay: d, the weight of the old average, 0 to 1.
        zero_debias: the average starts at 0 and is divided by 1 - (product of d so far), which makes it a true weighted mean of
            the values so far. False starts at the first value, as TensorFlow does for a variable; see `start` of apply.
    Raises:
        ArgumentError: decay is out of range.
    """

    _kind = "remaining"

    def __init__(self, decay: float, zero_debias: bool = False) -> None:
        self.decay = checks.number(decay, "decay", "the weight of the old average, from 0 to 1", lambda decay: 0 <= decay <= 1)
        self.zero_debias = bool(zero_debias)
        super().__init__({})  # the weight of the initial value in each average

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
            remaining[name] = d * self._numbers.get(name, 1.0)
        return [partial(self._shadow.update, shadow), partial(self._numbers.update, remaining)]

    def average(self, name: str) -> np.ndarray:
        """The average of one name, float64, in the shape of its values.

        Raises:
            ArgumentError: no value of that name was applied.
        """
        average = super().average(name)
        if self.zero_debias:
            weight = 1 - self._numbers[name]
            return average / weight if weight > 0 else average
        return average

    def follow(self, model: Layer, *calls: Call) -> None:
        """Update the averages of all parameters, and of the buffers that hold floats, together with other calls."""
        values = {name: param.value for name, param in model.params.items()}
        commit([*self._calls(values | {name: array for name, array in model.buffers.items() if array.dtype in FLOATS}), *calls])

    def _is_number(self, number: float) -> bool:
        return 0 <= number <= 1

    def _expected(self, shadow: Mapping[str, np.ndarray]) -> set[str]:
        return set(shadow)


class StochasticWeightAverage(Average):
    """The mean of a model's parameters after some of its steps   (SWA: Izmailov et al. 2018).

        steps = -(-len(x) // 64)                                  # of an epoch
        trainer = nb.Trainer(model, average=nb.StochasticWeightAverage(start=10 * steps, every=steps))
        trainer.fit((x, y), epochs=20)
        with trainer.average.swapped(model):
            nb.recalibrate(model, x)                              # the statistics of batch normalisation, for these parameters
            trainer.evaluate(x_test, y_test)

    Buffers, such as moving statistics, have no average: they belong to the parameters of the last step until `nb.recalibrate`.

    Args:
        start: the first step whose parameters count, at least 1. every: steps from one that counts to the next, at least 1.
    Raises:
        ArgumentError: an option is wrong.
    """

    _hint = "train until the step `start`"

    def __init__(self, start: int = 1, every: int = 1) -> None:
        self.start = checks.whole(start, "start")
        self.every = checks.whole(every, "every")
        super().__init__({"steps": 0, "models": 0})

    def follow(self, model: Layer, *calls: Call) -> None:
        step, models = self._numbers["steps"] + 1, self._numbers["models"]
        mine = [partial(self._numbers.update, {"steps": step})]
        if step >= self.start and (step - self.start) % self.every == 0:
            values = {name: np.asarray(param.value, np.float64) for name, param in model.params.items()}
            before = self._shadow or values
            shadow = {name: before[name] + (value - before[name]) / (models + 1) for name, value in values.items()}
            mine = [partial(self._numbers.update, {"steps": step, "models": models + 1}), partial(self._shadow.update, shadow)]
        commit([*mine, *calls])


class Lookahead(Average):
    """Slow weights, which follow those of the optimiser and then take their place   (Zhang et al. 2019, algorithm 1).

        trainer = nb.Trainer(model, optimizer="adam", average=nb.Lookahead())

    After each `every` steps: slow += weight * (value - slow), and value = slow. They start as the parameters before the first step.

    Args:
        every: steps of the optimiser from one update of the slow weights to the next, at least 1.
        weight: of the optimiser's weights in an update, above 0, at most 1.
    Raises:
        ArgumentError: an option is wrong.
    """

    _hint = "train one step first"

    def __init__(self, every: int = 5, weight: float = 0.5) -> None:
        self.every = checks.whole(every, "every")
        self.weight = checks.number(weight, "weight", "a number above 0, at most 1", lambda weight: 0 < weight <= 1)
        super().__init__({"steps": 0})

    def begin(self, model: Layer) -> None:
        if not self._shadow:
            commit([partial(self._shadow.update, {name: np.array(param.value, np.float64) for name, param in model.params.items()})])

    def follow(self, model: Layer, *calls: Call) -> None:
        step = self._numbers["steps"] + 1
        mine = [partial(self._numbers.update, {"steps": step})]
        if step % self.every == 0:
            slow = {}
            for name, param in model.params.items():
                slow[name] = self._shadow[name] + self.weight * (np.asarray(param.value, np.float64) - self._shadow[name])
                mine.append(assignment(param.value, slow[name]))
            mine.append(partial(self._shadow.update, slow))
        commit([*mine, *calls])
