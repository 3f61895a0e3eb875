"""Batch norm tools: exact statistics, a report on moving statistics, conversion between frameworks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import Stats, checks, merge_stats
from nbnet.layers import BatchNorm, Sequential
from nbnet.runtime.arrays import first, in_dtype, take


def recalibrate(model: Sequential, data: Any, batch_size: int = 256) -> None:
    """Set all moving statistics from one pass over data, with the current weights.

    Each layer gets the exact mean and variance of all rows that reach it, including the variance between batches.
    Dropout is off. (Precise BN: Wu and Johnson 2021, section 3.)

    Args:
        data: x (N, ...) as in training. batch_size: the larger, the closer to one batch of everything.
    """
    for layer, stats in _observe(model, data, batch_size).items():
        layer.assign_statistics(stats)


class LayerReport(NamedTuple):
    """How far the moving statistics of one batch norm are from those of the data."""

    name: str
    channels: int
    mean_drift: float  # largest |moving mean - mean| of a channel, in deviations of the data
    variance_ratio: float  # largest factor between moving variance and variance, at least 1
    dead: int  # channels whose deviation is negligible in the layer, or whose gamma is 0
    verdict: str


def batch_norm_report(model: Sequential, data: Any, batch_size: int = 256, show: bool = True) -> list[LayerReport]:
    """Compare every batch norm's moving statistics with those of data; a difference is the usual reason for bad evaluation.

    Args:
        data: x (N, ...) as in training. show: print the table.
    Returns:
        one LayerReport per batch norm, in order.
    """
    rows = []
    for layer, stats in _observe(model, data, batch_size).items():
        moving_mean, moving_var, eps = layer.moving.read(layer.buffers)
        moving_mean, moving_var = np.asarray(moving_mean, np.float64), np.asarray(moving_var, np.float64)
        var = stats.variance()
        drift = float(np.max(np.abs(moving_mean - stats.mean) / np.sqrt(var + layer.eps)))
        ratio = np.exp(np.abs(np.log((moving_var + eps) / (var + layer.eps))))
        gamma = np.asarray(layer.params["gamma"].value) if layer.scale else np.ones(len(var))
        dead = int(np.sum((var <= 1e-8 * var.max()) | (np.abs(gamma) < 1e-8)))
        verdict = "fine"
        if dead:
            verdict = f"{dead} dead channels"
        if drift > 0.5 or ratio.max() > 2:
            verdict = "moving statistics are off: train on, lower decay, or call nb.recalibrate(model, x)"
        rows.append(LayerReport(layer.name, len(var), drift, float(ratio.max()), dead, verdict))
    if show:
        _print(rows)
    return rows


def batch_norm_export(layer: BatchNorm, convention: str) -> dict[str, Any]:
    """The arrays and numbers of a built BatchNorm under the names of "pytorch", "keras" or "onnx".

    An average of deviations (track="deviation") becomes the variance that gives the same predictions.
    """
    names = _names(convention)
    mean, var, eps = layer.moving.read(layer.buffers)
    var = np.asarray(var, np.float64)
    channels = len(mean)
    values = {
        "gamma": layer.params["gamma"].value if layer.scale else np.ones(channels, layer.dtype),
        "beta": layer.params["beta"].value if layer.center else np.zeros(channels, layer.dtype),
        "mean": mean,
        "var": np.maximum(var + eps - layer.eps, 0),
    }
    out: dict[str, Any] = {names[key]: np.array(value, layer.dtype) for key, value in values.items()}
    out[names["eps"]] = layer.eps
    decay = layer.moving.decay
    if convention == "pytorch":
        out["num_batches_tracked"] = int(layer.buffers["updates"][0])
        out["momentum"] = None if decay is None else 1 - decay
    elif decay is None:
        raise ArgumentError(f"{convention} has no cumulative average: set another decay before exporting")
    else:
        out["momentum"] = decay
    return out


def batch_norm_import(layer: BatchNorm, convention: str, values: Mapping[str, Any]) -> None:
    """Set parameters and moving statistics of a built BatchNorm from arrays under the names of "pytorch", "keras" or "onnx".

    A momentum among the values is ignored: the layer keeps its decay.

    Raises:
        ArgumentError: an array is missing or not finite, a variance is negative, or eps differs from the layer's. ShapeError: an array
            has the wrong shape. After an error nothing has changed.
    """
    names = _names(convention)
    channels = len(layer.buffers["moving_mean"])
    arrays = {}
    for key in ("gamma", "beta", "mean", "var"):
        present = {"gamma": layer.scale, "beta": layer.center}.get(key, True)
        if names[key] not in values:
            if present:
                raise ArgumentError(f"{names[key]!r} is missing: expected {', '.join(names[k] for k in ('gamma', 'beta', 'mean', 'var'))}")
            continue
        arrays[key] = np.asarray(values[names[key]], np.float64)
        if arrays[key].shape != (channels,):
            raise ShapeError(f"{names[key]!r} has shape {arrays[key].shape}, expected ({channels},)")
        if not present and not np.array_equal(arrays[key], np.full(channels, float(key == "gamma"))):
            raise ArgumentError(
                f"{names[key]!r} is not trivial, but the layer has no {key}: build it with {(key == 'gamma' and 'scale') or 'center'}=True"
            )
    if not (arrays["var"] >= 0).all() or not all(np.isfinite(array).all() for array in arrays.values()):
        raise ArgumentError(
            f"{names['var']!r} has a negative number, or an array has NaN or infinity: expected the arrays of a trained layer"
        )
    eps = values.get(names["eps"], layer.eps)
    if np.float32(eps) != np.float32(layer.eps):  # an ONNX file stores it in float32
        raise ArgumentError(f"these statistics belong to eps={eps}, the layer has eps={layer.eps}: create it with BatchNorm(eps={eps})")
    for key in ("gamma", "beta"):
        if key in layer.params:
            layer.params[key].value[:] = arrays[key]
    layer.moving.assign(layer.buffers, arrays["mean"], arrays["var"])
    layer.buffers["updates"][0] = int(values.get("num_batches_tracked", 1))


# ------------------------------------------------------------------------------------------------------ helpers

CONVENTIONS = {
    "pytorch": {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var", "eps": "eps"},
    "keras": {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "var": "moving_variance", "eps": "epsilon"},
    "onnx": {"gamma": "scale", "beta": "B", "mean": "input_mean", "var": "input_var", "eps": "epsilon"},
}


def _names(convention: str) -> dict[str, str]:
    if not isinstance(convention, str) or convention not in CONVENTIONS:
        raise ArgumentError(unknown("convention", convention, CONVENTIONS))
    return CONVENTIONS[convention]


def _observe(model: Sequential, data: Any, batch_size: int) -> dict[BatchNorm, Stats]:
    """Statistics of the input of each batch norm over all data; batches are normalised with their own statistics."""
    seen: dict[BatchNorm, list[Stats]] = {layer: [] for layer in model.walk() if isinstance(layer, BatchNorm)}
    if not seen:
        raise ArgumentError("the model has no BatchNorm")
    with ExitStack() as stack:
        for layer, parts in seen.items():
            stack.enter_context(_observed(layer, parts))
        x, batch_size = model.check_rows(data), checks.whole(batch_size, "batch_size")
        count = len(first(x))
        ends = [*range(batch_size, count - 1, batch_size), count]
        for start, end in zip([0, *ends], ends):
            model.forward(in_dtype(take(x, slice(start, end)), model.dtype))
    return {layer: merge_stats(parts) for layer, parts in seen.items()}


@contextmanager
def _observed(layer: BatchNorm, parts: list[Stats]) -> Iterator[None]:
    layer.observer = parts.append
    try:
        yield
    finally:
        layer.observer = None


def _print(rows: list[LayerReport]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("layer", "channels", "mean drift", "variance ratio", "dead", Column("verdict", overflow="fold"))
    for row in rows:
        table.add_row(row.name, str(row.channels), f"{row.mean_drift:.3f}", f"{row.variance_ratio:.2f}", str(row.dead), row.verdict)
    Console().print(table)
