"""What every layer is: parameters, buffers, and the pair forward and backward."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from nbnet import initializers
from nbnet.errors import ArgumentError, BuildError, DTypeError, ShapeError
from nbnet.functional import checks
from nbnet.layers.parameters import FlatParameters, Param
from nbnet.runtime.backend import Backend, float_dtype, get_backend, on_device
from nbnet.runtime.watched import Watched

Shape = tuple[int, ...]


class Context:
    """What a layer is built with. Streams number the layers in order, so that each has random numbers of its own."""

    def __init__(self, backend: Backend, dtype: np.dtype, seed: int, streams: Iterator[int], fuse: bool, name: str = "") -> None:
        self.backend = backend
        self.dtype = dtype
        self.seed = seed
        self.streams = streams
        self.fuse = fuse
        self.name = name

    def child(self, name: str) -> Context:
        path = f"{self.name}.{name}" if self.name else name
        return Context(self.backend, self.dtype, self.seed, self.streams, self.fuse, path)


class Layer(Watched):
    """Base class of layers.

    A subclass defines `_create(input_shape) -> output_shape`, which makes its parameters and buffers, and

        forward(x, train=False) -> y, saved      # saved: what backward needs, None when train is False
        backward(dy, saved, need_dx=True) -> dx  # overwrites params[...].grad; dx may be None when need_dx is False

    Shapes leave out the batch axis. `params` belong to optimisers; `buffers` (moving statistics, counters) do not, and change
    only in forward(train=True). Checkpoints hold both.
    """

    name = ""
    input_shape: Shape | None = None
    output_shape: Shape = ()
    backend: Backend
    dtype: np.dtype

    def __init__(self) -> None:
        self._params: dict[str, Param] = {}
        self._buffers: dict[str, np.ndarray] = {}

    @property
    def params(self) -> dict[str, Param]:
        return self._params

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        return self._buffers

    def build(
        self, input_shape: Shape, *, backend: str | Backend = "parallel", dtype: Any = "float32", seed: int = 0, fuse: bool = True
    ) -> Shape:
        """Make parameters and buffers for inputs of this shape; return the shape of the output.

        Args:
            input_shape: of one example, without the batch axis: (28, 28, 1).
            backend: "numpy", "serial", "parallel" or "cuda". dtype: "float32" or "float64".
            seed: initial parameters and dropout masks follow from it.
            fuse: whether containers run neighbouring layers in one pass where they can (nbnet.layers.fusion).
        Raises:
            ShapeError: a layer does not fit its input. BackendError, DTypeError, ArgumentError: an option is wrong. All layers are
                then as they were.
        """
        shape = tuple(input_shape) if np.iterable(input_shape) else ()
        if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
            raise ShapeError(f"input_shape={input_shape!r}: wanted the positive sizes of one example, such as (28, 28, 1)")
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ArgumentError(f"seed={seed!r}: wanted a whole number from 0 to 2^64 - 1")
        context = Context(get_backend(backend), float_dtype(dtype), int(seed), itertools.count(), fuse)
        before = [(layer, vars(layer).copy()) for layer in self.walk()]
        try:
            output_shape = self._build(shape, context)
        except Exception:
            for layer, attributes in before:
                vars(layer).clear()
                vars(layer).update(attributes)
            raise
        FlatParameters(self.params.values(), self.dtype, self.backend)
        return output_shape

    def _build(self, input_shape: Shape, context: Context) -> Shape:
        self.name = context.name or kind(self)
        self.backend = context.backend
        self.dtype = context.dtype
        self.seed = context.seed
        self.stream = next(context.streams)
        self._rng = initializers.generator(self.seed, self.stream)
        self._params, self._buffers = {}, {}
        self.output_shape = self._create(input_shape)
        self.input_shape = input_shape
        return self.output_shape

    def _create(self, input_shape: Shape) -> Shape:
        return input_shape

    def _add_param(self, name: str, shape: Shape, initializer: Any) -> None:
        value = np.asarray(initializers.get(initializer)(self._rng, shape))
        if value.shape != shape:
            raise ShapeError(f"the initializer of {name} gave shape {value.shape}, wanted {shape}")
        self._params[name] = Param(self._keep(value, self.dtype))

    def _keep(self, values: np.ndarray, dtype: Any) -> Any:
        """A long-lived array with these values, where the backend computes."""
        return self.backend.place(np.array(values, dtype))

    def _check(self, x: np.ndarray) -> np.ndarray:
        """x as a contiguous batch of what this layer was built for."""
        if self.input_shape is None:
            raise BuildError(f"{kind(self)} is not built yet: call build(input_shape) first")
        if type(x) is not np.ndarray and not on_device(x):
            x = np.asarray(x)
        if x.shape[1:] != self.input_shape or x.shape[0] == 0:
            wanted = ", ".join(str(n) for n in self.input_shape)
            mend = checks.mend_of_shape(x.shape, self.input_shape)
            raise ShapeError(f"layer {self.name} got x of shape {x.shape}, wanted (N, {wanted}) with N at least 1{mend}")
        if x.dtype != self.dtype:
            raise DTypeError(f"layer {self.name} got x of dtype {x.dtype}, wanted {self.dtype}: use x.astype('{self.dtype}')")
        return self.backend.place(x)

    def forward(self, x: np.ndarray, train: bool = False) -> tuple[np.ndarray, Any]:
        raise NotImplementedError

    def backward(self, dy: np.ndarray, saved: Any, need_dx: bool = True) -> np.ndarray | None:
        raise NotImplementedError

    def apply_updates(self) -> None:
        """Make updates of buffers that forward(train=True) deferred. The Trainer calls this after each step."""

    def discard_updates(self) -> None:
        """Forget them: the step that made them has failed."""

    @property
    def replayable(self) -> bool:
        """Whether between the calls of the backend forward(train=True) and backward look at shapes and settings alone, never at values
        (see nbnet.runtime.replay). It is known of nbnet's layers only, as long as nobody has put a function of his own in their place."""
        return type(self).__module__.startswith("nbnet.layers.") and not overrides(self)

    def settings(self) -> list[Callable[[], Iterable[Any]]]:
        """Functions that give what decides, beside the input's shape, which calls forward and backward make: attributes of Watched."""
        return [vars(self).values]

    def contents(self) -> list[Callable[[], Iterable[Any]]]:
        """The same of what is in dicts and lists, which change without an attribute's being set."""
        return [self._params.values, self._buffers.values]

    def walk(self) -> Iterator[Layer]:
        """This layer and all layers inside it."""
        yield self


def overrides(thing: Any) -> bool:
    """Whether an object has attributes of its own in place of its class's functions."""
    return any(callable(getattr(type(thing), name, None)) for name in vars(thing))


def kind(layer: Layer) -> str:
    """The class name as it stands in layer names: "conv2d", "batchnorm"."""
    return type(layer).__name__.lower()


def image_shape(input_shape: Shape, layer: str) -> tuple[int, int, int]:
    """input_shape as (H, W, C).

    Raises:
        ShapeError: it is not an image.
    """
    if len(input_shape) != 3:
        raise ShapeError(f"{layer} wants images (H, W, C), got {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]
