"""What all optimisers share: state arrays, and which parameters one kernel call updates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from operator import is_
from typing import Any

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError
from nbnet.layers import Param
from nbnet.layers.parameters import FlatArray, FlatParameters
from nbnet.runtime.backend import Backend, on_device, zeros_like


class Optimizer(CodeRepr):
    """Base class of optimisers. A subclass names its `slots` and defines `_update`.

    Args:
        lr: learning rate, above 0; a schedule multiplies it.
        weight_decay: at least 0; added to the gradient as weight_decay * value (AdamW takes it from the value instead).
    Attributes:
        state: the state arrays by slot and parameter name ("m.0.conv2d.weight"), in the shapes of the parameters.
        steps: number of updates so far. Checkpoints hold both.
    Raises:
        ArgumentError: an option is out of range.
    """

    slots: tuple[str, ...] = ()
    _always_shown = "lr"

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr = positive("lr", lr)
        self.weight_decay = at_least_0("weight_decay", weight_decay)
        self.steps = 0
        self.state: dict[str, Any] = {}
        self._flat: dict[FlatParameters, list[FlatArray]] = {}  # one flat array per slot
        self._runs: list[list[Any]] = []  # flat arrays (value, gradient, slots) of each kernel call
        self._runs_of: list[Any] = []  # the parameters' arrays that _runs was made for; as objects, since an id may be used again

    def __getstate__(self) -> dict[str, Any]:
        """Without flat arrays: those of a copy would no longer be the memory of its state arrays."""
        return vars(self) | {"_flat": {}, "_runs": [], "_runs_of": []}

    def prepare(self, params: Mapping[str, Param]) -> None:
        """Make the state arrays, as zeros, if there are none."""
        if self.state:
            return
        self._flat, self._runs_of = {}, []
        seen: set[Param] = set()  # a parameter with two names has two states, of which one lies in the flat arrays
        states: list[list[Any]] = []
        for param in params.values():
            layout = param.layout
            if layout is None or param in seen or not layout.holds(param):
                states.append([zeros_like(param.value) for _ in self.slots])
                continue
            seen.add(param)
            if layout not in self._flat:
                self._flat[layout] = [layout.zeros() for _ in self.slots]
            states.append([array.views[param.index] for array in self._flat[layout]])
        for slot, arrays in zip(self.slots, zip(*states)):
            self.state |= {f"{slot}.{name}": array for name, array in zip(params, arrays)}

    def step(self, params: Mapping[str, Param], backend: Backend, lr: float | None = None) -> None:
        """Update every trainable parameter from its gradient, once.

        Args:
            params: by name, as model.params gives them.
            backend: runs the kernels.
            lr: learning rate of this step; None uses the optimiser's own.
        Raises:
            ArgumentError: the state belongs to other parameters, or an array is not contiguous; nothing has changed.
        """
        self.prepare(params)
        arrays = [array for param in params.values() if param.trainable for array in (param.value, param.grad)]
        if len(arrays) != len(self._runs_of) or not all(map(is_, arrays, self._runs_of)):
            self._check_state(params)
            self._runs = self._find_runs(params)
            self._runs_of = arrays
        self.steps += 1
        lr = self.lr if lr is None else lr
        for value, grad, *slots in self._runs:
            self._update(backend, value, grad, slots, lr)

    def _check_state(self, params: Mapping[str, Param]) -> None:
        """Kernels walk over parameters and state with one index: both must be contiguous and of the same shape."""
        for name, param in params.items():
            if not param.trainable:
                continue
            for attribute, array in (("value", param.value), ("grad", param.grad)):
                if on_device(array) or array.flags.carray:
                    continue
                if not array.flags.c_contiguous:
                    raise ArgumentError(f"the {attribute} of {name!r} is not C-contiguous: use np.ascontiguousarray({attribute})")
                wrong = "not aligned" if array.flags.writeable else "read-only"
                raise ArgumentError(f"the {attribute} of {name!r} is {wrong}: use np.array({attribute})")
        for slot, (name, param) in itertools.product(self.slots, params.items()):
            found = self.state.get(f"{slot}.{name}")
            if found is None or found.shape != param.value.shape:
                known = "no state" if found is None else f"state of shape {found.shape}"
                raise ArgumentError(
                    f"this optimiser has {known} for {name!r}, expected shape {param.value.shape}: "
                    f"it belongs to another model, make a new {type(self).__name__} for this one"
                )

    def _find_runs(self, params: Mapping[str, Param]) -> list[list[Any]]:
        """The flat arrays of each kernel call: one call for trainable neighbours in a layout, one for any other parameter."""
        runs: list[list[Any]] = []
        before: tuple[Any, int] = None, 0  # layout and index of the previous parameter
        first = 0  # index of the first parameter of the run
        for name, param in params.items():
            if not param.trainable:
                continue
            layout, index = param.layout, param.index
            state = [self.state[f"{slot}.{name}"] for slot in self.slots]
            flat = None if layout is None else self._flat.get(layout)
            if layout is None or flat is None or not layout.holds(param) or any(a is not f.views[index] for a, f in zip(state, flat)):
                runs.append([array.reshape(-1) for array in (param.value, param.grad, *state)])
                before = None, 0
                continue
            if before == (layout, index - 1):
                runs.pop()
            else:
                first = index
            runs.append(layout.run([layout.values, layout.grads, *flat], first, index))
            before = layout, index
        return runs

    def _update(self, backend: Backend, value: Any, grad: Any, slots: list[Any], lr: float) -> None:
        """Update flat arrays (n,) in place, with one kernel call."""
        raise NotImplementedError


def positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ArgumentError(f"{name}={value!r}: expected a number above 0")
    return float(value)


def at_least_0(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ArgumentError(f"{name}={value!r}: expected a number that is at least 0")
    return float(value)


def fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ArgumentError(f"{name}={value!r}: expected a number that is at least 0 and below 1")
    return float(value)
