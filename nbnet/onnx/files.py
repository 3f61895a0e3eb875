"""Read an ONNX file that anyone may have made: what it declares is compared with what it holds before anything is allocated."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from nbnet.errors import OnnxError
from nbnet.onnx.extra import package

LARGEST = 1 << 31  # bytes: the limit of protobuf


def read(path: str | os.PathLike[str]) -> Any:
    """The ModelProto of a file.

    Raises:
        ExtraError: onnx is not installed. OnnxError: the file cannot be read, or is not ONNX.
    """
    onnx = package()
    try:
        file = Path(path)
        if file.exists() and not file.is_file():
            raise OnnxError(f"{path} is not a file: expected an ONNX file")
        size = file.stat().st_size
        if size > LARGEST:
            raise OnnxError(f"{path} has {size:,} bytes, expected an ONNX file, which has at most {LARGEST:,}")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, OnnxError):
            raise
        raise OnnxError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError
        raise OnnxError(f"{path} is truncated or not an ONNX file ({len(data):,} bytes)") from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise OnnxError(f"{path} has no graph with an output: truncated or not an ONNX file ({len(data):,} bytes)")
    return proto


def array(tensor: Any, folder: Path) -> np.ndarray:
    """The numbers of a TensorProto.

    Args:
        folder: of the file: data outside the file is in it.
    Raises:
        OnnxError: it does not hold what it declares, or its data is elsewhere.
    """
    onnx = package()
    name, sizes = tensor.name, tuple(tensor.dims)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except Exception:
        dtype = None
    if dtype is None or dtype.kind not in "fiub" or dtype.itemsize * 8 not in (8, 16, 32, 64):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in onnx.TensorProto.DataType.values() else "unknown"
        raise OnnxError(f"tensor {name!r} is of the type {kind}, expected FLOAT, or a type of whole numbers")
    if any(n < 0 for n in sizes):
        raise OnnxError(f"tensor {name!r} declares the shape {sizes}, expected sizes of at least 0")
    expected = math.prod(sizes) * dtype.itemsize
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return np.frombuffer(_outside(tensor, folder, expected), dtype).reshape(sizes)
    try:
        values = np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:  # whatever a tensor without its numbers causes
        raise OnnxError(f"tensor {name!r} of shape {sizes} does not hold its {math.prod(sizes):,} numbers") from error
    if values.shape != sizes:
        raise OnnxError(f"tensor {name!r} of shape {sizes} holds {values.shape}")
    return values


def _outside(tensor: Any, folder: Path, expected: int) -> bytes:
    """The bytes of a tensor in another file, which must be in the folder of the ONNX file."""
    name = tensor.name
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    leaves = ".." in PurePosixPath(location).parts + PureWindowsPath(location).parts
    if not location or leaves or PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        raise OnnxError(f"tensor {name!r} has its data in {location!r}, expected a file in the folder of the ONNX file")
    try:
        file = (folder / location).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise OnnxError(f"tensor {name!r} has its data in {location!r}, a link out of the folder of the ONNX file")
        if not file.is_file():
            raise OnnxError(f"tensor {name!r} has its data in {location!r}, which is missing: keep it beside the ONNX file")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
        if offset < 0 or length != expected or offset + length > file.stat().st_size:
            raise OnnxError(
                f"tensor {name!r} declares {expected:,} bytes, got bytes {offset:,} to {offset + length:,} of {file.stat().st_size:,} in "
                f"{location!r}"
            )
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, OnnxError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise OnnxError(f"tensor {name!r} has its data in {location!r}, which cannot be read: {reason}") from error
