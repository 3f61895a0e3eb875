"""Check a backward pass against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet import initializers
from nbnet.errors import DTypeError, GradientError
from nbnet.layers import Layer


def gradcheck(layer: Layer, x: Any, *, tolerance: float = 1e-6, step: float = 1e-5, seed: int = 0) -> dict[str, float]:
    """Compare backward with a central difference at every index of x and of every parameter, in float64.

    The loss is sum(r * y) with a random cotangent r: with sum(y), the gradient of a batch norm is zero and there is nothing to
    check. Buffers are restored before each pass, so moving statistics and dropout masks stay the same.

    Args:
        layer: a layer or model; if it is not built, it is built for x, in float64 on the backend "serial".
        x: (N, ...), any real numbers. Keep it small: each index takes two forward passes.
        tolerance: the largest allowed error, relative to the largest gradient of the same array (or to a thousandth of
            sum |r * y| where all its gradients are smaller: differences are only rounding there).
        step: of the difference; multiplied by the size of the number that changes where that is above 1.
        seed: of the cotangent, and of the parameters if the layer is built here.
    Returns:
        the relative error by name: "x", and each trainable parameter.
    Raises:
        GradientError: an error is above the tolerance; the message names the array, the index and both gradients.
        DTypeError: the layer was built in float32, which is too coarse for differences.
    """
    x = np.array(x, np.float64)
    if layer.input_shape is None:
        layer.build(x.shape[1:], backend="serial", dtype="float64", seed=seed)
    if layer.dtype != np.float64:
        raise DTypeError(f"gradcheck needs a layer built with dtype='float64', got {layer.dtype}: use a new layer, which is then built so")
    buffers = {name: array.copy() for name, array in layer.buffers.items()}

    try:
        return _errors(layer, x, buffers, tolerance, step, seed)
    finally:
        _restore(layer, buffers)


def _restore(layer: Layer, buffers: dict[str, np.ndarray]) -> None:
    for name, array in layer.buffers.items():
        array[:] = buffers[name]


def _errors(layer: Layer, x: np.ndarray, buffers: dict[str, np.ndarray], tolerance: float, step: float, seed: int) -> dict[str, float]:
    """What gradcheck returns. Changes each number of x and of the parameters in turn, and restores it."""

    def forward() -> tuple[np.ndarray, Any]:
        _restore(layer, buffers)
        result = layer.forward(x, train=True)
        layer.apply_updates()
        return result

    y, saved = forward()
    cotangent = initializers.generator(seed, 0).standard_normal(y.shape)
    dx = layer.backward(cotangent, saved)
    arrays = {"x": (x, np.array(dx))} | {name: (p.value, p.grad.copy()) for name, p in layer.params.items() if p.trainable}
    floor = 1e-3 * float(np.abs(cotangent * y).sum())
    errors = {}
    for name, (values, grad) in arrays.items():
        numeric = np.empty_like(values)
        for index in np.ndindex(values.shape):
            old = values[index]
            h = step * max(1.0, abs(old))
            values[index] = old + h
            up = np.vdot(cotangent, forward()[0])
            values[index] = old - h
            down = np.vdot(cotangent, forward()[0])
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
