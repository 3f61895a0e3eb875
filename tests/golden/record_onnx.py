"""Record ONNX files of small networks of PyTorch, and what they compute, for tests/onnx_files/test_load.py, which then needs no PyTorch.

    pip install torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2
    python tests/golden/record_onnx.py

Writes onnx/<network>.onnx of the exporter by TorchScript, in operator sets 18 and 11 where it can, onnx/<network>-dynamo.onnx of the newer
one, and onnx/outputs.npz: "<network>|x" and "<network>|y0", ... in NCHW.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
from torch_networks import TINY, exported, trained

FOLDER = Path(__file__).parent / "onnx"
KINDS = {"": {"opset": 18}, "-opset11": {"opset": 11}, "-fixed": {"opset": 17, "dynamic": False}, "-dynamo": {"dynamo": True}}
ALL_KINDS = ("lenet", "convnext")  # the other networks: of both exporters alone


def stripped(path):
    """Leave out what nobody needs: the names of Python files among it."""
    proto = onnx.load(path)
    proto.graph.ClearField("value_info")
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(proto, path)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    FOLDER.mkdir(exist_ok=True)
    arrays = {}
    for name, (make, shape) in TINY.items():
        network, x, ys = trained(make, shape)
        arrays |= {f"{name}|x": x.numpy(), **{f"{name}|y{i}": y.numpy() for i, y in enumerate(ys)}}
        for kind, options in KINDS.items():
            if name in ALL_KINDS or kind in ("", "-dynamo"):
                path = FOLDER / f"{name}{kind}.onnx"
                with contextlib.redirect_stdout(io.StringIO()):
                    exported(network, x, path, **options)
                stripped(path)
    np.savez_compressed(FOLDER / "outputs.npz", **arrays)


if __name__ == "__main__":
    main()
