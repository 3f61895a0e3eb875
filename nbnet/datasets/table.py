"""Images whose labels or targets are in a CSV file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nbnet.datasets.files import Dataset, some
from nbnet.datasets.folder import check_links
from nbnet.datasets.images import MEMORY, Size, read_or_keep, take_rows
from nbnet.errors import ArgumentError, DataError, unknown
from nbnet.preprocessing import stratified_split

Line = tuple[int, list[str]]  # its number in the file, counted from 1, and fields


def from_csv(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    file: str = "file",
    label: str = "label",
    targets: Sequence[str] = (),
    size: Size = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    *,
    memory_limit: int = MEMORY,
    progress: bool | None = None,
) -> Dataset:
    """Images that are named in a CSV file, one in a line, after a first line with the names of the columns:

        file,label                  file,x,y
        red/1.png,cat               1.png,0.25,0.5
        red/2.png,dog               2.png,0.75,0.125

        from_csv("pictures.csv")    from_csv("points.csv", targets=["x", "y"])

    Several columns of 0 and 1 are targets of loss="binary_cross_entropy": each class of its own is there or not.

    Args:
        path: of the CSV file, in UTF-8. folder: of the images, None for that of the CSV file. Files and links must stay in it.
        file, label: the columns with the file's path in the folder, and with its class. Classes are sorted, as numbers if all are.
        targets: columns of numbers, which are used in place of a class.
        size, channels, memory_limit, progress: as in from_folder.
        test_fraction: the share used for the test, of each class where there are classes. seed: of that split.
    Returns:
        (x, y), (x_test, y_test), names: x (N, H, W, C) uint8; y (N,) int64, and the names of the classes; or y (N, targets) float64, and
        the names of the targets.
    Raises:
        DataError: the CSV file or an image is missing or cannot be read, a column is missing, or a field is empty or no number: the
            message has the number of the line. ArgumentError: an option is out of range.
    """
    table = Path(path)
    root = table.parent if folder is None else Path(folder)
    if isinstance(targets, str):
        raise ArgumentError(f"targets={targets!r}: expected a list of columns, such as targets=[{targets!r}]")
    lines = _lines(table, [file, *(list(targets) or [label])])
    files = [root / fields[0] for _, fields in lines]
    for (line, _), image in zip(lines, files):
        if not image.exists():
            raise DataError(f"{table}, line {line}: there is no file {image}: expected the path of an image in {root}")
    check_links(files, root.resolve())
    y, names = _numbers(table, lines, list(targets)) if targets else _classes(table, lines, label)
    train, test = stratified_split(np.zeros(len(y), np.int64) if targets else y, test_fraction, seed)
    if len(test) == 0:
        which = "one image" if targets else "one image per class"
        raise DataError(f"{table} has {which}, so none is left for the test: expected at least two{'' if targets else ' in some class'}")
    x = read_or_keep(files, size, channels, memory_limit, progress)
    return (take_rows(x, train), y[train]), (take_rows(x, test), y[test]), names


def _classes(path: Path, lines: list[Line], label: str) -> tuple[np.ndarray, list[str]]:
    """Labels (N,) int64 and the names of the classes, which are the last fields."""
    given = [fields[-1] for _, fields in lines]
    names = sort_classes(set(given))
    if len(names) < 2:
        got = f"only the class {names[0]!r}" if names else "no class"
        raise DataError(f"{path} has {got} in the column {label!r}, expected at least two classes")
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[name] for name in given], np.int64), names


def _numbers(path: Path, lines: list[Line], names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Targets (N, targets) float64 and their names; they are all fields but the first."""
    y = np.empty((len(lines), len(names)))
    for row, (line, fields) in enumerate(lines):
        for column, text in enumerate(fields[1:]):
            try:
                y[row, column] = float(text)
            except ValueError:
                y[row, column] = math.nan
            if not math.isfinite(y[row, column]):
                raise DataError(f"{path}, line {line}: {names[column]} is {text!r}, expected a finite number")
    return y, names


def sort_classes(names: set[str]) -> list[str]:
    """Class names, sorted as numbers if all are."""
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def _lines(path: Path, columns: list[str]) -> list[Line]:
    """The number of each line, and its fields of these columns, which are not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise DataError(f"{path} is empty: expected the names of columns in its first line: {some(columns)}")
            for name in columns:
                if name not in header:
                    raise DataError(f"{path}: {unknown('column', name, header)}")
            places = [header.index(name) for name in columns]
            found = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{path}, line {reader.line_num}: got {len(row)} fields, expected {len(header)}: {some(header)}")
                fields = [row[place].strip() for place in places]
                if "" in fields:
                    raise DataError(f"{path}, line {reader.line_num}: {columns[fields.index('')]} is empty, expected a value")
                found.append((reader.line_num, fields))
            return found
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: expected a CSV file in UTF-8; save it again") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}: expected a CSV file") from error
