"""Named arrays on disk, in the safetensors format: a file is either the old one or the new one, never half of it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nbnet.errors import CheckpointError


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to a temporary file beside `path`, then rename it.

    Raises:
        CheckpointError: the folder is missing or read-only, or the disk is full; an older file at `path` is untouched.
    """
    from safetensors.numpy import save

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata))
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that exists, is writable and has room"
        ) from error


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file.

    Raises:
        CheckpointError: there is no such file, or it is truncated or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        arrays = load(data)
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, struct.error, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({len(data):,} bytes): {error}") from error
    return arrays, metadata


def check_match(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], path: str | Path) -> None:
    """That two sets of arrays have the same names, shapes and dtypes, so that loading cannot stop halfway.

    Raises:
        CheckpointError: they differ; the message names the first difference.
    """
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(f"{path} has no {name!r}: it belongs to another model, or was saved with another optimizer")
        if name not in wanted:
            raise CheckpointError(f"{path} has {name!r}, which this model and optimizer have not: it belongs to another model")
        a, b = found[name], wanted[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise CheckpointError(
                f"{path}: {name!r} has shape {a.shape} and dtype {a.dtype}, wanted {b.shape} and {b.dtype}: another model?"
            )
