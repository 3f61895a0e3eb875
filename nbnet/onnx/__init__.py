"""Models as ONNX files: nb.onnx.export and nb.onnx.load. They need the package onnx: pip install 'nbnet[onnx]'."""

from nbnet.onnx.export import export
from nbnet.onnx.load import load, metadata

__all__ = ["export", "load", "metadata"]
