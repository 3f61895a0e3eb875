"""Activations as layers; and operators that are part of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbnet import layers as nb
from nbnet.errors import OnnxError
from nbnet.layers import Layer
from nbnet.onnx.graph import Node
from nbnet.onnx.reader import Function, Reader, Rule, Rules, for_last_axis, short


def _plain(make: Callable[[], Layer]) -> Rule:
    return lambda r, node: _add(r, make())


def _add(r: Reader, layer: Layer) -> None:
    r.add(layer)


def _alpha(make: Callable[[float], Layer], default: float) -> Rule:
    return lambda r, node: _add(r, make(short(node.float("alpha", default))))


def _fixed(make: Callable[[], Layer], **wanted: tuple[float, float]) -> Rule:
    """An activation whose numbers nbnet fixes; wanted: {attribute: (the number, default of ONNX)}."""

    def rule(r: Reader, node: Node) -> None:
        for name, (number, default) in wanted.items():
            if abs(node.float(name, default) - number) > 1e-5:
                raise OnnxError(f"{name} is {node.float(name, default):g}: nbnet's {type(make()).__name__} has {number:g}")
        r.add(make())

    return rule


def _clip(r: Reader, node: Node) -> None:
    bounds: list[Any] = []
    for i, name in ((1, "min"), (2, "max")):
        given = r.constant(node, i)
        value = node.attributes.get(name) if given is None else given.reshape(-1)[0]
        bounds.append(None if value is None or abs(float(value)) > 1e30 else short(float(value)))
    low, high = bounds
    if low == 0 and high in (None, 6):
        r.add(nb.ReLU() if high is None else nb.ReLU6())
    elif low is None or high is None or not low < high:
        raise OnnxError(f"bounds {low} and {high}, expected two, or 0 alone")
    else:
        r.add(nb.Hardtanh(low, high))


def _prelu(r: Reader, node: Node) -> None:
    slopes = for_last_axis(r, r.weight(node, 1))
    r.add(nb.PReLU(per_channel=slopes.ndim > 0), weight=slopes.reshape(-1))


def _softmax(make: Callable[[], Layer]) -> Rule:
    def rule(r: Reader, node: Node) -> None:
        if len(r.at.shape) != 1 or node.int("axis", -1 if r.opset >= 13 else 1) not in (1, -1):
            raise OnnxError(f"over axis {node.int('axis', -1)} of an array of shape {r.at.shape}, expected flat features")
        r.same()
        r.add(make())

    return rule


def _function(r: Reader, node: Node) -> None:
    r.steps.append(Function(node.op, node))


def _greater(r: Reader, node: Node) -> None:
    value = r.weight(node, 1)
    if node.inputs[0] not in node.data or value.size != 1:
        raise OnnxError("nbnet compares no arrays")
    r.steps.append(Function(f"above {float(value.reshape(-1)[0])}", node))


RULES: Rules = {
    "Relu": _plain(nb.ReLU),
    "Tanh": _plain(nb.Tanh),
    "Sigmoid": _plain(nb.Sigmoid),
    "Softplus": _plain(nb.Softplus),
    "Softsign": _plain(nb.Softsign),
    "Mish": _plain(nb.Mish),
    "HardSwish": _plain(nb.Hardswish),
    "HardSigmoid": _fixed(nb.Hardsigmoid, alpha=(1 / 6, 0.2), beta=(0.5, 0.5)),
    "Selu": _fixed(nb.SELU, alpha=(1.6732632, 1.6732632), gamma=(1.0507010, 1.0507010)),
    "Swish": _fixed(nb.SiLU, alpha=(1.0, 1.0)),
    "Gelu": lambda r, node: _add(r, nb.GELU(node.text("approximate", "none"))),
    "LeakyRelu": _alpha(lambda slope: nb.LeakyReLU(slope) if slope else nb.ReLU(), 0.01),
    "Elu": _alpha(nb.ELU, 1.0),
    "Celu": _alpha(nb.CELU, 1.0),
    "PRelu": _prelu,
    "Clip": _clip,
    "Softmax": _softmax(nb.Softmax),
    "LogSoftmax": _softmax(nb.LogSoftmax),
    **dict.fromkeys(("Erf", "Sqrt", "Log"), _function),
    "Greater": _greater,
}
