"""What all optimisers share: state arrays, and which parameters one kernel call updates."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Mapping
from functools import partial
from numbers import Real
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.layers import Param
from nbnet.layers.parameters import FlatArray, FlatParameters
from nbnet.optimizers import groups
from nbnet.runtime.arrays import on_device, zeros_like
from nbnet.runtime.backend import Backend
from nbnet.runtime.commit import Call, assignment, commit, compiled
from nbnet.runtime.watched import Watched

Groups = Mapping[str, Mapping[str, Any]] | None


class Optimizer(CodeRepr):
    """Base class of optimisers. A subclass names its `slots` and defines `_update`, or `_call` where its update is one kernel call. Its
    constructor sets the options first and calls this one last.

    Args:
        lr: learning rate, at least 0; a schedule multiplies it.
        weight_decay: at least 0; added to the gradient as weight_decay * value (coupled), or, in optimisers whose decay is decoupled,
            taken from the value as lr * weight_decay * value.
        groups: options of parameters by patterns of their names, {"*.bias": {"lr_scale": 2.0}, "norm*": {"weight_decay": 0.0}}: lr_scale
            multiplies lr, others replace the optimiser's (see nbnet.optimizers.groups).
    Attributes:
        state: the state arrays by slot and parameter name ("m.0.conv2d.weight"), in the shapes of the parameters.
        steps: number of updates so far. Checkpoints hold both.
    Raises:
        ArgumentError: an option is out of range.
    """

    slots: tuple[str, ...] = ()
    by_parameter = False  # whether each parameter is updated alone, in its own shape, and not as part of a flat array
    _always_shown = "lr"

    def __init__(self, lr: float, weight_decay: float = 0.0, groups: Groups = None) -> None:
        self.lr = at_least_0("lr", lr)
        self.weight_decay = at_least_0("weight_decay", weight_decay)
        self.groups = self._check_groups(groups)
        self.steps = 0
        self.state: dict[str, Any] = {}
        self._flat: dict[FlatParameters, list[FlatArray]] | None = None  # one flat array per slot; None: not made, or not copied
        self._found = _Found()
        self.undo: list[Call] = []  # while a step is under way: the calls that take it back

    def __getstate__(self) -> dict[str, Any]:
        """Without flat arrays: those of a copy would no longer be the memory of its state arrays."""
        return vars(self) | {"_flat": None, "_found": _Found(), "undo": []}

    def __copy__(self) -> Optimizer:
        """Like copy.deepcopy: two optimisers with one state would spoil it for each other."""
        return copy.deepcopy(self)

    @property
    def options(self) -> dict[str, Any]:
        """The numbers among the constructor's arguments, as they are now (lr, weight_decay, and what the subclass has), and the groups."""
        names = inspect.signature(type(self)).parameters
        numbers = {name: value for name in names if isinstance(value := getattr(self, name, None), (Real, np.generic))}
        return numbers | ({"groups": getattr(self, "groups", {})} if "groups" in names else {})

    def _check_groups(self, given: Any) -> dict[str, dict[str, Any]]:
        """The groups that the constructor was given.

        Raises:
            ArgumentError: an option of one is unknown or out of range.
        """
        if given is None:
            return {}
        own = self.options
        found = groups.checked(given, [name for name in own if name not in ("lr", "groups")])
        for pattern, options in found.items():
            try:
                other = type(self)(**(own | {name: value for name, value in options.items() if name != "lr_scale"} | {"groups": None}))
            except ArgumentError as error:
                raise ArgumentError(f"groups[{pattern!r}]: {error}") from error
            except TypeError:  # of an optimiser of the user's: its constructor takes more than numbers
                continue
            if other.slots != self.slots:
                raise ArgumentError(f"groups[{pattern!r}] has {', '.join(options)}, which changes the state: set it for all parameters")
        return found

    def prepare(self, params: Mapping[str, Param]) -> None:
        """Make the state arrays, as zeros, if there are none; after a copy, move them to where one kernel call updates many."""
        if self._flat is not None and (self.state or not self.slots):
            return
        flats: dict[FlatParameters, list[FlatArray]] = {}
        seen: set[Param] = set()  # a parameter with two names has two states, of which one lies in the flat arrays
        states: list[list[Any]] = []
        for param in params.values():
            layout = param.layout
            if layout is None or param in seen or not layout.holds(param):
                states.append([zeros_like(param.value) for _ in self.slots])
                continue
            seen.add(param)
            if layout not in flats:
                flats[layout] = [layout.zeros() for _ in self.slots]
            states.append([array.views[param.index] for array in flats[layout]])
        made = {f"{slot}.{name}": array for slot, arrays in zip(self.slots, zip(*states)) for name, array in zip(params, arrays)}
        state = {name: _moved(array, made.get(name)) for name, array in self.state.items()} or made
        changes = {"_flat": flats, "state": state, "_found": _Found()}
        commit([partial(setattr, self, name, value) for name, value in changes.items()])

    def step(self, params: Mapping[str, Param], backend: Backend, lr: float | None = None) -> None:
        """Update every trainable parameter from its gradient, once: after an exception, all of them are updated, or none.

        Args:
            params: by name, as model.params gives them.
            backend: runs the kernels.
            lr: learning rate of this step; None uses the optimiser's own.
        Raises:
            ArgumentError: the state belongs to other parameters, or an array is not contiguous; nothing has changed.
        """
        try:
            commit(self.calls(params, backend, lr))
        except BaseException:
            commit(self.undo)
            raise

    def calls(self, params: Mapping[str, Param], backend: Backend, lr: float | None = None) -> list[Call]:
        """The calls that make a step, for nbnet.runtime.commit. Nothing has changed yet; after an exception, commit `undo`.

        Args, Raises: as in `step`.
        """
        self.prepare(params)
        changes, found = Watched.changes, self._found
        same = changes == found.changes and len(params) == len(found.params) and self.groups == found.groups
        if not same or not all(map(is_, params.values(), found.params)):
            found = self._find(params, changes)
        step, lr = self.steps + 1, self.lr if lr is None else lr
        calls = [partial(setattr, self, "steps", step)]
        if backend.name not in ("serial", "parallel") or type(self)._update is not Optimizer._update:  # an update in Python
            if backend.name != "cuda":  # no copies there: an interruption may come between these calls
                self._prepare_undo(found.runs)
            for run in found.runs:
                own, rate = self._in_group(run, step, lr) if run.options else (self, lr)
                calls.append(partial(own._update, backend, run.value, run.grad, list(run.slots), rate))
            return [*calls, partial(setattr, self, "undo", [])]
        for run in found.runs:
            own, rate = self._in_group(run, step, lr) if run.options else (self, lr)
            op, args = own._call(run.value, run.grad, run.slots, rate, step)
            kernel = backend.kernel(op)
            if run.kernel is not kernel:
                run.compile(kernel, args)
            calls.append(partial(run.code, *args))
        return calls

    def _in_group(self, run: _Run, step: int, lr: float) -> tuple[Optimizer, float]:
        """What makes the update of a run with options of its own: the optimiser with these, and the learning rate."""
        options = run.options | {"steps": step}
        lr *= options.pop("lr_scale", 1.0)
        other: Optimizer = object.__new__(type(self))
        vars(other).update(vars(self) | options)
        return other, lr

    def _find(self, params: Mapping[str, Param], changes: int) -> _Found:
        """The runs of the parameters as they are; those found before, if nothing about them has changed."""
        arrays = [array for param in params.values() if param.trainable for array in (param.value, param.grad)]
        runs, known = self._found.runs, self._found.arrays
        if len(arrays) != len(known) or self.groups != self._found.groups or not all(map(is_, arrays, known)):
            self.check_owner(params)
            self._check_state(params)
            runs = self._find_runs(params)
        self._found = _Found(changes, list(params.values()), arrays, runs, {pattern: dict(own) for pattern, own in self.groups.items()})
        return self._found

    def check_owner(self, params: Mapping[str, Param]) -> None:
        """Check that these are the parameters of the updates so far: state of others would spoil them. Groups must be of these too.

        Raises:
            ArgumentError: they are not, or a pattern of the groups fits none of them.
        """
        groups.check_patterns(self.groups, params)
        known = self._found.params  # none before the first update, and in a copy
        if known and not set(known).issuperset(params.values()):
            raise ArgumentError(
                f"this optimiser has made {self.steps} updates of another model's parameters: make a new one for this model, {self!r}"
            )

    def _prepare_undo(self, runs: list[_Run]) -> None:
        """Copy what an update in Python will change. The update gets the arrays themselves, so that it finds the same objects each time."""
        undo: list[Call] = []
        for run in runs:
            targets = [run.value, *run.slots]
            if run.copies is None:  # kept: fresh memory costs more than the copy
                run.copies = [np.empty_like(array) for array in targets]
            for copied, array in zip(run.copies, targets):
                np.copyto(copied, array)
                undo.append(assignment(array, copied))
        self.undo = [*undo, partial(setattr, self, "steps", self.steps), partial(setattr, self, "undo", [])]

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

    def _find_runs(self, params: Mapping[str, Param]) -> list[_Run]:
        """The arrays of each kernel call: one call for trainable neighbours in a layout with the same options, one for any other
        parameter."""
        runs: list[_Run] = []
        before: tuple[Any, ...] = ()  # layout, next index and options of the previous parameter
        first = 0  # index of the first parameter of the run
        for name, param in params.items():
            if not param.trainable:
                continue
            layout, index = param.layout, param.index
            options = groups.options_of(name, self.groups)
            arrays = [param.value, param.grad, *(self.state[f"{slot}.{name}"] for slot in self.slots)]
            flat = None if layout is None or self._flat is None else self._flat.get(layout)
            if self.by_parameter:
                runs.append(_Run(options, *arrays))
                continue
            if layout is None or flat is None or not layout.holds(param) or any(a is not f.views[index] for a, f in zip(arrays[2:], flat)):
                runs.append(_Run(options, *(array.reshape(-1) for array in arrays)))
                before = ()
                continue
            if before == (layout, index, options):
                runs.pop()
            else:
                first = index
            runs.append(_Run(options, *layout.run([layout.values, layout.grads, *flat], first, index)))
            before = layout, index + 1, options
        return runs

    def _update(self, backend: Backend, value: Any, grad: Any, slots: list[Any], lr: float) -> None:
        """Update flat arrays (n,) in place, or a parameter in its shape (see by_parameter)."""
        op, args = self._call(value, grad, slots, lr, self.steps)
        backend.kernel(op)(*args)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        """The kernel that updates flat arrays (n,) in place at this step (1, 2, ...), and its arguments."""
        raise NotImplementedError


class _Run:
    """The flat arrays of one kernel call, and what its group changes."""

    def __init__(self, options: dict[str, Any], value: Any, grad: Any, *slots: Any) -> None:
        self.options, self.value, self.grad, self.slots = options, value, grad, list(slots)
        self.kernel: Any = None
        self.code: Any = None  # machine code of the kernel
        self.copies: list[Any] | None = None  # of value and slots before the step, for an update that is Python

    def compile(self, kernel: Any, args: tuple[Any, ...]) -> None:
        """Find the machine code for these arrays. It takes any number for a float."""
        numbers = [float(arg) if isinstance(arg, Real) and not isinstance(arg, bool) else arg for arg in args]
        self.code, self.kernel = compiled(kernel, tuple(numbers)), kernel


class _Found(NamedTuple):
    """The runs that were found. Arrays and parameters are kept as objects, since an id may be used again."""

    changes: int = -1  # Watched.changes then
    params: list[Param] = []
    arrays: list[Any] = []  # values and gradients of those that are trainable
    runs: list[_Run] = []
    groups: dict[str, dict[str, Any]] = {}


def _moved(array: Any, target: Any) -> Any:
    """The target with the values of an array that fits it, else the array."""
    if target is None or target.shape != array.shape or target.dtype != array.dtype:
        return array
    target[...] = array
    return target


def at_least_0(name: str, value: float) -> float:
    return checks.number(value, name, "a number that is at least 0", lambda number: 0 <= number < math.inf)


def fraction(name: str, value: float) -> float:
    return checks.number(value, name, "a number that is at least 0 and below 1", lambda number: 0 <= number < 1)


def tiny(dtype: Any) -> float:
    """What stands for eps = 0 beside a root that divides: the smallest normal number, so that 0 / 0 is 0 and nothing else changes."""
    return float(np.finfo(dtype).tiny)
