"""What every layer is: parameters, buffers, and the pair forward and backward."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from nbnet import initializers, storage
from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, BuildError, DTypeError, ShapeError
from nbnet.functional import checks
from nbnet.hints import explained, warn
from nbnet.layers.buffer_memory import FlatBuffers, gathered
from nbnet.layers.inputs import Shape as Shape
from nbnet.layers.inputs import check_lengths, check_one, check_size, checked, plain
from nbnet.layers.parameters import FlatParameters, Param, check_ties
from nbnet.runtime.arrays import each, float_dtype, on_device, several
from nbnet.runtime.backend import Backend, get_backend
from nbnet.runtime.commit import Call
from nbnet.runtime.stage import Stage

LayerType = TypeVar("LayerType", bound="Layer")
MARKS: ContextVar[dict[int, str] | None] = ContextVar("MARKS", default=None)  # by id, what stands for layers in a repr that is made


class Context:
    """What a layer is built with. Streams number the layers in order, so that each has its own random numbers."""

    def __init__(
        self, backend: Backend, dtype: np.dtype, seed: int, streams: Iterator[int], fuse: bool, rebuild: bool, name: str = ""
    ) -> None:
        self.backend = backend
        self.dtype = dtype
        self.seed = seed
        self.streams = streams
        self.fuse = fuse
        self.rebuild = rebuild
        self.name = name
        self.built: set[int] = set()  # ids of the layers that this build has been at

    def child(self, name: str) -> Context:
        child = copy.copy(self)
        child.name = f"{self.name}.{name}" if self.name else name
        return child


class Layer(CodeRepr, Stage):
    """Base class of layers. A subclass defines

        create(input_shape) -> output_shape      # makes parameters and buffers: add_param, add_buffer
        forward(x, train=False) -> y, saved      # starts with x = self.check_input(x); saved: what backward needs
        backward(dy, saved, need_dx=True) -> dx  # overwrites the gradients; dx may be None if need_dx is False

    They must not change x and dy in place. Shapes leave out the batch axis. `params` belong to optimisers; `buffers` (moving
    statistics, counters) do not, and change only in forward(train=True). Checkpoints hold both.

    A layer may be in several places of a model, with inputs of one shape: the places share its parameters, whose gradients are added.

    Attributes:
        several_inputs: whether x may be a tuple of arrays, and input_shape a tuple of shapes: of several inputs of a model, or of the
            outputs of nb.Parallel.
        replayable: whether the Trainer may record the layer's calls and repeat them without its Python (nbnet.runtime.replay). Set it
            to True only if forward(train=True) and backward look at shapes and settings, never at values, and compute only by
            `self.backend.kernel(...)` and `self.backend.run(...)`. If it is False, only this layer runs in Python. A subclass that
            defines its own methods must set it again; a container must return its layers from `inner()`.
        name, input_shape, output_shape, backend, dtype: known once the layer is built.
        label: a name of its own, which `named` gives.
    """

    name = ""
    label = ""
    several_inputs = False
    input_shape: Shape | None = None
    output_shape: Shape = ()
    backend: Backend
    dtype: np.dtype
    _outermost = False  # whether it was built by itself, not by a container
    _flat_buffers: FlatBuffers | None = None  # on the GPU
    _pixels = "{x}.astype('{dtype}') / 255"  # code that makes an input of pixels, for error messages

    def __init__(self) -> None:
        self._params: dict[str, Param] = {}
        self._buffers: dict[str, Any] = {}

    def __copy__(self) -> Layer:
        """Another object with the same parameters, buffers and inner layers; copy.deepcopy copies these too."""
        twin: Layer = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        check_ties(self.params)
        state = vars(self)
        return state if self._flat_buffers is None else state | {"_flat_buffers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a deep copy and a pickle. A layer that is copied without its container has each parameter in arrays of its own."""
        vars(self).update(state)
        if self._outermost:
            FlatParameters.renew(self.params.values(), self.dtype, self.backend)
            self._gather_buffers()

    def __repr__(self) -> str:
        return (MARKS.get() or {}).get(id(self)) or self._code()

    def _code(self) -> str:
        return f"{CodeRepr.__repr__(self)}.named({self.label!r})" if self.label else CodeRepr.__repr__(self)

    def named(self: LayerType, label: str) -> LayerType:
        """This layer, with a name of its own: nb.Conv2D(32, 3).named("stem") is model["stem"], and has the parameter "stem.weight".

        Without one, its name in a container is position and kind, such as "0.conv2d".

        Raises:
            ArgumentError: the name is not a word. BuildError: the layer is built, and its parameters have names already.
        """
        if not isinstance(label, str) or not re.fullmatch(r"[\w-]+", label) or f"{label}.".startswith(storage.NOT_OF_THE_MODEL):
            raise ArgumentError(f"named({label!r}): expected a word such as 'stem', of letters, digits, '_' and '-'")
        if self.input_shape is not None:
            raise BuildError(f"layer {self.name} is built, and cannot become {label!r}: name it before build()")
        self.label = label
        return self

    def multiply_adds(self) -> int:
        """How many multiplications with an addition one example takes: each number of `weight` once for each place of the output. What
        other layers do is not counted."""
        weight = self._params.get("weight")
        return 0 if weight is None else weight.value.size * math.prod(self.output_shape[:-1])

    @property
    def params(self) -> dict[str, Param]:
        """Parameters by name, for example "weight"; a container's by path, for example "0.conv2d.weight"."""
        return self._params

    @property
    def buffers(self) -> dict[str, Any]:
        """Arrays by name that are saved but not trained; a container's by path."""
        return self._buffers

    def buffer_memory(self) -> list[Any]:
        """Arrays whose copies are copies of all buffers: on the GPU a few large ones."""
        buffers = self.buffers.values()
        return list(buffers) if self._flat_buffers is None else self._flat_buffers.memory(buffers)

    def _gather_buffers(self) -> None:
        """Move buffers on the GPU into few arrays."""
        if self.backend.name == "cuda" and any(map(on_device, self.buffers.values())):
            self._flat_buffers, moved = gathered(self.buffers.values(), self.backend)
            self._move_buffers(moved)

    def _move_buffers(self, moved: dict[int, Any]) -> None:
        """Replace buffers by the arrays that `moved` gives for their ids."""
        self._buffers = {name: moved.get(id(array), array) for name, array in self._buffers.items()}

    @explained("build((28, 28, 1))")
    def build(
        self,
        input_shape: Shape,
        *,
        backend: str | Backend = "parallel",
        dtype: Any = "float32",
        seed: int = 0,
        fuse: bool = True,
        rebuild: bool = False,
    ) -> Shape:
        """Make parameters and buffers for inputs of this shape; return the shape of the output.

        A layer that is already built, in this model or another, keeps its parameters and buffers: so a trained trunk can get a new head,
        and a second call changes nothing and warns. Two models that contain the same layer share its parameters.

        Args:
            input_shape: of one example, without the batch axis: (28, 28, 1). Of a model with several inputs: a tuple of their shapes.
            backend: "numpy", "serial", "parallel" or "cuda". dtype: "float32" or "float64".
            seed: initial parameters and dropout masks follow from it.
            fuse: whether containers run neighbouring layers in one pass where they can (nbnet.layers.fusion).
            rebuild: whether layers that are built already start again with new parameters and buffers.
        Raises:
            ShapeError: a layer does not fit its input. BackendError, DTypeError, ArgumentError: an option is wrong. BuildError: a layer was
                built for another shape, backend or dtype, a Sequential has no layers, or there is too little memory. All layers are then
                as they were before.
        """
        shape = checked(input_shape)
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ArgumentError(f"seed={seed!r}: expected a whole number from 0 to 2^64 - 1")
        context = Context(get_backend(backend), float_dtype(dtype), int(seed), itertools.count(), fuse, bool(rebuild))
        again = self.input_shape is not None and not rebuild
        before = [(layer, vars(layer).copy()) for layer in self.walk()]
        try:
            output_shape = self._build(shape, context)
            FlatParameters.gather(self.params.values(), self.dtype, self.backend)
            self._gather_buffers()
        except Exception as error:
            for layer, attributes in before:
                vars(layer).clear()
                vars(layer).update(attributes)
            if isinstance(error, MemoryError):
                raise BuildError(f"the arrays for input_shape={shape} do not fit into memory: expected smaller layers") from error
            raise
        if again and self.params:
            warn(f"{self.name} is built already and keeps its parameters: for new ones use build({shape}, rebuild=True)")
        return output_shape

    def _build(self, input_shape: Shape, context: Context) -> Shape:
        if id(self) in context.built:
            if input_shape != self.input_shape:
                raise ShapeError(
                    f"layer {self.name} is used again, for inputs of shape {input_shape} after {self.input_shape}: expected the same "
                    f"shape in each place, or a new {type(self).__name__} here"
                )
            return self.output_shape
        if several(input_shape) and not self.several_inputs:
            raise ShapeError(
                f"{type(self).__name__} takes one input, got {len(input_shape)}, of shapes {input_shape}: join them before it, with "
                "nb.Concat(), nb.Add() or nb.Multiply()"
            )
        context.built.add(id(self))
        kept = self._is_kept(input_shape, context)
        self.name = context.name or kind(self)
        self._outermost = not context.name
        self.backend = context.backend
        self.dtype = context.dtype
        self.seed = context.seed
        self.stream = next(context.streams)
        if kept:
            return self.output_shape
        self._rng = initializers.generator(self.seed, self.stream)
        self._params, self._buffers = {}, {}
        each(check_size, input_shape)
        shape = self._make(input_shape, context)
        try:
            self.output_shape = plain(shape)
        except TypeError:
            expected = f"expected the shape of one output, such as {input_shape}"
            raise ShapeError(f"{type(self).__name__}.create returned {shape!r}, {expected}") from None
        self.input_shape = input_shape
        return self.output_shape

    def _make(self, input_shape: Shape, context: Context) -> Shape:
        """What `create` does; a container builds its layers."""
        return self.create(input_shape)

    def _is_kept(self, input_shape: Shape, context: Context) -> bool:
        """Whether this layer has parameters or buffers already, which `build` keeps.

        Raises:
            BuildError: they are for another shape, backend or dtype.
        """
        if context.rebuild or self.input_shape is None or not (self._params or self._buffers):
            return False
        if (self.input_shape, self.backend, self.dtype) != (input_shape, context.backend, context.dtype):
            raise BuildError(
                f"layer {context.name or kind(self)} was built for {self.input_shape} in {self.dtype} on {self.backend.name!r}, got "
                f"{input_shape} in {context.dtype} on {context.backend.name!r}: use a new layer, or rebuild=True, which drops what it has "
                "learnt"
            )
        return True

    # ------------------------------------------------------------------------------------------ for layers of your own

    def create(self, input_shape: Shape) -> Shape:
        """Make parameters and buffers for inputs of this shape, with `add_param` and `add_buffer`; return the shape of the output.

        Raises:
            ShapeError: the layer does not fit such inputs.
        """
        return input_shape

    def add_param(self, name: str, shape: Shape, initializer: Any = "zeros", regularizer: Any = None) -> None:
        """Make a parameter, in `create`: `self.params[name].value` and `.grad` are arrays of this shape in the layer's dtype.

        Args:
            initializer: a name, such as "he_normal", or a function (rng, shape) -> array (see nbnet.initializers).
            regularizer: None, or a function of the value whose result is added to the gradient (see nbnet.regularizers).
        Raises:
            ShapeError: the initializer returned another shape. ArgumentError: the name is taken.
        """
        self._check_name(name)
        shape = tuple(shape)
        check_size(shape)
        value = np.asarray(initializers.get(initializer)(self._rng, shape))
        if value.shape != shape:
            raise ShapeError(f"the initializer of {name} returned shape {value.shape}, expected {shape}")
        param = Param(self.backend.place(np.array(value, self.dtype)))
        param.regularizer = regularizer
        self._params[name] = param

    def add_buffer(self, name: str, values: Any, dtype: Any = None, on_host: bool = False) -> None:
        """Make a buffer, in `create`: an array with these values that is saved in checkpoints but not trained.

        Args:
            dtype: None is the layer's. on_host: keep it in NumPy on any backend, as a counter.
        """
        self._check_name(name)
        array = np.array(values, self.dtype if dtype is None else dtype)
        self._buffers[name] = array if on_host else self.backend.place(array)

    def _check_name(self, name: str) -> None:
        if name in self._params or name in self._buffers:
            raise ArgumentError(f"{kind(self)} has a parameter or buffer {name!r} already: expected another name")

    def check_input(self, x: Any) -> Any:
        """x as a contiguous batch of what this layer was built for, where its backend computes.

        Raises:
            BuildError: the layer is not built. ShapeError, DTypeError: x does not fit.
        """
        if type(x) is np.ndarray and x.shape[1:] == self.input_shape and x.dtype == self.dtype and x.shape[0]:  # in every step
            return self.backend.place(x)
        if self.input_shape is None:
            raise BuildError(f"{kind(self)} is not built yet: call build(input_shape) first")
        if not several(self.input_shape):
            return self._check_array(x, self.input_shape, "x")
        arrays = tuple([self._check_array(part, shape, f"x[{i}]") for i, (part, shape) in enumerate(self._inputs(x))])
        check_lengths(arrays)
        return arrays

    def _inputs(self, x: Any) -> list[tuple[Any, Shape]]:
        """The inputs of a layer that takes several, each with its shape."""
        shapes: Any = self.input_shape
        if not isinstance(x, (tuple, list)) or len(x) != len(shapes):
            got = f"{len(x)}" if isinstance(x, (tuple, list)) else "one"
            raise ShapeError(f"layer {self.name} takes {len(shapes)} inputs, got {got}: expected a tuple of arrays, of shapes {shapes}")
        return list(zip(x, shapes))

    def _check_array(self, x: Any, shape: Shape, name: str) -> Any:
        """One input, checked; errors call it `name`."""
        given = x
        if type(x) is not np.ndarray and not on_device(x):
            check_one(x, shape, self.name)
            x = checks.as_array(x, name)
        if x.shape[1:] != shape or x.shape[0] == 0:
            expected = ", ".join(str(n) for n in shape)
            hint = checks.shape_hint(x.shape, shape, checks.in_code(given, name))
            raise ShapeError(f"layer {self.name} got {name} of shape {x.shape}, expected (N, {expected}) with N at least 1{hint}")
        if x.dtype != self.dtype:
            code = checks.in_code(given, name)
            hint = checks.dtype_hint(x, code, self.dtype, self._pixels.format(x=code, dtype=self.dtype))
            raise DTypeError(f"layer {self.name} got {name} of dtype {x.dtype}, expected {self.dtype}{hint}")
        return self.backend.place(x)

    def check_gradient(self, dy: Any, rows: int | None = None) -> Any:
        """dy as the gradient of what forward returned for so many rows, contiguous where this layer computes; None: any number of rows.

        Raises:
            ShapeError, DTypeError: dy does not fit.
        """
        dy = checks.floats(dy, "dy", dtype=self.dtype, be=self.backend)
        return checks.shaped(dy, "dy", (len(dy) if rows is None else rows, *self.output_shape), self.dtype, be=self.backend)

    def waiting_updates(self) -> list[Call]:
        """The calls that bring back the deferred updates as they are now, for nbnet.runtime.commit: later ones are dropped."""
        return []

    # ------------------------------------------------------------------------------------------------ walking, replay

    def walk(self) -> Iterator[Layer]:
        """This layer and all layers inside it, each once."""
        yield from {id(layer): layer for layer in self._walk()}.values()

    def _walk(self) -> Iterator[Layer]:
        yield self

    def contents(self) -> list[Callable[[], Iterable[Any]]]:
        return [self._params.values, self._buffers.values]


def kind(layer: Layer) -> str:
    """The class name in the form of layer names: "conv2d", "batchnorm"."""
    return type(layer).__name__.lower()


def image_shape(input_shape: Shape, layer: str) -> tuple[int, int, int]:
    """input_shape as (H, W, C).

    Raises:
        ShapeError: it is not an image.
    """
    if len(input_shape) != 3:
        raise ShapeError(f"{layer} got inputs of shape {input_shape}, expected images (H, W, C)")
    return input_shape[0], input_shape[1], input_shape[2]
