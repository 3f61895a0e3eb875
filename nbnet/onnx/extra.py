"""The package onnx, which nbnet[onnx] installs: imported when a function needs it."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ExtraError

OPSET, IR_VERSION = 20, 9  # of files that nbnet writes: the first operator set that has Gelu, and the file version that came with it


def package() -> Any:
    """The package onnx.

    Raises:
        ExtraError: it is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper  # noqa: F401 - as attributes of onnx
    except ImportError as error:
        raise ExtraError(f"nb.onnx needs the package onnx ({error}): pip install 'nbnet[onnx]'") from error
    return onnx
