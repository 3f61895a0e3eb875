"""Check a backward pass against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet import initializers
from nbnet.errors import BackendError, DTypeError, GradientError
from nbnet.layers import Layer
from nbnet.runtime.arrays import each


def gradcheck(layer: Layer, x: Any, *, tolerance: float = 1e-6, step: float = 1e-5, seed: int = 0) -> dict[str, float]:
    """Compare backward with a central difference at every index of x and of every parameter, in float64.

    The loss is sum(r * y) with a random cotangent r: with sum(y), the gradient of a batch norm is zero and there is nothing to
    check. Buffers are restored before each pass, so moving statistics and dropout masks stay the same.

    Args:
        layer: a layer or model; if it is not built, it is built for x, in float64 on the backend "serial".
        x: (N, ...), any real numbers; of several inputs a tuple. Keep it small: each index takes two forward passes.
        tolerance: the largest allowed error, relative to the largest gradient of the same array (or to a thousandth of
            sum |r * y| where all its gradients are smaller: differences are only rounding there).
        step: of the difference; multiplied by the size of the number that changes where that is above 1.
        seed: of the cotangent, and of the parameters if the layer is built here.
    Returns:
        the relative error by name: "x" (of several inputs "x[0]", "x[1]", ...), and each trainable parameter.
    Raises:
        GradientError: an error is above the tolerance; the message names the array, the index and both gradients.
        DTypeError: the layer was built in float32, which is too coarse for differences. BackendError: it is on the GPU.
    """
    x = each(lambda part: np.array(part, np.float64), x)
    if layer.input_shape is None:
        layer.build(each(lambda part: part.shape[1:], x), backend="serial", dtype="float64", seed=seed)
    if layer.dtype != np.float64:
        raise DTypeError(f"gradcheck needs a layer built with dtype='float64', got {layer.dtype}: use a new layer, which is then built so")
    if getattr(getattr(layer, "backend", None), "name", "") == "cuda":
        raise BackendError(
            "gradcheck got a layer on 'cuda', expected 'serial', 'parallel' or 'numpy', where it can change one number: build it there"
        )
    buffers = {name: array.copy() for name, array in layer.buffers.items()}

    try:
        return _errors(layer, x, buffers, tolerance, step, seed)
    finally:
        _restore(layer, buffers)


def _restore(layer: Layer, buffers: dict[str, np.ndarray]) -> None:
    for name, array in layer.buffers.items():
        array[:] = buffers[name]


def _outputs(y: Any) -> tuple[Any, ...]:
    return y if type(y) is tuple else (y,)


def _errors(layer: Layer, x: Any, buffers: dict[str, np.ndarray], tolerance: float, step: float, seed: int) -> dict[str, float]:
    """What gradcheck returns. Changes each number of x and of the parameters in turn, and restores it."""

    def forward() -> tuple[Any, Any]:
        _restore(layer, buffers)
        result = layer.forward(x, train=True)
        layer.apply_updates()
        return result

    def loss(y: Any) -> Any:
        """sum(r * y) over all outputs."""
        return sum(np.vdot(*pair) for pair in zip(cotangent, _outputs(y)))

    y, saved = forward()
    rng = initializers.generator(seed, 0)
    cotangent = [rng.standard_normal(output.shape) for output in _outputs(y)]
    dx = each(np.array, layer.backward(tuple(cotangent) if type(y) is tuple else cotangent[0], saved))
    arrays = {f"x[{i}]": pair for i, pair in enumerate(zip(x, dx))} if type(x) is tuple else {"x": (x, dx)}
    arrays |= {name: (p.value, p.grad.copy()) for name, p in layer.params.items() if p.trainable}
    floor = 1e-3 * sum(float(np.abs(r * output).sum()) for r, output in zip(cotangent, _outputs(y)))
    errors = {}
    for name, (values, grad) in arrays.items():
        numeric = np.empty_like(values)
        for index in np.ndindex(values.shape):
            old = values[index]
            h = step * max(1.0, abs(old))
            values[index] = old + h
            up = loss(forward()[0])
            values[index] = old - h
            down = loss(forward()[0])
            values[index] = old
            numeric[index] = (up - down) / (2 * h)
        difference = np.abs(grad - numeric)
        errors[name] = float(difference.max() / max(np.abs(numeric).max(), np.abs(grad).max(), floor, 1e-30))
        if not errors[name] <= tolerance:
            at = np.unravel_index(np.argmax(difference), difference.shape)
            place = f"{name}[{', '.join(str(i) for i in at)}]"
            raise GradientError(
                f"gradient of {place}: backward gives {grad[at]:.6g}, differences give {numeric[at]:.6g} "
                f"(relative error {errors[name]:.1e}, expected at most {tolerance:.0e})"
            )
    return errors
