"""Keras' files without Keras: `.keras` (a zip of config.json and model.weights.h5), `.weights.h5`, and the older `.h5`.

A file may come from anyone: links are not followed, nothing outside it is opened, and no array is read before its size is known.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.convert.matching import Source, Unit
from nbnet.convert.probe import unreadable
from nbnet.convert.table import KERAS
from nbnet.errors import ArgumentError, CheckpointError, ExtraError, NbnetError

DEPTH, GROUPS = 32, 100_000  # how deep groups may be in groups, and how many names are looked up: groups may be in circles
NOT_LAYERS = {"optimizer", "_optimizer", "metrics", "_metrics", "seed_generator"}
CLASSES = {name: row for row in KERAS.values() for name in row.classes}
EXPECTED = "a whole .keras, .weights.h5 or .h5 file, written by Keras"


def units_of_file(path: Path, room: int) -> Source:
    """The layers with weights of a file. room: the largest number of bytes of arrays, and of a compressed file.

    Raises:
        CheckpointError: it cannot be read, or is not written by Keras. ExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise ExtraError(f"{path} needs h5py: pip install 'nbnet[convert]'") from None
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: there is no such file")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                config = json.loads(_member(archive, "config.json", room))
                with h5py.File(io.BytesIO(_member(archive, "model.weights.h5", room)), "r") as file:
                    return _Reader(file, room).stored(str(path), config)
        with h5py.File(path, "r") as file:
            reader = _Reader(file, room)
            weights = reader.child(file, "model_weights") if "model_weights" in file else file
            return reader.older(str(path), weights) if "layer_names" in weights.attrs else reader.stored(str(path), None)
    except NbnetError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # h5py raises any kind for damaged files
        raise unreadable(path, error, EXPECTED) from error


def settings(config: Mapping[str, Any]) -> dict[str, float | None]:
    """eps and, of a batch norm, the weight of the old moving value, which is Keras' momentum.

    Raises:
        ArgumentError: the layer has its channels first, so that a Flatten after it may give another order.
    """
    if config.get("data_format") == "channels_first":
        raise ArgumentError(f"layer {config.get('name')!r} has data_format='channels_first', expected channels_last")
    found = {"epsilon": "eps", "momentum": "decay"}
    return {ours: float(config[name]) for name, ours in found.items() if isinstance(config.get(name), (int, float))}


def in_snake_case(cls: str) -> str:
    """The name of a group for a class: "conv2d_transpose", "p_re_lu"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", cls).lower()


BY_GROUP = {in_snake_case(name): name for name in CLASSES}


def _member(archive: zipfile.ZipFile, name: str, room: int) -> bytes:
    if name not in archive.namelist():
        raise CheckpointError(f"the zip has no {name}: expected {EXPECTED}")
    if archive.getinfo(name).file_size > room:
        raise CheckpointError(f"{name} has {archive.getinfo(name).file_size:,} bytes, far more than the model needs: another model?")
    return archive.read(name)


class _Reader:
    """Reads groups and arrays of an open file."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room, self.left = file, room, GROUPS

    def child(self, group: Any, name: str) -> Any:
        """What a group holds itself under a name.

        Raises:
            CheckpointError: there is no such name, or it is a link.
        """
        import h5py

        self.left -= 1
        if self.left < 0:
            raise CheckpointError(f"there are more than {GROUPS:,} groups, expected {EXPECTED}")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "nothing" if link is None else f"a {type(link).__name__}"
            raise CheckpointError(f"{name!r} is {kind}, expected a group or an array in the file itself")
        return group[name]

    def array(self, group: Any, name: str) -> np.ndarray:
        import h5py

        found = self.child(group, name)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu" or found.external or found.is_virtual:
            raise CheckpointError(f"{name!r} is not a plain array of numbers, expected the weights of a layer")
        itemsize = found.dtype.itemsize
        if math.prod(found.chunks or ()) * itemsize > self.room:  # a chunk is read whole, however little of it the array has
            raise CheckpointError(f"{name!r} has chunks of shape {found.chunks}, far more than the model needs: another model?")
        self.room -= found.size * itemsize
        if self.room < 0:
            raise CheckpointError(f"{name!r} has shape {found.shape}, and all arrays have far more than the model needs: another model?")
        return found[()]

    # ------------------------------------------------------------------------------------- Keras 3: .keras, .weights.h5

    def stored(self, path: str, config: Any) -> Source:
        """The layers of a file of Keras 3. config: the architecture, which has their order, or None."""
        if config is not None:
            return Source(path, list(self._configured(self.file, config, "")))
        units = list(self._found(self.file, "", 0))
        if not units:
            raise CheckpointError(f"there are no weights of layers: expected {EXPECTED}")
        return Source(path, units, order="kind")

    def _configured(self, group: Any, config: Any, prefix: str) -> Iterator[Unit]:
        """The layers of a model's architecture, with their arrays. Names of groups count the layers of each class."""
        counts: dict[str, int] = {}
        layers = self.child(group, "layers")
        for each in config["config"]["layers"]:
            cls, options = each["class_name"], each["config"]
            base = in_snake_case(cls)
            number = counts[base] = counts.get(base, -1) + 1
            name = f"{base}_{number}" if number else base
            if name not in layers:
                continue
            inner = self.child(layers, name)
            if isinstance(options.get("layers"), list):
                yield from self._configured(inner, each, f"{prefix}{options['name']}/")
                continue
            arrays = self._numbered(inner)
            if arrays:
                names = [e.theirs for e in CLASSES[cls].entries if options.get(e.option, True)] if cls in CLASSES else list(arrays)
                if len(names) != len(arrays):
                    raise CheckpointError(f"layer {options['name']!r} has {len(arrays)} arrays, expected {', '.join(names)}")
                yield Unit(prefix + options["name"], dict(zip(names, arrays.values())), cls, settings(options))

    def _found(self, group: Any, path: str, depth: int) -> Iterator[Unit]:
        """All groups with arrays, sorted by the numbers in their names."""
        import h5py

        if depth > DEPTH:
            raise CheckpointError(f"there are more than {DEPTH} groups in groups, expected {EXPECTED}")
        if "vars" in group:
            arrays = self._numbered(group)
            last = path.rpartition("/")[2]
            kind = BY_GROUP.get(re.sub(r"_\d+$", "", last), last)
            if arrays:
                yield Unit(path, arrays, kind, named=False)
        for name in sorted(group, key=_in_order):
            if name != "vars" and name not in NOT_LAYERS and isinstance(inner := self.child(group, name), h5py.Group):
                yield from self._found(inner, f"{path}/{name}" if path else name, depth + 1)

    def _numbered(self, group: Any) -> dict[str, np.ndarray]:
        """The arrays of a layer, "0", "1", ..."""
        if "vars" not in group:
            return {}
        group = self.child(group, "vars")
        return {name: self.array(group, name) for name in sorted(group, key=_in_order)}

    # --------------------------------------------------------------------------------------- model.save("....h5"), Keras 2

    def older(self, path: str, group: Any) -> Source:
        """The layers of a file that lists their names in order, and where it has one the architecture."""
        text = self.file.attrs.get("model_config")
        configs = dict(_by_name(json.loads(text))) if text else {}
        units: dict[str, Unit] = {}
        for layer in map(_text, group.attrs["layer_names"]):
            inner = self.child(group, layer)
            for weight in map(_text, inner.attrs["weight_names"]):
                where, _, name = weight.partition(":")[0].rpartition("/")
                parts = where.split("/")
                own = configs.get(parts[-1]) or configs.get(layer) or {}
                cls, options = own.get("class_name", ""), own.get("config", {})
                full = layer if parts[-1] == layer else f"{layer}/{parts[-1]}"
                unit = units.setdefault(full, Unit(full, {}, cls if cls in CLASSES else "", settings(options)))
                at = inner
                for part in weight.split("/")[:-1]:
                    at = self.child(at, part)
                unit.arrays[name] = self.array(at, weight.split("/")[-1])
        for unit in units.values():
            if "pointwise_kernel" not in unit.arrays and "depthwise_kernel" in unit.arrays:  # Keras 2
                unit.arrays = {"kernel" if name == "depthwise_kernel" else name: array for name, array in unit.arrays.items()}
        return Source(path, list(units.values()))


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _in_order(name: str) -> tuple[str, int]:
    """Sorts "conv2d", "conv2d_1", ..., "conv2d_10", and "0", ..., "10"."""
    found = re.fullmatch(r"(.*?)_?(\d+)", name)
    return (found[1], int(found[2])) if found and (name.isdigit() or f"{found[1]}_{found[2]}" == name) else (name, 0)


def _by_name(config: Any) -> Iterator[tuple[str, Any]]:
    """The layers of an architecture, also those of models in it."""
    for layer in config.get("config", {}).get("layers", []):
        yield layer["config"]["name"], layer
        yield from _by_name(layer)
