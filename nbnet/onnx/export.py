"""Write a model as an ONNX file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from nbnet import folding, storage
from nbnet.errors import ArgumentError, BuildError, OnnxError, unknown
from nbnet.layers import Layer, Sequential
from nbnet.layers.base import Shape
from nbnet.onnx.extra import IR_VERSION, OPSET
from nbnet.onnx.out_layers import RULES
from nbnet.onnx.writer import Value, Writer, channel_wise
from nbnet.runtime.arrays import several
from nbnet.version import __version__

LAYOUTS = ("NHWC", "NCHW")
BATCH = "N"


def export(
    model: Layer,
    path: str | PathLike[str],
    *,
    input_layout: str = "NHWC",
    fold_batch_norm: bool = False,
    class_names: Sequence[str] | None = None,
    mean: Any = None,
    std: Any = None,
) -> None:
    """Write a built model to an ONNX file (operator set 20) that computes what `model.predict` does, in float32, for any batch size.

    The input is "input", the output "output"; of several, "input_0", "input_1", ... Nodes and weights have the names of the model, such as
    "0.conv2d" and "0.conv2d.weight". Dropout is gone. The input holds floats: pixels divided by 255, as predict does with uint8.

    Args:
        input_layout: of images and sequences in the file, inputs and outputs: "NHWC", as in nbnet, or "NCHW", as in PyTorch. The nodes
            between compute in NCHW either way.
        fold_batch_norm: whether batch norms become part of the weights before them (nb.fold_batch_norm).
        class_names: one for each output, for the metadata.
        mean, std: numbers, or one for each channel: the graph begins with (input - mean) / std, and the metadata has them. For models
            that were trained on data normalised like this.
    Raises:
        ExtraError: onnx is not installed. BuildError: the model is not built. ArgumentError: an option is wrong, a layer has a forward of
            its own, or a weight is not finite. DataError: the file cannot be written; an older one is unchanged.
    """
    if not isinstance(model, Layer):
        raise ArgumentError(f"export got {type(model).__name__}, expected a built model: write nb.onnx.export(model, path)")
    if model.input_shape is None:
        raise BuildError("export expects a built model: call model.build(input_shape) first")
    if input_layout not in LAYOUTS:
        raise ArgumentError(unknown("input_layout", input_layout, LAYOUTS))
    metadata = {"input_layout": input_layout}
    if class_names is not None:
        metadata["class_names"] = json.dumps(_names(class_names, model.output_shape))
    if mean is not None or std is not None:
        mean, std = _normalisation(mean, std, model.input_shape)
        metadata |= {"mean": json.dumps(mean.tolist()), "std": json.dumps(std.tolist())}
    if isinstance(model, Sequential):
        model.refresh()
        model = folding.fold_batch_norm(model) if fold_batch_norm else model
    writer = Writer(RULES)
    inputs, names = _inputs(writer, model.input_shape, input_layout), _reserved(writer, "output", model.output_shape)
    x = inputs if mean is None else (_normalized(writer, inputs[0], mean, std),)
    y = writer.layer(model, x if several(model.input_shape) else x[0], "")
    outputs = _outputs(writer, y if type(y) is tuple else (y,), names, input_layout)
    storage.write_file(path, _file(writer, inputs, outputs, metadata))  # type: ignore[arg-type]


def _inputs(w: Writer, shape: Any, layout: str) -> tuple[Value, ...]:
    shapes = shape if several(shape) else (shape,)
    names = _reserved(w, "input", shape)
    return tuple([Value(name, each, each if layout == "NCHW" and len(each) > 1 else ()) for name, each in zip(names, shapes)])


def _reserved(w: Writer, name: str, shape: Any) -> list[str]:
    """The names of the inputs or outputs, which no layer gets."""
    return [w.unique(each) for each in ([f"{name}_{i}" for i in range(len(shape))] if several(shape) else [name])]


def _normalized(w: Writer, x: Value, mean: np.ndarray, std: np.ndarray) -> Value:
    x = w.first(x)
    form = [channel_wise(np.broadcast_to(array, x.shape[-1]), x.shape) for array in (mean, std)]
    w.path = "normalize"
    x = x._replace(name=w.node("Div", w.node("Sub", x.name, w.own("mean", form[0])), w.own("std", form[1])))
    w.path = ""
    return x


def _outputs(w: Writer, values: tuple[Value, ...], names: Sequence[str], layout: str) -> list[Value]:
    """The outputs in the layout of the file, under their names: nodes whose results are nothing else get the name."""
    values = tuple([w.first(value) if layout == "NCHW" else w.last(value) for value in values])
    uses = Counter([name for node in w.nodes for name in node.input] + [value.name for value in values])
    producers = {node.output[0]: node for node in w.nodes}
    for value, name in zip(values, names):
        if value.name in producers and uses[value.name] == 1:
            producers[value.name].output[0] = name
        else:
            w.nodes.append(w.onnx.helper.make_node("Identity", [value.name], [name], name))
    return [value._replace(name=name) for value, name in zip(values, names)]


def _file(w: Writer, inputs: Sequence[Value], outputs: Sequence[Value], metadata: Mapping[str, str]) -> bytes:
    helper, tensors = w.onnx.helper, w.onnx.numpy_helper

    def declared(value: Value) -> Any:
        *sizes, channels = value.shape
        shape = [channels, *sizes] if value.moved else value.shape
        return helper.make_tensor_value_info(value.name, w.onnx.TensorProto.FLOAT, [BATCH, *shape])

    used = {name for node in w.nodes for name in node.input}
    weights = [tensors.from_array(array, name) for name, array in w.constants.items() if name in used]
    graph = helper.make_graph(w.nodes, "nbnet", list(map(declared, inputs)), list(map(declared, outputs)), weights)
    operators = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=operators, ir_version=IR_VERSION, producer_name="nbnet", producer_version=__version__)
    helper.set_model_props(proto, dict(metadata))
    try:
        return bytes(proto.SerializeToString())
    except Exception as error:  # protobuf's own, of a file above its limit
        raise OnnxError(f"the model does not fit into one ONNX file of 2 GB ({error}): expected a smaller one") from error


def _names(names: Any, shape: Shape) -> list[str]:
    if several(shape):
        raise ArgumentError(f"class_names={names!r} for a model with {len(shape)} outputs, expected one output")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names) or len(names) != shape[-1]:
        raise ArgumentError(f"class_names={names!r}: expected a list of {shape[-1]} texts, one for each output")
    return list(names)


def _normalisation(mean: Any, std: Any, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    """mean (C,) or (), std the same; 0 and 1 where one is not given."""
    if several(shape):
        raise ArgumentError("mean= and std= are for models with one input: normalise several before the model")
    arrays = []
    for name, value, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        try:
            array = np.asarray(default if value is None else value, np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        fits = array.shape in ((), shape[-1:]) and np.isfinite(array).all() and (name == "mean" or (array > 0).all())
        if not fits:
            above = " above 0" if name == "std" else ""
            raise ArgumentError(f"{name}={value!r}: expected a number{above}, or {shape[-1]} of them, one for each channel")
        arrays.append(array)
    return arrays[0], arrays[1]
