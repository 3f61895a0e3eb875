"""What all containers are: layers that run other layers, and gather their parameters and buffers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import is_
from typing import Any

from nbnet.errors import ArgumentError
from nbnet.layers.base import MARKS, Layer, Param, Shape, kind
from nbnet.layers.base import Context as Context
from nbnet.runtime.commit import Call
from nbnet.runtime.stage import Stage


class Container(Layer):
    """Base of containers. A subclass has its layers in order, `_layers`, and in `steps` what forward runs, in the order of forward.

    Backward runs the steps in reverse order. Each overwrites the gradients of its parameters, and where a step has parameters that a
    later one has too, they are added: `_hold` and `_add_held` around its backward.
    """

    several_inputs = True
    _gathered_from: Sequence[dict[str, Any]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Stage] = []
        self._shared: list[list[Param]] = []  # of each step, the parameters that later steps have too; empty if there are none at all

    def __repr__(self) -> str:
        """Code in which a layer in several places has a name: nb.Parallel([(shared0 := nb.Dense(3)), shared0])."""
        places = Counter(id(child) for each in self.walk() if isinstance(each, Container) for child in each._layers())
        shared = [layer for layer in self.walk() if places[id(layer)] > 1]
        if MARKS.get() or not shared:
            return super().__repr__()
        marks = {id(layer): f"\0{i}\0" for i, layer in enumerate(shared)}
        before = MARKS.set(marks)
        try:
            text = self._code()
            for i, layer in enumerate(shared):  # outer ones first
                text = text.replace(marks[id(layer)], f"(shared{i} := {layer._code()})", 1)
            return re.sub("\0([0-9]+)\0", r"shared\1", text)
        finally:
            MARKS.reset(before)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Its arrays are those of its layers, also where each reference to an array became an array (as joblib copies them)."""
        super().__setstate__(state)
        for child in self._layers():
            if "_params" not in vars(child):  # it has no state yet: the copy began there
                raise ArgumentError(
                    f"the copy began at a {type(child).__name__} that refers to the {type(self).__name__} around it, "
                    "expected to begin at the outermost model: copy or pickle that instead"
                )
        names = self._params.keys(), self._buffers.keys()
        gathered = self._gathered()
        if (gathered[0].keys(), gathered[1].keys()) == names:
            self._params, self._buffers = gathered

    def _is_kept(self, input_shape: Shape, context: Context) -> bool:
        return False  # its layers may be

    def refresh(self) -> None:
        """Gather the parameters and buffers again if a layer has others: a model that shares it was built with rebuild=True."""
        for child in self._layers():
            if isinstance(child, Container):
                child.refresh()
        if not all(map(is_, self._dicts(), self._gathered_from)):
            self._gather()

    def _move_buffers(self, moved: dict[int, Any]) -> None:
        for child in self._layers():
            child._move_buffers(moved)
        self._gather()

    def _children(self) -> list[tuple[str, Layer]]:
        """The layers with their names: their own, or position and kind.

        Raises:
            ArgumentError: two layers have the same name of their own.
        """
        children = [(layer.label or f"{i}.{kind(layer)}", layer) for i, layer in enumerate(self._layers())]
        known: dict[str, Layer] = {}
        for name, layer in children:
            if known.setdefault(name, layer) is not layer:
                raise ArgumentError(f"{kind(self)} has two layers with the name {name!r}: expected another name for each")
        return children

    def _layers(self) -> Sequence[Layer]:
        """The layers without their names, which take time to make."""
        raise NotImplementedError

    def multiply_adds(self) -> int:
        return sum(child.multiply_adds() for child in self._layers())

    def apply_updates(self) -> None:
        for child in self._layers():
            child.apply_updates()

    def waiting_updates(self) -> list[Call]:
        return [call for child in self._layers() for call in child.waiting_updates()]

    def _walk(self) -> Iterator[Layer]:
        yield self
        for child in self._layers():
            yield from child._walk()

    def inner(self) -> Sequence[Stage]:
        return self.steps

    def contents(self) -> list[Callable[[], Iterable[Any]]]:
        return [*super().contents(), self.steps.__iter__]

    def _arrange(self) -> None:
        """Make the steps of the layers, once they are built, and gather their parameters and buffers."""
        self.steps = list(self._layers())
        self._gather()

    def _gather(self) -> None:
        self._params, self._buffers = self._gathered()
        self._gathered_from = list(self._dicts())
        shared, later = [], set[Param]()
        for step in reversed(self.steps):
            params = dict.fromkeys(step.params.values())
            shared.append([param for param in params if param in later])
            later.update(params)
        self._shared = shared[::-1] if any(shared) else []

    def _dicts(self) -> Iterator[dict[str, Any]]:
        """Where the layers have their parameters and buffers: `build` makes new dicts."""
        return (each for child in self._layers() for each in (child.params, child.buffers))

    def _gathered(self) -> tuple[dict[str, Param], dict[str, Any]]:
        """Parameters and buffers by path. One that is in several places has the path of the first."""
        params: dict[int, tuple[str, Param]] = {}
        buffers: dict[int, tuple[str, Any]] = {}
        for name, child in self._children():
            for key, param in child.params.items():
                params.setdefault(id(param), (f"{name}.{key}", param))
            for key, array in child.buffers.items():
                buffers.setdefault(id(array), (f"{name}.{key}", array))
        return dict(params.values()), dict(buffers.values())

    def _hold(self, i: int) -> list[tuple[Any, Any]]:
        """The gradients that later steps wrote for parameters of step i too, and copies of them: its backward will overwrite them."""
        held = []
        for param in self._shared[i]:
            grad = param.grad.reshape(-1)
            copy = self.backend.empty(grad.shape, grad.dtype)
            self.backend.kernel("array.scale")(grad, 1.0, copy)
            held.append((grad, copy))
        return held

    def _add_held(self, held: Sequence[tuple[Any, Any]]) -> None:
        for grad, copy in held:
            self.backend.kernel("array.add")(grad, copy, grad)
