"""Weights from PyTorch and Keras, and back: arrays are transposed, layers paired by name or by order.

Neither framework is imported: a module or a model brings its own, `.safetensors` files need nothing, Keras' files h5py
(`pip install 'nbnet[convert]'`), and `.pt` files torch. What each layer is elsewhere stands in nbnet.convert.table.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nbnet.convert import keras, matching, pytorch
from nbnet.convert.matching import Source, Unit
from nbnet.convert.probe import Run, check_outputs, check_tolerance
from nbnet.convert.slots import Slot, slots_of
from nbnet.convert.table import KERAS, TORCH
from nbnet.errors import ArgumentError, BuildError
from nbnet.layers import Sequential
from nbnet.runtime.commit import Call, assignment, commit

__all__ = ["from_keras", "from_torch", "to_keras", "to_torch"]

ROOM, TIMES = 1 << 24, 16  # bytes that a file of Keras may have, and so many times those of the model: it may hold an optimizer


def from_torch(
    source: Any, model: Sequential, *, names: Mapping[str, str] | None = None, norms: str = "check", tolerance: float | None = 1e-4
) -> dict[str, str]:
    """Load the weights and moving statistics of a PyTorch model: everything, or nothing on an error.

    Weights are laid out for channels last, and the rows of a Dense after Flatten from (C, H, W) to (H, W, C). Other dtypes become the
    model's.

    Args:
        source: a torch.nn.Module, a state dict (of tensors or arrays), or the path of one: .pt (read with weights_only=True) or
            .safetensors.
        model: a built Sequential with the same layers.
        names: by the name of a layer there, its name here, {"features.0": "0.conv2d"}; those left out have the same name. None pairs
            layers in the order in which PyTorch registers them, or by name if all names are equal.
        norms: what to do if eps or the momentum of a normalisation layer differs: "check" raises, "set" gives the model the module's.
            PyTorch's momentum is the weight of the new value, so decay is 1 - momentum. A state dict holds neither.
        tolerance: a module and the model must then give the same outputs for a random input, in evaluation mode, up to this part of the
            largest; None compares nothing, nor is anything compared where there is only a state dict.
    Returns:
        by the name of each layer there, the name of the one here.
    Raises:
        ArgumentError: a layer has no partner or another kind, eps or momentum differs, or the outputs differ. ShapeError, DTypeError,
        NonFiniteError: an array does not fit, or has NaN or infinity. CheckpointError: the file cannot be read. ExtraError: it
        needs torch.
    """
    check_tolerance(tolerance)
    run = partial(pytorch.outputs, source, None) if pytorch.is_module(source) else None
    return _load(_built(model), lambda: pytorch.source_of(source), TORCH, names, norms, run, tolerance)


def from_keras(
    source: Any, model: Sequential, *, names: Mapping[str, str] | None = None, norms: str = "check", tolerance: float | None = 1e-4
) -> dict[str, str]:
    """Load the weights and moving statistics of a Keras model: everything, or nothing on an error.

    Args:
        source: a keras.Model, or the path of a file, .keras, .weights.h5 or .h5, which are read without Keras.
        model, names: as in from_torch. A .weights.h5 file has no order of all layers, only of those of each class, and no names: give
            the names of its groups, {"layers/conv2d": "0.conv2d"}.
        norms: as in from_torch. Keras' momentum is the weight of the old value, nbnet's decay. A .weights.h5 file holds neither.
        tolerance: as in from_torch, of a model.
    Returns, raises:
        as from_torch does; ExtraError: a file needs h5py.
    """
    check_tolerance(tolerance)
    room = ROOM + TIMES * sum(array.nbytes for array in _built(model).state().values())
    run = partial(keras.outputs, source) if keras.is_model(source) else None
    return _load(model, lambda: keras.source_of(source, room), KERAS, names, norms, run, tolerance)


def to_torch(
    model: Sequential, module: Any = None, *, names: Mapping[str, str] | None = None, tolerance: float | None = 1e-4
) -> dict[str, Any]:
    """A state dict with the weights and moving statistics of a model; neither model changes.

        module.load_state_dict(nb.convert.to_torch(model, module))

    Args:
        model: a built Sequential.
        module: the torch.nn.Module that it is for, or a state dict of it. None: the names are those of nested nn.Sequentials with the
            same layers, "0.weight", and the arrays are NumPy's, which safetensors.numpy.save_file writes; torch is not needed.
        names, tolerance: as in from_torch. With a module, the outputs of both are compared. (eps and momentum must be the model's.)
    Returns:
        with a module or a state dict of tensors, tensors of its dtypes; otherwise arrays.
    Raises:
        as from_torch does.
    """
    check_tolerance(tolerance)
    slots, orders = slots_of(_built(model), TORCH, True)
    if module is None:
        return {f"{_torch_path(slot.path)}.{name}": array for slot in slots for name, array in matching.layout_of(slot).items()}
    source = pytorch.source_of(module)
    pairs = matching.match(slots, source, names)
    units = {unit.name: matching.theirs_from(slot, unit) for slot, unit in pairs}
    _settled(pairs, None)
    arrays = {f"{name}.{last}".lstrip("."): array for name, unit in units.items() for last, array in unit.items()}
    template = {f"{unit.name}.{last}".lstrip("."): array for unit in source.units for last, array in unit.arrays.items()}
    if all(isinstance(array, np.ndarray) for array in template.values()):
        return {name: arrays[name] for name in template}
    state = pytorch.tensors({name: arrays[name] for name in template}, template)
    if pytorch.is_module(module) and tolerance is not None:
        check_outputs(model, partial(pytorch.outputs, module, state), orders, True, tolerance)
    return state


def to_keras(
    model: Sequential, keras_model: Any, *, names: Mapping[str, str] | None = None, tolerance: float | None = 1e-4
) -> dict[str, str]:
    """Give a Keras model the weights and moving statistics of a model: everything, or nothing on an error.

    Args:
        keras_model: a built keras.Model with the same layers. names, tolerance: as in from_keras.
    Returns, raises:
        as from_keras does.
    """
    check_tolerance(tolerance)
    slots, orders = slots_of(_built(model), KERAS, False)
    if not keras.is_model(keras_model):
        raise ArgumentError(f"got {type(keras_model).__name__}, expected a keras.Model")
    source = keras.source_of(keras_model, 0)
    pairs = matching.match(slots, source, names)
    arrays = {unit.name: matching.theirs_from(slot, unit) for slot, unit in pairs}
    _settled(pairs, None)
    try:
        keras.set_weights(keras_model, arrays)
        if tolerance is not None:
            check_outputs(model, partial(keras.outputs, keras_model), orders, False, tolerance)
    except BaseException:
        keras.set_weights(keras_model, {unit.name: unit.arrays for unit in source.units})
        raise
    return {unit.name: slot.path for slot, unit in pairs}


# ------------------------------------------------------------------------------------------------------ helpers


def _load(
    model: Sequential,
    read: Callable[[], Source],
    table: Any,
    names: Mapping[str, str] | None,
    norms: str,
    run: Run | None,
    tolerance: float | None,
) -> dict[str, str]:
    """Load into a copy, which shows all errors, and then into the model at once."""
    if norms not in ("check", "set"):
        raise ArgumentError(f"norms={norms!r}: expected 'check' or 'set'")
    twin, channels_first = copy.deepcopy(model), table is TORCH
    slots, orders = slots_of(twin, table, channels_first)
    pairs = matching.match(slots, read(), names)
    arrays = [matching.ours_from(slot, unit) for slot, unit in pairs]
    settings = _settled(pairs, norms)
    for slot, option, value in settings:
        matching.set_option(slot.layer, option, value)
    for (slot, _), values in zip(pairs, arrays):
        matching.assign(slot.layer, values)
    if run is not None and tolerance is not None:
        check_outputs(twin, run, orders, channels_first, tolerance)
    originals = {slot.path: slot.layer for slot in slots_of(model, table, channels_first)[0]}
    state, loaded = model.state(), twin.state()
    options = [Call(matching.set_option, originals[slot.path], option, value) for slot, option, value in settings]
    commit([*(assignment(state[name], np.array(loaded[name])) for name in state), *options])
    return {unit.name: slot.path for slot, unit in pairs}


def _settled(pairs: Sequence[tuple[Slot, Unit]], norms: str | None) -> list[tuple[Slot, str, float | None]]:
    """The options of normalisation layers that the model should take over.

    Args:
        norms: "check" or "set"; None for weights that go the other way.
    Raises:
        ArgumentError: an option differs, and norms is not "set".
    """
    found = [(slot, unit, *each) for slot, unit in pairs for each in matching.differing(slot, unit)]
    if found and norms != "set":
        slot, unit, option, *values = found[0]
        theirs, ours = (f"{option}={value if value is None else format(value, '.6g')}" for value in values)
        raise ArgumentError(
            f"{unit.name!r} has {theirs}, layer {slot.path} {ours}: build it with {type(slot.layer).__name__}({theirs}), or "
            + ("write norms='set'" if norms else "give both the same")
        )
    return [(slot, option, theirs) for slot, _, option, theirs, _ in found]


def _built(model: Any) -> Sequential:
    if not isinstance(model, Sequential):
        raise ArgumentError(f"got {type(model).__name__}, expected a built Sequential as the model")
    if model.input_shape is None:
        raise BuildError("the model is not built yet: call model.build(input_shape) first")
    return model


def _torch_path(path: str) -> str:
    """ "3.residual.body.0.conv2d" -> "3.body.0": positions without kinds."""
    return re.sub(r"(^|\.)(\d+)\.[^.]+", r"\1\2", path)
