"""Keras' side: models that are at hand. Files are read by nbnet.convert.hdf5, without Keras."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.convert.hdf5 import settings, units_of_file
from nbnet.convert.matching import Source, Unit
from nbnet.convert.table import KERAS, known_class
from nbnet.errors import ArgumentError


def is_model(given: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(given, keras.Model)


def source_of(given: Any, room: int) -> Source:
    """The layers of a model, or of a file. room: the largest number of bytes that a file may hold.

    Raises:
        ArgumentError: it is neither. CheckpointError: the file cannot be read. ExtraError: it needs h5py.
    """
    if is_model(given):
        return Source("the Keras model", [unit for unit, _ in _layers(given)])
    if isinstance(given, (str, Path)):
        return units_of_file(Path(given), room)
    raise ArgumentError(f"got {type(given).__name__}, expected a keras.Model, or a .keras, .weights.h5 or .h5 file")


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[Unit, dict[str, Any]]]:
    """The layers with weights in order, each with its variables by name, or by path where it has two of one name."""
    for layer in model.layers:
        if is_model(layer):
            yield from _layers(layer, f"{prefix}{layer.name}/")
        elif layer.weights:
            kind = known_class(type(layer), KERAS)
            unique = len({variable.name for variable in layer.weights}) == len(layer.weights)
            variables = {variable.name if unique else variable.path: variable for variable in layer.weights}
            arrays = {name: np.array(variable.numpy()) for name, variable in variables.items()}
            yield Unit(prefix + layer.name, arrays, kind, settings(vars(layer))), variables


def outputs(model: Any, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a model gives in evaluation mode."""
    y = model(list(xs) if len(xs) > 1 else xs[0], training=False)
    return [sys.modules["keras"].ops.convert_to_numpy(part) for part in (y if isinstance(y, (tuple, list)) else [y])]


def set_weights(model: Any, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Set the variables of the layers, by name of the layer and then of the variable."""
    for unit, variables in _layers(model):
        for name, variable in variables.items():
            variable.assign(arrays[unit.name][name])
