"""Tables for nbnet.functional.resample_forward: padding of any kind, and resizing as ONNX and PyTorch define it."""

import numpy as np

import nbnet as nb

Taps = nb.functional.Taps


def same(length):
    return Taps(np.arange(length)[:, None], np.ones((length, 1)), length)


def padded(length, before, behind, mode):
    """mode: "zeros", "reflect", "edge", or "wrap"; negative numbers crop.

    Raises:
        ValueError: nothing is left, or a mirrored axis is too short.
    """
    index = np.arange(-before, length + behind)
    if not len(index) or (mode == "reflect" and max(before, behind) >= length):
        raise ValueError("an array without elements" if not len(index) else "reflection beyond the other end")
    if mode == "zeros":
        index[(index < 0) | (index >= length)] = -1
    elif mode == "edge":
        index = index.clip(0, length - 1)
    elif mode == "wrap":
        first, last = max(0, -before), length - max(0, -behind)
        index = first + (index - first) % (last - first)
    else:
        index = length - 1 - np.abs(length - 1 - np.abs(index))
    return Taps(index[:, None], np.ones((len(index), 1)), length)


def coordinates(length, out, scale, transform, roi):
    """Where each output lies between the inputs."""
    i, exact = np.arange(out, dtype=np.float64), scale * length  # `out` before it was rounded down
    if transform == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if transform == "half_pixel_symmetric":
        return length / 2 * (1 - out / exact) + (i + 0.5) / scale - 0.5
    if transform == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(1)
    if transform == "align_corners":
        return i * (length - 1) / (exact - 1) if exact != 1 else np.zeros(out)
    if transform == "asymmetric":
        return i / scale
    start, end = roi  # tf_crop_and_resize
    if exact == 1:
        return np.array([0.5 * (start + end) * (length - 1)])
    return start * (length - 1) + i * (end - start) * (length - 1) / (exact - 1)


ROUNDING = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _linear(x, a):
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x, a):
    """Keys 1981."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resized(
    length,
    out,
    scale,
    mode,
    transform="half_pixel",
    rounding="round_prefer_floor",
    a=-0.75,
    exclude_outside=False,
    antialias=False,
    roi=None,
    zero_outside=False,
):
    """The taps of a new size; mode: "nearest", "linear" or "cubic"."""
    x = coordinates(length, out, scale, transform, roi)
    if mode == "nearest":
        index = ROUNDING[rounding](x).clip(0, length - 1).astype(np.int64)[:, None]
        weight = np.ones(index.shape)
    else:
        narrow = min(scale, 1.0) if antialias else 1.0
        kernel, reach = (_linear, 1) if mode == "linear" else (_cubic, 2)
        base = np.floor(x)
        start = int(np.floor(-reach / narrow)) + 1
        index = base[:, None].astype(np.int64) + np.arange(start, 3 - start)
        weight = kernel((index - x[:, None]) * narrow, a)
        if exclude_outside:
            weight = np.where((index < 0) | (index >= length), 0, weight)
        if exclude_outside or antialias:
            weight = weight / weight.sum(axis=1, keepdims=True)
        index = np.where(weight == 0, -1, index.clip(0, length - 1))
    if zero_outside:  # tf_crop_and_resize
        index = np.where(((x < 0) | (x > length - 1))[:, None], -1, index)
    return Taps(index, weight, length)
