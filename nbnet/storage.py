"""Files: an atomic writer for all of nbnet, and named arrays in the safetensors format."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.errors import CheckpointError, DataError, NbnetError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file through a temporary file next to it: every process sees the old or the new file, never half of it.

    Raises:
        OSError: it cannot be written; an older file at `path` is unchanged.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # after an error or Ctrl-C; otherwise it has been renamed
            temporary.unlink()


def write_file(path: str | Path, data: bytes, error: type[NbnetError] = DataError) -> None:
    """replace_file, with an error of nbnet.

    Raises:
        the given error: the folder is missing or read-only, or the disk is full; an older file at `path` is unchanged.
    """
    try:
        replace_file(Path(path), data)
    except OSError as problem:
        raise error(
            f"cannot write {path}: {problem.strerror or problem}; choose a folder that exists, is writable and has room"
        ) from problem


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON with write_file. Numbers must be finite, since JSON has no NaN."""
    write_file(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata with write_file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.numpy import save

    write_file(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata)), CheckpointError)


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file.

    Raises:
        CheckpointError: there is no such file, or it is truncated or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        size = Path(path).stat().st_size
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({size:,} bytes): {error}") from error


def check_match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Check that two sets of arrays have the same names, shapes and dtypes, so that loading cannot stop halfway.

    Raises:
        CheckpointError: they differ; the message names the first difference.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"{path} has no {name!r}: it belongs to another model, or was saved with another optimizer")
        if name not in expected:
            raise CheckpointError(f"{path} has {name!r}, which this model and optimizer do not have: it belongs to another model")
        a, b = found[name], expected[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise CheckpointError(
                f"{path}: {name!r} has shape {a.shape} and dtype {a.dtype}, expected {b.shape} and {b.dtype}: another model?"
            )
