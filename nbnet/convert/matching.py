"""Layers of another model beside those of ours: by name or by order, and their arrays from one layout to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nbnet.convert.slots import Slot
from nbnet.convert.table import Entry
from nbnet.errors import ArgumentError, DTypeError, NbnetError, NonFiniteError, ShapeError, first_line, unknown
from nbnet.layers import BatchNorm, Layer

TRIVIAL = {"gamma": 1.0, "beta": 0.0, "bias": 0.0}  # what a layer computes that lacks the array


@dataclass
class Unit:
    """A layer of another model that has weights."""

    name: str
    arrays: dict[str, Any]  # by its name there, in order
    kind: str = ""  # its class, as the table has it, where it is known
    settings: dict[str, float | None] = field(default_factory=dict)  # eps and decay, where they are known
    named: bool = True  # False: the arrays have only an order


class Source(NamedTuple):
    """Another model."""

    what: str  # for messages: a path, or "the module"
    units: list[Unit]
    order: str = "all"  # "kind": only layers of one kind are in order; "none": safetensors sorted them by name


def match(slots: Sequence[Slot], source: Source, names: Mapping[str, str] | None) -> list[tuple[Slot, Unit]]:
    """The layers of both models in pairs, in the order of ours.

    Args:
        names: by the name of a layer there, its name in ours; layers that it leaves out have the same name in both. None: all names are
            the same, or else the order counts.
    Raises:
        ArgumentError: there is no such layer, or a layer has no partner.
    """
    units = {unit.name: unit for unit in source.units}
    paths = {slot.path: slot for slot in slots}
    if names is None and units.keys() != paths.keys():
        return _by_fit(slots, source) if source.order == "none" else _by_order(slots, source)
    for name, path in _checked(names or {}).items():
        for kind, one, known in ((f"layer of {source.what}", name, units), ("layer with weights", path, paths)):
            if one not in known:
                raise ArgumentError(f"names: {unknown(kind, one, known)}")
    target = {name: (names or {}).get(name, name) for name in units}
    found = {path: name for name, path in target.items()}
    lost = [name for name, path in target.items() if path not in paths or found[path] != name]
    empty = [path for path in paths if path not in found]
    if lost or empty:
        raise ArgumentError(_alone(source, lost, empty, "name each in names="))
    return [(slot, units[found[slot.path]]) for slot in slots]


def _checked(names: Any) -> Mapping[str, str]:
    fits = isinstance(names, Mapping) and all(isinstance(text, str) for pair in names.items() for text in pair)
    if not fits:
        raise ArgumentError(f"names={names!r}: expected a dict from names there to names in the model, such as {{'conv1': '0.conv2d'}}")
    return names


def _by_order(slots: Sequence[Slot], source: Source) -> list[tuple[Slot, Unit]]:
    places = {(unit.kind, unit.name.rpartition("/")[0]) for unit in source.units}
    mixed = [kind for kind, count in Counter(kind for kind, _ in places).items() if count > 1]
    if mixed and source.order == "kind":
        raise ArgumentError(
            f"the order of the {', '.join(mixed)} layers is not in {source.what}, since some are in models within the model: expected the "
            f".keras file, or names= for {', '.join(unit.name for unit in source.units)}"
        )
    left, pairs = list(source.units), []
    for slot in slots:
        unit = next((unit for unit in left if source.order == "all" or unit.kind in slot.row.classes), None)
        if unit is None:
            break
        left.remove(unit)
        pairs.append((slot, unit))
    if left or len(pairs) < len(slots):
        for slot, unit in pairs:  # where shapes tell which one is too many
            _check_fit(slot, unit)
        raise ArgumentError(
            _alone(source, [unit.name for unit in left], [slot.path for slot in slots[len(pairs) :]], "is it another model?")
        )
    return pairs


def _by_fit(slots: Sequence[Slot], source: Source) -> list[tuple[Slot, Unit]]:
    """For layers that have no order: each must be the only one that fits."""
    pairs: list[tuple[Slot, Unit]] = []
    for slot in slots:
        fits = [unit for unit in source.units if all(unit is not used for _, used in pairs) and _fits(slot, unit)]
        if len(fits) != 1:
            found = f"{', '.join(repr(unit.name) for unit in fits[:5])}{' and more' * (len(fits) > 5)} fit" if fits else "none fits"
            raise ArgumentError(
                f"{source.what} has layers sorted by name, not in order, and {found} layer {slot.path} ({_wanted(slot)}): "
                + ("give names=, by name there the name here" if fits else "is it another model?")
            )
        pairs.append((slot, fits[0]))
    left = [unit.name for unit in source.units if all(unit is not used for _, used in pairs)]
    if left:
        raise ArgumentError(_alone(source, left, [], "is it another model?"))
    return pairs


def _fits(slot: Slot, unit: Unit) -> bool:
    try:
        _check_fit(slot, unit)
    except NbnetError:
        return False
    return True


def _alone(source: Source, units: Sequence[str], paths: Sequence[str], hint: str) -> str:
    parts = [(units, f"of {source.what}"), (paths, "of the model")]
    listed = [f"{', '.join(map(repr, names[:5]))}{', ...' * (len(names) > 5)} {whose}" for names, whose in parts if names]
    return f"got {len(source.units)} layers with weights in {source.what}; no partner for {' and '.join(listed)}: {hint}"


# ------------------------------------------------------------------------------------------------ arrays and settings


def current(layer: Layer) -> dict[str, np.ndarray]:
    """The arrays of a layer on the host, by the names of the table."""
    arrays = {name: np.array(param.value) for name, param in layer.params.items()}
    if isinstance(layer, BatchNorm):
        mean, var, eps = layer.moving.read(layer.buffers)
        var = np.array(var) if eps else np.maximum(np.asarray(var) - layer.eps, 0).astype(layer.dtype)
        arrays |= {"moving_mean": np.array(mean), "moving_var": var, "updates": np.array(layer.buffers["updates"][0])}
    return arrays


def assign(layer: Layer, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the arrays of a layer."""
    for name, param in layer.params.items():
        param.value[...] = arrays[name]
    if isinstance(layer, BatchNorm):
        buffers = {name: np.array(array) for name, array in layer.buffers.items()}
        layer.moving.assign(buffers, arrays["moving_mean"], arrays["moving_var"])
        buffers["updates"][0] = arrays.get("updates", 1)
        for name, array in buffers.items():
            layer.buffers[name][...] = array


def ours_from(slot: Slot, unit: Unit) -> dict[str, np.ndarray]:
    """The arrays of a unit, in the layout and dtype of the layer.

    Raises:
        ArgumentError, ShapeError, DTypeError, NonFiniteError: they do not fit; the message names both layers.
    """
    arrays = {}
    for entry, theirs in _check_fit(slot, unit):
        value = _numbers(theirs, f"{unit.name}.{entry.theirs}")
        if entry.ours == "updates":
            if not 0 <= value < 1 << 63:  # also of a NaN
                raise NonFiniteError(f"{unit.name}.{entry.theirs} is {value}, expected a number of updates")
            arrays["updates"] = value.astype(np.int64)
            continue
        with np.errstate(over="ignore"):
            value = entry.form.into(value, slot.layer).astype(slot.layer.dtype)
        for axis, order in slot.orders(entry.ours).items():
            value = np.take(value, order, axis)
        if not np.isfinite(value).all() or (entry.ours == "moving_var" and (value < 0).any()):
            raise NonFiniteError(f"{unit.name}.{entry.theirs} has NaN, infinity or a negative variance, expected trained weights")
        arrays[entry.ours] = value
    return arrays


def theirs_from(slot: Slot, unit: Unit) -> dict[str, np.ndarray]:
    """The arrays of a layer under the names and in the layout of a unit.

    Raises:
        ArgumentError, ShapeError: they do not fit; the message names both layers.
    """
    _check_kind(slot, unit)
    ours = current(slot.layer)
    expected = _expected(slot)
    lost = [name for name, value in ours.items() if name in expected and expected[name].theirs not in unit.arrays]
    for name in lost:
        if name != "updates" and not np.array_equal(ours[name], np.full_like(ours[name], TRIVIAL.get(name.split(".")[-1], np.nan))):
            raise ArgumentError(f"layer {slot.path} has a {name!r}, for which {unit.name!r} has no array: expected a layer with it")
    kept = {name: entry for name, entry in expected.items() if name not in lost}
    arrays = {entry.theirs: _laid_out(slot, entry, ours[name]) for name, entry in kept.items()}
    for entry in slot.row.entries:
        value = TRIVIAL.get(entry.ours.split(".")[-1])
        if entry.theirs in unit.arrays and entry.theirs not in arrays and value is not None:
            arrays[entry.theirs] = np.full(np.shape(unit.arrays[entry.theirs]), value, slot.layer.dtype)
    if any(name not in arrays or np.shape(array) != arrays[name].shape for name, array in unit.arrays.items()):
        raise ShapeError(_misfit(slot, unit))
    return {name: arrays[name] for name in unit.arrays}


def _laid_out(slot: Slot, entry: Entry, value: np.ndarray) -> np.ndarray:
    for axis, order in slot.orders(entry.ours).items():
        value = np.take(value, np.argsort(order), axis)
    return np.ascontiguousarray(entry.form.back(value, slot.layer)) if value.ndim else value


def layout_of(slot: Slot) -> dict[str, np.ndarray]:
    """The arrays of a layer as the other framework has them."""
    ours = current(slot.layer)
    return {entry.theirs: _laid_out(slot, entry, ours[name]) for name, entry in _expected(slot).items()}


def _expected(slot: Slot) -> dict[str, Entry]:
    """The entries of the row that the layer has, by our names."""
    ours = current(slot.layer)
    return {entry.ours: entry for entry in slot.row.entries if entry.ours in ours}


def _check_fit(slot: Slot, unit: Unit) -> list[tuple[Entry, Any]]:
    """The arrays of a unit with their entries.

    Raises:
        ArgumentError, ShapeError: they are not those of the layer.
    """
    expected = {entry.theirs: entry for entry in _expected(slot).values()}
    _check_kind(slot, unit)
    given = unit.arrays
    if not unit.named:
        if len(given) != len(expected):
            raise ArgumentError(_misfit(slot, unit))
        given = dict(zip(expected, given.values()))
    for name in expected.keys() | given.keys():
        if name not in given and name != "num_batches_tracked":  # files of old versions lack it
            raise ArgumentError(_misfit(slot, unit))
        if name in given and name not in expected and not _trivial(slot, name, given[name]):
            raise ArgumentError(_misfit(slot, unit))
    fits = [(entry, given[name]) for name, entry in expected.items() if name in given]
    shapes = {name: array.shape for name, array in layout_of(slot).items()}
    if any(tuple(np.shape(array)) != shapes[entry.theirs] for entry, array in fits):
        raise ShapeError(_misfit(slot, unit))
    return fits


def _check_kind(slot: Slot, unit: Unit) -> None:
    if unit.kind and unit.kind not in slot.row.classes:
        raise ArgumentError(_misfit(slot, unit))


def _trivial(slot: Slot, name: str, array: Any) -> bool:
    """Whether an array that the layer does not have would change nothing."""
    ours = next((entry.ours for entry in slot.row.entries if entry.theirs == name), "")
    value = TRIVIAL.get(ours.split(".")[-1])
    return value is not None and np.shape(array) == slot.layer.output_shape[-1:] and bool(np.all(_numbers(array, name) == value))


def _shapes(arrays: Mapping[str, Any]) -> str:
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items() if name != "num_batches_tracked" or shape)


def _wanted(slot: Slot) -> str:
    return f"{' or '.join(slot.row.classes)} with {_shapes(layout_of(slot))}"


def _misfit(slot: Slot, unit: Unit) -> str:
    kind = f"{unit.kind}, " if unit.kind else ""
    return (
        f"{unit.name!r} ({kind}{_shapes(unit.arrays)}) does not fit layer {slot.path} ({type(slot.layer).__name__}), which expects "
        f"{_wanted(slot)}: another model, or another order, for which there is names="
    )


def _numbers(theirs: Any, name: str) -> np.ndarray:
    """An array of any framework as one of NumPy, in a precision that holds it."""
    if hasattr(theirs, "detach"):  # a tensor of PyTorch
        try:
            theirs = theirs.detach().cpu()
            theirs = (theirs.float() if theirs.is_floating_point() and theirs.element_size() < 4 else theirs).numpy()
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise DTypeError(f"{name} is not a plain tensor ({first_line(error)}), expected a dense one of real numbers") from error
    array = np.asarray(theirs)
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array


def differing(slot: Slot, unit: Unit) -> Iterator[tuple[str, float | None, float | None]]:
    """The settings of a normalisation that differ: name, the unit's, the layer's."""
    layer: Any = slot.layer
    ours = {"eps": getattr(layer, "eps", None)} | ({"decay": layer.moving.decay} if isinstance(layer, BatchNorm) else {})
    for name, theirs in unit.settings.items():
        mine = ours.get(name, theirs)
        if (theirs is None) != (mine is None) or (theirs is not None and mine is not None and np.float32(theirs) != np.float32(mine)):
            yield name, theirs, mine


def set_option(layer: Any, name: str, value: float | None) -> None:
    """Set eps or decay of a normalisation."""
    if isinstance(layer, BatchNorm):
        setattr(layer.moving, name, value)
    if name == "eps":
        layer.eps = value
