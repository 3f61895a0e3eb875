"""Images and labels in the columns of a table: of PyArrow, of Hugging Face's datasets, or of any other kind."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from nbnet import schema
from nbnet.datasets.files import Dataset, some
from nbnet.datasets.folder import PARTS
from nbnet.datasets.images import MEMORY, Encoded, Size, read_or_keep, take_rows
from nbnet.datasets.table import sort_classes
from nbnet.errors import ArgumentError, DataError, unknown
from nbnet.preprocessing import stratified_split


def from_arrow(
    table: Any,
    image: str = "image",
    label: str = "label",
    size: Size = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    *,
    memory_limit: int = MEMORY,
    progress: bool | None = None,
) -> Dataset:
    """Images and labels in two columns of a table; neither PyArrow nor datasets is needed.

        from_arrow(pyarrow.parquet.read_table("pictures.parquet"))
        from_arrow(datasets.load_dataset("cifar10"), image="img")

    Args:
        table: a pyarrow.Table, a Dataset of Hugging Face, or a mapping of names to columns, such as a DataFrame of pandas; or a mapping
            with two of them, "train" and "test" (or "validation"), such as a DatasetDict.
        image: the column of image files (PNG, JPEG, ...): their bytes, or records that have them under "bytes".
        label: the column of labels: class numbers, or class names. Names of class numbers are those that Hugging Face's metadata has.
            Without them, classes are sorted, as numbers if all are.
        size, channels, memory_limit, progress: as in from_folder.
        test_fraction: the share of each class used for the test, if there is one table. seed: of that split.
    Returns:
        (x, y), (x_test, y_test), class_names: x (N, H, W, C) uint8, y (N,) int64, class_names a list of str.
    Raises:
        DataError: a column is missing, an image has no bytes or cannot be read, a label is missing or no class, sizes differ, or fewer
            than two classes or no test image remain. ArgumentError: the table is of another kind, or an option is out of range.
    """
    parts = [_read(part, image, label, where) for where, part in _parts(table, image).items()]
    files = [file for part in parts for file in part.files]
    names, labels = _classes(parts, label)
    if len(parts) == 1:
        train, test = stratified_split(labels[0], test_fraction, seed)
        if len(test) == 0:
            raise DataError("the table has one image per class, so none is left for the test: expected at least two in some class")
        y, y_test = labels[0][train], labels[0][test]
    else:
        y, y_test = labels
        if len(y_test) == 0:
            raise DataError(f"the table{parts[1].where} has no rows, expected at least one image")
        train, test = np.arange(len(y)), np.arange(len(y), len(files))
    x = read_or_keep(files, size, channels, memory_limit, progress)
    return (take_rows(x, train), y), (take_rows(x, test), y_test), names


class Part(NamedTuple):
    where: str  # the table, for messages
    files: list[Encoded]
    labels: list[Any]
    class_names: list[str] | None  # where the table has names of its class numbers


def _parts(table: Any, image: str) -> dict[str, Any]:
    """The tables, named for messages: a single one, or train and what is held out."""
    if not isinstance(table, Mapping) or image in table:
        return {"": table}
    parts = {PARTS[name.lower()]: part for name, part in table.items() if isinstance(name, str) and name.lower() in PARTS}
    held_out = next((part for part in ("test", "validation") if part in parts), None)
    if "train" not in parts or held_out is None:
        raise DataError(f"got {some(list(map(str, table))) or 'nothing'}, expected tables train and test, or a column {image!r}")
    return {f" of {part}": parts[part] for part in ("train", held_out)}


def _read(table: Any, image: str, label: str, where: str) -> Part:
    feature = getattr(getattr(table, "features", None), "get", lambda _: None)(label)
    if hasattr(table, "with_format"):  # a Dataset of Hugging Face, which may be some rows of its table, in another order
        try:
            table = table.with_format("arrow")[:]
        except TypeError as error:
            raise _not_a_table(table) from error
    images, labels = _column(table, image), _column(table, label)
    if len(images) != len(labels):
        raise DataError(f"{image!r} has {len(images):,} rows and {label!r} {len(labels):,}{where}: expected equal counts")
    files = [_encoded(value, f"row {row} of {image!r}{where}") for row, value in enumerate(images)]
    labels = [value.item() if isinstance(value, np.generic) else value for value in labels]
    names = getattr(feature, "names", None) or _names_in(getattr(getattr(table, "schema", None), "metadata", None), label)
    return Part(where, files, labels, names)


def _column(table: Any, name: str) -> list[Any]:
    columns = getattr(table, "column_names", None) or getattr(table, "columns", None)
    if columns is None and not isinstance(table, Mapping):
        raise _not_a_table(table)
    try:
        known = [str(each) for each in (table if columns is None else columns)]
        if name not in known:
            raise DataError(f"the table has no {name!r}: {unknown('column', name, known)}")
        if known.count(name) > 1:
            raise DataError(f"the table has {known.count(name)} columns {name!r}, expected one: give them different names")
        column = table.column(name) if hasattr(table, "column") else table[name]
        return column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    except (TypeError, KeyError, IndexError) as error:
        raise _not_a_table(table) from error


def _not_a_table(table: Any) -> ArgumentError:
    return ArgumentError(
        f"got a {type(table).__name__}, expected a pyarrow.Table, a Dataset of Hugging Face, or a mapping of names to columns"
    )


def _encoded(value: Any, name: str) -> Encoded:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Encoded(name, bytes(data))
    if isinstance(value, Mapping) and value.get("path"):
        raise DataError(f"{name} has a path and no bytes: expected the image itself; for files use from_folder or from_csv")
    raise DataError(f"{name} is {reprlib.repr(data)}, expected the bytes of an image file (PNG, JPEG, ...)")


def _names_in(metadata: Any, label: str) -> list[str] | None:
    """The class names of a label in the metadata of a table's schema, if Hugging Face has written them there."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (TypeError, KeyError, ValueError, RecursionError):  # there are none, or they are damaged
        return None
    return names if isinstance(names, list) else None


def _classes(parts: list[Part], label: str) -> tuple[list[str], list[np.ndarray]]:
    """The names of the classes, and the labels (N,) int64 of each part, of which the first is for training."""
    for part in parts:
        for row, value in enumerate(part.labels):
            if not isinstance(value, (str, Integral)):
                raise DataError(f"row {row} of {label!r}{part.where} is {reprlib.repr(value)}, expected a class number or a class name")
    names = parts[0].class_names
    for part in parts[1:]:
        if names is not None and part.class_names is not None and part.class_names != names:
            raise DataError(
                f"the classes{part.where} are {some(part.class_names)}, expected those{parts[0].where}, {some(names)}, in that order"
            )
    if names is None or any(isinstance(value, str) for value in parts[0].labels):
        names = sort_classes({_text(value) for value in parts[0].labels})
        place = {name: number for number, name in enumerate(names)}
    else:
        place = {str(number): number for number in range(len(names))}
    names = schema.fit(list(names), schema.rows(schema.text()), f"the classes of {label!r} cannot be used", DataError)
    if len(names) < 2:
        raise DataError(f"{label!r} has {'only the class ' + repr(names[0]) if names else 'no class'}, expected at least two classes")
    return names, [_numbers(part, label, place) for part in parts]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(int(value))


def _numbers(part: Part, label: str, place: dict[str, int]) -> np.ndarray:
    """Labels (N,) int64. place: the number of each class."""
    for row, value in enumerate(part.labels):
        if _text(value) not in place:
            found = reprlib.repr(value)
            raise DataError(f"row {row} of {label!r}{part.where} is {found}, which is not a class: expected {some(list(place))}")
    return np.array([place[_text(value)] for value in part.labels], np.int64)
