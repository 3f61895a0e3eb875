"""Sequential: layers one after another, and what a model offers."""

from __future__ import annotations

import html
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.errors import ArgumentError, BuildError, CallError, CheckpointError, MethodError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.hints import METHODS, explained
from nbnet.layers.activations import Softmax
from nbnet.layers.base import Layer, Shape, kind
from nbnet.layers.containers import Container, Context
from nbnet.layers.fusion import fuse, step_backward
from nbnet.layers.inputs import check_lengths, check_one
from nbnet.runtime.arrays import X_DTYPES, each, first, in_dtype, on_device, several, take, to_float
from nbnet.runtime.commit import assignment, commit
from nbnet.runtime.lazy import Lazy, is_lazy


class Sequential(Container):
    """Layers one after another. What forward saves is the tape: the tuple of what the layers saved.

    Args:
        layers: the layers in order; `model.layers` is the list, and `model.steps` what forward runs: build fuses some of them.
    Params and buffers are named by position and kind, "0.conv2d.weight", or by a layer's own name (see Layer.named). uint8 input is
    scaled to [0, 1]. A Sequential is a sequence of its layers: model[-1], model[:3], model["stem"], len(model), [*model].
    """

    replayable = True
    _pixels = "{x}.astype('uint8')"

    def __init__(self, layers: Iterable[Layer]):
        super().__init__()
        if not isinstance(layers, Iterable):
            raise ArgumentError(f"Sequential got {layers!r}, expected a list of layers: nb.Sequential([nb.Dense(10)])")
        self.layers = list(layers)
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise ArgumentError(f"Sequential got {layer!r}, expected layers such as nb.Dense(10)")

    def __getattr__(self, name: str) -> Any:
        """Only for what a model lacks."""
        hint = f": {METHODS[name]}" if name in METHODS else ""
        raise MethodError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise CallError("a model is not called: write model.predict(x), or y, saved = model.forward(x, train=True)")

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, key: Any) -> Any:
        """A layer by position or by name, or a slice: a Sequential with the layers themselves, so that it shares their parameters. That
        of a built model is built, if the layers follow each other."""
        if isinstance(key, str):
            return self.layers[self._position(key)]
        return self._part(self.layers[key]) if isinstance(key, slice) else self.layers[key]

    def trunk(self, until: str) -> Sequential:
        """The layers up to the one of this name and with it, as a slice: nb.Sequential([*model.trunk("flatten"), nb.Dense(5)]) trains them
        further, with a new head.

        Raises:
            ArgumentError: there is no such layer; the message suggests the nearest one.
        """
        return self._part(self.layers[: self._position(until) + 1])

    def _position(self, name: str) -> int:
        names = [each for each, _ in self._children()]
        if name not in names:
            raise ArgumentError(unknown("layer", name, names))
        return names.index(name)

    def _part(self, layers: list[Layer]) -> Sequential:
        part = Sequential(layers)
        follow = all(after.input_shape == before.output_shape for before, after in pairwise(layers))
        if self.input_shape is None or not layers or not follow or layers[0].input_shape is None:
            return part
        part.input_shape, part.output_shape = layers[0].input_shape, layers[-1].output_shape
        part.name, part._outermost = kind(part), True
        part.backend, part.dtype, part.seed, part.stream, part.fused = self.backend, self.dtype, self.seed, self.stream, self.fused
        part._arrange()
        return part

    def _layers(self) -> Sequence[Layer]:
        return self.layers

    def _make(self, input_shape: Shape, context: Context) -> Shape:
        if not self.layers and not context.name:  # within another layer it is the identity
            raise BuildError("this Sequential has no layers: expected at least one, such as nb.Dense(10)")
        shape, before = input_shape, "the input"
        for name, layer in self._children():
            child = context.child(name)
            try:
                shape = layer._build(shape, child)
            except ShapeError as error:
                raise ShapeError(f"layer {child.name} does not fit {before}, which gives {shape}: {error}") from None
            before = f"layer {child.name}"
        self.fused = context.fuse
        self._arrange()
        return shape

    def _arrange(self) -> None:
        self.steps = fuse(self.layers) if self.fused else list(self.layers)
        self._gather()

    def as_input(self, x: Any) -> Any:
        """x in the form of the first layer's input: checked, and scaled to [0, 1] if it is uint8. Several inputs: a tuple of arrays."""
        if self.input_shape is None or (type(x) is np.ndarray and x.dtype != np.uint8):
            return self.check_input(x)
        if not several(self.input_shape):
            return self.check_input(self._scaled(x, self.input_shape))
        return self.check_input(tuple([self._scaled(part, shape) for part, shape in self._inputs(x)]))

    def _scaled(self, x: Any, shape: Shape) -> Any:
        """One input, as floats if it is uint8."""
        if type(x) is not np.ndarray and not on_device(x):
            check_one(x, shape, self.name)
        array = x if on_device(x) else checks.as_array(x, "x")
        return to_float(array, self.backend.on_host(array.shape, self.dtype)) if array.dtype == np.uint8 else x

    def check_rows(self, x: Any) -> Any:
        """x (N, ...), uint8, float32 or float64, as an array whose batches, as `in_dtype` gives them, `forward` takes; or several inputs.
        One that is not in memory is a Lazy.

        Raises:
            BuildError: the model is not built. ShapeError, DTypeError: x does not fit; the message takes all rows into account.
        """
        if self.input_shape is None:
            raise BuildError("the model is not built yet: call model.build(input_shape) first")
        if not several(self.input_shape):
            return self._check_rows(x, self.input_shape, "x")
        arrays = tuple([self._check_rows(part, shape, f"x[{i}]") for i, (part, shape) in enumerate(self._inputs(x))])
        check_lengths(arrays)
        return arrays

    def _check_rows(self, x: Any, shape: Shape, name: str) -> Any:
        check_one(x, shape, self.name)
        lazy = x if isinstance(x, Lazy) else Lazy(x, name) if is_lazy(x) else None
        array = checks.as_array(x, name) if lazy is None else lazy
        if array.shape[1:] != shape or array.dtype not in X_DTYPES:
            self._check_array(x if lazy is None else np.broadcast_to(np.zeros((), lazy.dtype), lazy.shape), shape, name)
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
        lowest = 0 if need_dx else next((i for i, step in enumerate(self.steps) if step.params), len(self.steps))
        for i in range(len(self.steps) - 1, lowest - 1, -1):
            step, of_step = self.steps[i], saved.pop() if isinstance(saved, list) else saved[i]
            above = self.steps[i + 1] if i + 1 < len(self.steps) else None
            held = self._hold(i) if self._shared else ()
            dy = step_backward(step, above, dy, of_step, need_dx or i > lowest)
            self._add_held(held)
        return dy if need_dx else None

    @explained("predict(x)")
    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """The outputs for x on moving statistics, batch by batch: (N, ...) in the model's dtype. x: uint8, float32 or float64.

        A model with several inputs takes a tuple of arrays, one with several outputs returns a tuple.

        Raises:
            BuildError: the model is not built. ShapeError, DTypeError, ArgumentError: x or batch_size does not fit.
        """
        x, batch_size = self.check_rows(x), checks.whole(batch_size, "batch_size")
        count = len(first(x))
        y = each(lambda shape: np.empty((count, *shape), self.dtype), self.output_shape)
        for start in range(0, count, batch_size):
            rows = slice(start, start + batch_size)
            batch, _ = self.forward(in_dtype(take(x, rows), self.dtype))
            each(lambda array, values, rows=rows: operator.setitem(array, rows, values), y, batch)
        return y

    def predict_proba(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Class probabilities for x: the softmax of `predict` over the last axis, computed in float64: (N, classes) float64.

        A model that ends with Softmax gives probabilities already: they are returned as `predict` gives them.

        Raises:
            as `predict` does.
        """
        if several(self.output_shape):
            raise ShapeError(f"predict_proba is for one output, the model has {len(self.output_shape)}: use predict(x)")
        y = self.predict(x, batch_size)
        if ends_with_softmax(self):
            return y
        logits = y.astype(np.float64)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def summary(self) -> None:
        """Print a table of the layers, those of branches indented: output shape, parameters, buffers, multiply-adds for one example, and
        which step of its container each runs in."""
        from nbnet.layers.summary import show

        if self.input_shape is None:
            raise BuildError("the model is not built yet: call model.build(input_shape) first")
        show(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the summary, or, before `build`, the code."""
        from nbnet.layers.summary import as_html

        return f"<pre>{html.escape(repr(self))}</pre>" if self.input_shape is None else as_html(self)

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

    def load_weights(self, path: str | Path, strict: bool = True, rename: Mapping[str, str] | None = None) -> storage.LoadReport:
        """Read what save_weights or Trainer.save wrote: everything, or nothing on an error.

        Args:
            strict: False loads what fits, by name, shape and dtype, and leaves the rest of the model as it is: a trained trunk for a
                new head.
            rename: by the name of an array in the file, or of a layer there, its name in this model: {"0.dense": "2.dense"}.
        Returns:
            the names that were loaded, those that were not, and why: `print(report)`.
        Raises:
            CheckpointError: the file cannot be read, holds NaN or infinity, or belongs to another model (not strict: nothing fits).
            ArgumentError: rename has a name that the file lacks, or gives two arrays one name.
        """
        arrays, _ = storage.read(path)
        state = self.state()
        found = {name: array for name, array in arrays.items() if not name.startswith(storage.NOT_OF_THE_MODEL)}
        found = storage.renamed(found, rename, path)
        if strict:
            storage.check_match(found, state, path)
        report = storage.compare(found, state)
        if state and not report.loaded:
            raise CheckpointError(f"{path} has no array that fits this model: it has {', '.join(found) or 'none'}")
        storage.check_finite(found, [name for name in self.params if name in report.loaded], path)
        commit([assignment(state[name], found[name]) for name in report.loaded])
        return report


def ends_with_softmax(model: Layer) -> bool:
    """Whether the outputs are probabilities already."""
    while isinstance(model, Sequential) and model.layers:
        model = model.layers[-1]
    return isinstance(model, Softmax)
