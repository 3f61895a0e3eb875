"""Containers: Sequential runs layers one after another, Residual adds a branch to its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.errors import ArgumentError, BuildError, CallError, CheckpointError, MethodError, ShapeError
from nbnet.functional import checks
from nbnet.hints import METHODS, explained
from nbnet.layers.activations import Softmax
from nbnet.layers.base import Context, Layer, Param, Shape, kind
from nbnet.layers.fusion import FusedStep, fuse, step_backward
from nbnet.runtime.arrays import X_DTYPES, in_dtype, on_device, to_float
from nbnet.runtime.commit import Call, assignment, commit
from nbnet.runtime.stage import Stage


class _Container(Layer):
    """Base of containers: named children, whose parameters and buffers they gather."""

    _gathered_from: Sequence[dict[str, Any]] = ()

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
            if isinstance(child, _Container):
                child.refresh()
        if not all(map(is_, self._dicts(), self._gathered_from)):
            _Container._arrange(self)

    def _children(self) -> dict[str, Layer]:
        raise NotImplementedError

    def _layers(self) -> Sequence[Layer]:
        """The children without their names, which take time to make."""
        raise NotImplementedError

    def apply_updates(self) -> None:
        for child in self._layers():
            child.apply_updates()

    def waiting_updates(self) -> list[Call]:
        return [call for child in self._layers() for call in child.waiting_updates()]

    def walk(self) -> Iterator[Layer]:
        yield self
        for child in self._layers():
            yield from child.walk()

    def inner(self) -> Sequence[Stage]:
        return self._layers()

    def _arrange(self) -> None:
        """Gather the parameters and buffers of the children, once they are built."""
        self._params, self._buffers = self._gathered()
        self._gathered_from = list(self._dicts())

    def _dicts(self) -> Iterator[dict[str, Any]]:
        """Where the children have their parameters and buffers: `build` makes new dicts."""
        return (each for child in self._layers() for each in (child.params, child.buffers))

    def _gathered(self) -> tuple[dict[str, Param], dict[str, Any]]:
        children = self._children().items()
        params = {f"{name}.{key}": param for name, child in children for key, param in child.params.items()}
        return params, {f"{name}.{key}": array for name, child in children for key, array in child.buffers.items()}


class Sequential(_Container):
    """Layers one after another. What forward saves is the tape: the tuple of what the layers saved.

    Args:
        layers: the layers in order; `model.layers` is the list, and `model.steps` what forward runs: build fuses some of them.
    Params and buffers are named by position and kind: "0.conv2d.weight". uint8 input is scaled to [0, 1].
    """

    replayable = True
    _pixels = "{x}.astype('uint8')"

    def __init__(self, layers: Iterable[Layer]):
        super().__init__()
        self.layers = list(layers)
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise ArgumentError(f"Sequential got {layer!r}, expected layers such as nb.Dense(10)")
        self.steps: list[Stage] = []
        if len({id(layer) for layer in self.layers}) != len(self.layers):
            raise ArgumentError("Sequential got the same layer object twice: expected a new layer for each position")

    def __getattr__(self, name: str) -> Any:
        """Only for what a model lacks."""
        hint = f": {METHODS[name]}" if name in METHODS else ""
        raise MethodError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise CallError("a model is not called: write model.predict(x), or y, saved = model.forward(x, train=True)")

    def _children(self) -> dict[str, Layer]:
        return {f"{i}.{kind(layer)}": layer for i, layer in enumerate(self.layers)}

    def _layers(self) -> Sequence[Layer]:
        return self.layers

    def _build(self, input_shape: Shape, context: Context) -> Shape:
        if not self.layers and not context.name:  # within another layer it is the identity
            raise BuildError("this Sequential has no layers: expected at least one, such as nb.Dense(10)")
        super()._build(input_shape, context)
        shape, before = input_shape, "the input"
        for name, layer in self._children().items():
            child = context.child(name)
            try:
                shape = layer._build(shape, child)
            except ShapeError as error:
                raise ShapeError(f"layer {child.name} does not fit {before}, which gives {shape}: {error}") from None
            before = f"layer {child.name}"
        self.output_shape = shape
        self.fused = context.fuse
        self._arrange()
        return shape

    def _arrange(self) -> None:
        super()._arrange()
        self.steps = fuse(self.layers) if self.fused else list(self.layers)

    def inner(self) -> Sequence[Stage]:
        return self.steps

    def contents(self) -> list[Callable[[], Iterable[Any]]]:
        return [*super().contents(), self.steps.__iter__]

    def as_input(self, x: Any) -> Any:
        """x in the form of the first layer's input: checked, and scaled to [0, 1] if it is uint8."""
        array = x if on_device(x) else checks.as_array(x, "x")
        if array.dtype == np.uint8 and self.input_shape is not None:
            x = to_float(array, self.backend.on_host(array.shape, self.dtype))
        return self.check_input(x)

    def check_rows(self, x: Any) -> np.ndarray:
        """x (N, ...), uint8, float32 or float64, as an array whose batches, as `in_dtype` gives them, `forward` takes.

        Raises:
            BuildError: the model is not built. ShapeError, DTypeError: x does not fit; what to do follows from all its rows.
        """
        array = checks.as_array(x, "x")
        if self.input_shape is None:
            raise BuildError("the model is not built yet: call model.build(input_shape) first")
        if array.shape[1:] != self.input_shape or array.dtype not in X_DTYPES:
            self.check_input(x)
        return array

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.as_input(x)
        tape = []
        for step in self.steps:
            x, saved = step.forward(x, train)
            tape.append(saved)
        return x, tuple(tape) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        """dx. `saved` is the tape; a list is emptied on the way, so that its memory can be used again."""
        checks.from_training(saved)
        # Without dx, nothing below the first step with parameters is needed.
        first = 0 if need_dx else next((i for i, step in enumerate(self.steps) if step.params), len(self.steps))
        for i in range(len(self.steps) - 1, first - 1, -1):
            step, of_step = self.steps[i], saved.pop() if isinstance(saved, list) else saved[i]
            above = self.steps[i + 1] if i + 1 < len(self.steps) else None
            dy = step_backward(step, above, dy, of_step, need_dx or i > first)
        return dy if need_dx else None

    @explained("predict(x)")
    def predict(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The outputs for x on moving statistics, batch by batch: (N, ...) in the model's dtype. x: uint8, float32 or float64.

        Raises:
            BuildError: the model is not built. ShapeError, DTypeError, ArgumentError: x or batch_size does not fit.
        """
        x, batch_size = self.check_rows(x), checks.whole(batch_size, "batch_size")
        y = np.empty((len(x), *self.output_shape), self.dtype)
        for start in range(0, len(x), batch_size):
            y[start : start + batch_size] = self.forward(in_dtype(x[start : start + batch_size], self.dtype))[0]
        return y

    def predict_proba(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Class probabilities for x: the softmax of `predict` over the last axis, computed in float64: (N, classes) float64.

        A model that ends with Softmax gives probabilities already: they are returned as `predict` gives them.

        Raises:
            as `predict` does.
        """
        y = self.predict(x, batch_size)
        if self.ends_with_softmax():
            return y
        logits = y.astype(np.float64)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def ends_with_softmax(self) -> bool:
        """Whether the outputs are probabilities already."""
        last: Layer = self
        while isinstance(last, Sequential) and last.layers:
            last = last.layers[-1]
        return isinstance(last, Softmax)

    def summary(self) -> None:
        """Print a table of the layers: output shape, parameters, buffers, and which step each runs in."""
        from rich.console import Console
        from rich.table import Table

        if self.input_shape is None:
            raise BuildError("the model is not built yet: call model.build(input_shape) first")
        table = Table("layer", "output shape")
        table.add_column("parameters", justify="right")
        table.add_column("buffers", justify="right")
        table.add_column("step", justify="right")  # layers of one step are fused
        step_of = {id(layer): str(i) for i, step in enumerate(self.steps) for layer in _layers(step)}
        for name, layer in self._children().items():
            sizes = _size(p.value for p in layer.params.values()), _size(layer.buffers.values())
            shape = str(("N", *layer.output_shape)).replace("'", "")
            table.add_row(name, shape, *(f"{n:,}" if n else "" for n in sizes), step_of[id(layer)])
        table.add_section()
        table.add_row("total", "", f"{_size(p.value for p in self.params.values()):,}", f"{_size(self.buffers.values()):,}")
        Console().print(table)

    def state(self) -> dict[str, np.ndarray]:
        """Every parameter value and buffer by name: the arrays themselves."""
        self.refresh()
        return {name: param.value for name, param in self.params.items()} | self.buffers

    def save_weights(self, path: str | Path) -> None:
        """Write parameters and buffers (moving statistics too) to a safetensors file.

        Raises:
            CheckpointError: the file cannot be written.
        """
        storage.write(path, self.state(), {"format": "nbnet weights"})

    def load_weights(self, path: str | Path, strict: bool = True) -> storage.LoadReport:
        """Read what save_weights or Trainer.save wrote: everything, or nothing on an error.

        Args:
            strict: False loads what fits, by name, shape and dtype, and leaves the rest of the model as it is: a trained trunk for a
                new head.
        Returns:
            the names that were loaded, and those that were not.
        Raises:
            CheckpointError: the file cannot be read, holds NaN or infinity, or belongs to another model (not strict: nothing fits).
        """
        arrays, _ = storage.read(path)
        state = self.state()
        found = {name: array for name, array in arrays.items() if not name.startswith(storage.NOT_OF_THE_MODEL)}
        if strict:
            storage.check_match(found, state, path)
        report = storage.compare(found, state)
        if state and not report.loaded:
            raise CheckpointError(f"{path} has no array that fits this model: it has {', '.join(found) or 'none'}")
        storage.check_finite(found, [name for name in self.params if name in report.loaded], path)
        commit([assignment(state[name], found[name]) for name in report.loaded])
        return report


class Residual(_Container):
    """y = body(x) + shortcut(x)   (He, Zhang, Ren and Sun 2016).

    Args:
        body: a layer, or a list of layers.
        shortcut: a layer or a list of layers; None is the identity.
    """

    replayable = True

    def __init__(self, body: Layer | Iterable[Layer], shortcut: Layer | Iterable[Layer] | None = None):
        super().__init__()
        self.body = body if isinstance(body, Layer) else Sequential(body)
        self.shortcut = Sequential(()) if shortcut is None else shortcut if isinstance(shortcut, Layer) else Sequential(shortcut)

    def _children(self) -> dict[str, Layer]:
        return {"body": self.body, "shortcut": self.shortcut}

    def _layers(self) -> Sequence[Layer]:
        return self.body, self.shortcut

    def _build(self, input_shape: Shape, context: Context) -> Shape:
        super()._build(input_shape, context)
        shape = self.body._build(input_shape, context.child("body"))
        other = self.shortcut._build(input_shape, context.child("shortcut"))
        if shape != other:
            raise ShapeError(
                f"Residual: the body gives {shape} and the shortcut {other}; give the shortcut a Conv2D(filters, 1, stride) that fits"
            )
        self._arrange()
        self.output_shape = shape
        return shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, body = self.body.forward(x, train)
        z, shortcut = self.shortcut.forward(x, train)
        return self._add(y, z), (body, shortcut) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy = self.backend.place(dy)
        dx = self.body.backward(dy, saved[0], need_dx)
        dz = self.shortcut.backward(dy, saved[1], need_dx)
        if dx is None or dz is None:
            return None
        return self._add(dx, dz)

    def _add(self, a: Any, b: Any) -> Any:
        total = self.backend.empty(a.shape, a.dtype)
        self.backend.kernel("array.add")(a.reshape(-1), b.reshape(-1), total.reshape(-1))
        return total


def _layers(step: Any) -> list[Any]:
    return step.layers if isinstance(step, FusedStep) else [step]


def _size(arrays: Iterable[np.ndarray]) -> int:
    return sum(array.size for array in arrays)
