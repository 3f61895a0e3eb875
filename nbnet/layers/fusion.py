"""Fusion: a table of runs of layers that go through memory as one, and the steps that run them.

`fuse` cuts a list of layers into steps. A step has forward and backward like a layer; most steps are a layer. The layers stay what
they are: they own parameters and buffers, and results and gradients are the same within rounding. The computation of each fused
run is a pair in nbnet.functional.fused.

    Conv2D, BatchNorm       the convolution takes the channels' statistics of each chunk while it is in the cache; Dense does too, and a
                            first one with few inputs gets the gradient of its weights without the gradient of its outputs
    BatchNorm, ReLU         one pass, forward and backward: the normalised values are never written
    ..., MaxPool2D(2)       the same pass writes only the maxima
    BatchNorm, GELU         one pass forward; backward, the activation's gradient and its sums are a second pass
    Conv2D, ReLU            the activation is applied to results that are still in registers or in the cache; so for Dense
    Conv2D(activation=)     the same, as one layer; other activations than ReLU and LeakyReLU are a second pass
    ..., ReLU, Dropout      dropout works on y in place; backward, y alone shows what either of them set to 0: no random numbers

Rows with ReLU also match LeakyReLU (except before Dropout); the row with GELU matches every activation that is applied to each element
and has no parameter. To add a run: a pair in nbnet.functional.fused, a step here that calls it, and a row of PATTERNS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nbnet import functional as F
from nbnet.errors import BuildError
from nbnet.functional import fused
from nbnet.functional.activations import named, relu
from nbnet.functional.fused import Epilogue, Gradients, Product, epilogue_of
from nbnet.kernels.activations import RECTIFIERS
from nbnet.layers.activations import Elementwise, LeakyReLU, ReLU
from nbnet.layers.base import Layer
from nbnet.layers.batchnorm import BatchNorm
from nbnet.layers.conv1d import Conv1D
from nbnet.layers.conv2d import Conv2D, DepthwiseConv2D
from nbnet.layers.dense import Dense
from nbnet.layers.dropout import Dropout
from nbnet.layers.pool import MaxPool2D
from nbnet.layers.product import ProductLayer
from nbnet.runtime.stage import Stage, can_replay

PRODUCTS = Conv2D, DepthwiseConv2D, Conv1D, Dense


class FusedStep(Stage):
    """Several neighbouring layers as one step of a container. A subclass defines `run` and `run_backward`, the fused pair."""

    def __init_subclass__(cls) -> None:
        cls.replayable = FusedStep.replayable  # type: ignore[method-assign]  # the pairs of nbnet.functional.fused look at shapes and settings alone

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self.name = ", ".join(layer.name for layer in layers)

    @property
    def backend(self) -> Any:
        return self.layers[0].backend

    @property
    def dtype(self) -> Any:
        return self.layers[0].dtype

    @property
    def output_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.layers[-1].output_shape

    @property
    def params(self) -> dict[str, Any]:
        return {f"{layer.name}.{name}": param for layer in self.layers for name, param in layer.params.items()}

    @property
    def replayable(self) -> bool:
        return all(can_replay(layer, self.backend) for layer in self.layers)

    @property
    def is_replaced(self) -> bool:
        """Whether a layer has a forward or a backward of its own in place of its class's."""
        return any(_is_replaced(layer) for layer in self.layers)

    def inner(self) -> Sequence[Stage]:
        return self.layers

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        """y, and what backward needs. If a layer's own forward or backward was replaced, the layers run one by one."""
        if not self.is_replaced:
            y, saved = self.run(x, train)
            return y.reshape(len(y), *self.output_shape), saved if train else None
        tape = []
        for layer in self.layers:
            x, saved = layer.forward(x, train)
            tape.append(saved)
        return x, _OneByOne(tape) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True, *, overwrite_dy: bool = False) -> Any:
        """dx; overwrite_dy: nobody else needs dy, and another gradient may replace it in memory."""
        if not isinstance(saved, _OneByOne):
            dx = self.run_backward(self.as_product(dy), saved, need_dx, overwrite_dy)
            return None if dx is None else dx.reshape(len(dx), *self.layers[0].input_shape)
        for layer, of_layer in zip(reversed(self.layers), reversed(saved.tape)):
            dy = layer.backward(dy, of_layer, need_dx or layer is not self.layers[0])
        return dy

    def as_product(self, dy: Any) -> Any:
        """dy with the axes of the product that the step starts with, if it does."""
        return self.layers[0].as_product(dy) if isinstance(self.layers[0], ProductLayer) else dy

    def run(self, x: Any, train: bool) -> tuple[Any, Any]:
        raise NotImplementedError

    def run_backward(self, dy: Any, saved: Any, need_dx: bool, overwrite_dy: bool) -> Any:
        raise NotImplementedError


class _OneByOne(NamedTuple):
    """What the layers of a step saved, when they ran one by one."""

    tape: list[Any]


class NormStep(FusedStep):
    """BatchNorm [, activation] [, MaxPool2D(2)]"""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self.norm = next(layer for layer in layers if isinstance(layer, BatchNorm))
        self.activation = next((layer for layer in layers if isinstance(layer, Elementwise)), None)
        self.max_pool = isinstance(layers[-1], MaxPool2D)

    def run(self, x: Any, train: bool) -> tuple[Any, Any]:
        x = self.norm.check_input(x)
        stats = F.batch_norm_stats(x, backend=self.backend) if self.norm.needs_statistics(train) else None
        y, saved = fused.normalization_forward(x, self.numbers(x, stats, train), self.epilogue, self.backend)
        self.norm.follow([] if stats is None else [stats], train)
        return y, saved

    def run_backward(self, dy: Any, saved: Any, need_dx: bool, overwrite_dy: bool) -> Any:
        return fused.normalization_backward(dy, saved, self.norm.gradients(), overwrite_dy)[0]

    @property
    def epilogue(self) -> Epilogue:
        """The batch norm's own activation or the layer's, and the pool."""
        epilogue = self.norm.epilogue if self.activation is None else epilogue_of(self.activation.of_kernel)
        return epilogue._replace(max_pool=self.max_pool)

    def numbers(self, x: Any, stats: F.Stats | None, train: bool) -> Any:
        """What x is normalised by."""
        if not self.norm.fuses:
            raise BuildError(
                f"layer {self.norm.name} is fused with others and cannot be changed this way: set its options before build(), or use "
                f"build(fuse=False)"
            )
        return self.norm.normalization(x, stats, train)


class ProductNormStep(NormStep):
    """Conv2D or Dense, BatchNorm [, activation] [, MaxPool2D(2)]"""

    def run(self, x: Any, train: bool) -> tuple[Any, Any]:
        taken: list[F.Stats] = []

        def numbers(y: Any, stats: F.Stats | None) -> Any:
            taken.extend([] if stats is None else [stats])
            return self.numbers(y, stats, train)

        product = product_of(self.layers[0], x)
        y, saved = fused.product_norm_forward(product, numbers, self.norm.needs_statistics(train), self.epilogue)
        self.norm.follow(taken, train)
        return y, saved

    def run_backward(self, dy: Any, saved: Any, need_dx: bool, overwrite_dy: bool) -> Any:
        product, norm = self.layers[0].gradients(), self.norm.gradients()
        grads = Gradients(product.weight, product.bias, norm.gamma, norm.beta)
        return fused.product_norm_backward(dy, saved, grads, need_dx, overwrite_dy)


class ProductActivationStep(FusedStep):
    """Conv2D or Dense, ReLU or LeakyReLU, which may be the layer's own activation"""

    def run(self, x: Any, train: bool) -> tuple[Any, Any]:
        product, *rest = self.layers
        activation: Any = rest[0].of_kernel if rest else named(product.activation)
        return fused.product_activation_forward(product_of(product, x, own=not rest), activation)

    def run_backward(self, dy: Any, saved: Any, need_dx: bool, overwrite_dy: bool) -> Any:
        return fused.product_activation_backward(dy, saved, self.layers[0].gradients(), need_dx)


class ProductDropoutStep(FusedStep):
    """Conv2D or Dense, ReLU, Dropout"""

    def run(self, x: Any, train: bool) -> tuple[Any, Any]:
        product, dropout = product_of(self.layers[0], x), self.layers[2]
        if not _drops_to_0(dropout):  # it may have been set after build
            y, saved = fused.product_activation_forward(product, relu())
            y, dropped = dropout.forward(y, train)
            return y, (saved, dropped)
        return fused.product_dropout_forward(product, dropout.rate, dropout.next_counter(train), dropout.variant, train)

    def run_backward(self, dy: Any, saved: Any, need_dx: bool, overwrite_dy: bool) -> Any:
        grads = self.layers[0].gradients()
        if isinstance(saved, fused.ProductDropoutSaved):
            return fused.product_dropout_backward(dy, saved, grads, need_dx)
        return fused.product_activation_backward(self.layers[2].backward(dy, saved[1]), saved[0], grads, need_dx)


def product_of(layer: Any, x: Any, own: bool = False) -> Product:
    """own: whether the layer has an activation."""
    if (layer.activation is not None) != own:
        raise BuildError(f"layer {layer.name} is fused with others: set its activation before build(), or use build(fuse=False)")
    return layer.product(layer.check_input(x))


def _is_replaced(layer: Any) -> bool:
    """Whether the object has a forward or a backward of its own in place of its class's."""
    return "forward" in vars(layer) or "backward" in vars(layer)


# --------------------------------------------------------------------------------------------------------------- the table


def _is(*kinds: type[Layer], also: Callable[[Any], bool] = lambda layer: True) -> Callable[[Any], bool]:
    """Whether a layer is of exactly one of these classes: a subclass may compute something else."""
    return lambda layer: type(layer) in kinds and also(layer)


def _of_quarters(pool: Any) -> bool:
    """Whether the windows are 2 x 2, side by side and all in the image."""
    return (pool.size, pool.stride, pool.padding, pool.ceil_mode) == ((2, 2), (2, 2), "valid", False)


def _is_rectifier(activation: Any) -> bool:
    return activation is not None and activation.kernel in RECTIFIERS


def _drops_to_0(dropout: Any) -> bool:
    """Whether each element is dropped by itself, and dropped elements are 0."""
    return dropout.variant != "alpha" and dropout.noise_shape is None


_any_product = _is(*PRODUCTS, also=lambda layer: layer.activation is None)
_rectified_product = _is(*PRODUCTS, also=lambda layer: _is_rectifier(named(layer.activation)))
_norm = _is(BatchNorm, also=lambda layer: layer.fuses)
_plain_norm = _is(BatchNorm, also=lambda layer: layer.fuses and layer.activation is None)
_unsmooth_norm = _is(BatchNorm, also=lambda layer: layer.fuses and layer.epilogue.smooth is None)
_rectifier = _is(ReLU, LeakyReLU)
_activation = _is(*Elementwise.__subclasses__())
_max_pool = _is(MaxPool2D, also=_of_quarters)

# Tried in order at each layer; the first that fits is taken.
PATTERNS: tuple[tuple[type[FusedStep], tuple[Callable[[Any], bool], ...]], ...] = (
    (ProductNormStep, (_any_product, _plain_norm, _rectifier, _max_pool)),
    (ProductNormStep, (_any_product, _plain_norm, _activation)),
    (ProductNormStep, (_any_product, _unsmooth_norm, _max_pool)),
    (ProductNormStep, (_any_product, _norm)),
    (NormStep, (_plain_norm, _rectifier, _max_pool)),
    (NormStep, (_plain_norm, _activation)),
    (NormStep, (_unsmooth_norm, _max_pool)),
    (ProductDropoutStep, (_any_product, _is(ReLU), _is(Dropout, also=_drops_to_0))),
    (ProductActivationStep, (_any_product, _rectifier)),
    (ProductActivationStep, (_rectified_product,)),
)


def fuse(layers: Sequence[Layer]) -> list[Stage]:
    """The steps of built layers, in order."""
    steps: list[Stage] = []
    at = 0
    while at < len(layers):
        step = next((kind(layers[at : at + len(run)]) for kind, run in PATTERNS if _fits(run, layers[at:])), layers[at])
        steps.append(step)
        at += len(step.layers) if isinstance(step, FusedStep) else 1
    return steps


def _fits(run: Sequence[Callable[[Any], bool]], layers: Sequence[Layer]) -> bool:
    """Whether these layers start with such a run."""
    return len(run) <= len(layers) and all(fits(layer) for fits, layer in zip(run, layers))


def step_backward(step: Stage, above: Stage | None, dy: Any, saved: Any, need_dx: bool) -> Any:
    """The backward of a step whose dy was returned by the step above it, if there is one."""
    if above is not None and may_overwrite(step, above):
        return step.backward(dy, saved, need_dx, overwrite_dy=True)  # type: ignore[call-arg]
    return step.backward(dy, saved, need_dx)


def may_overwrite(step: Stage, above: Stage) -> bool:
    """Whether the backward of a step may overwrite the gradient from the step above: True if no other code holds the array. A backward
    that was replaced on an object may keep references, so then False."""
    if not isinstance(step, NormStep) or type(above) not in (*PRODUCTS, *(kind for kind, _ in PATTERNS)):
        return False
    return not any("backward" in vars(each) for of_two in (step, above) for each in (of_two, *getattr(of_two, "layers", ())))
