"""Nodes that join branches, as containers; and the patterns of nodes that are one layer in nbnet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet import layers as nb
from nbnet.errors import OnnxError
from nbnet.layers import Layer
from nbnet.onnx.graph import Node
from nbnet.onnx.reader import Affine, At, Function, Reader, Step, unsupported

SQRT_HALF, SQRT_2_PI = 0.5**0.5, (2 / np.pi) ** 0.5


def join(r: Reader, node: Node, branches: list[Reader], of_inputs: bool) -> None:
    """Read a node whose inputs are what the branches give.

    Args:
        of_inputs: whether the branches begin at the inputs of the model, one each.
    """
    if not of_inputs and pattern(r, node, branches):
        return
    if node.op not in JOINS:
        raise OnnxError(f"{unsupported(node)} of two arrays")
    JOINS[node.op](r, node, branches)


# ------------------------------------------------------------------------------------------------------- patterns


def pattern(r: Reader, node: Node, branches: list[Reader]) -> bool:
    """Read the join as a layer, or as a part of one, if it is one."""
    parts = [branch.steps for branch in branches]
    if node.op not in PATTERNS:
        return False
    orders = [parts, parts[::-1]] if node.op in ("Add", "Mul") else [parts]
    found = next(filter(None, (PATTERNS[node.op](*order) for order in orders if len(order) == ARITY.get(node.op, 2))), None)
    for step in found or ():
        _append(r, step, node)
    return found is not None


def _append(r: Reader, step: Any, node: Node) -> None:
    if isinstance(step, Affine):
        r.affine(*step)
    elif isinstance(step, Layer):
        if isinstance(step, nb.RMSNorm):  # of the last axes of the file
            r.same()
        r.add(step)
    else:
        r.steps.append(Function(step, node))


def _of_products(a: list[Step], b: list[Step]) -> list[Any] | None:
    """x * f(x): SiLU, Hardswish, Mish, GELU; x * x, and x * x * x."""
    if not a and not b:
        return ["square"]
    if not a and _are(b, "square"):
        return ["cube"]
    simple: dict[tuple[type, ...], Callable[[], Layer]] = {
        (nb.Sigmoid,): nb.SiLU,
        (nb.Hardsigmoid,): nb.Hardswish,
        (nb.Softplus, nb.Tanh): nb.Mish,
    }
    kinds = tuple(map(type, b))
    if not a and kinds in simple and all(type(step) is not nb.Softplus or step.beta == 1 for step in b):
        return [simple[kinds]()]
    if not a and kinds == (Affine, nb.ReLU6) and b[0].is_close(1, 3):  # type: ignore[union-attr]
        return [nb.Hardswish(), Affine(6.0, 0.0)]
    if len(a) > 1 or not all(isinstance(step, Affine) and np.ndim(step.factor) == 0 and step.offset == 0 for step in a):
        return None
    half = float(a[0].factor) if isinstance(a[0] if a else None, Affine) else 1.0  # type: ignore[union-attr]
    return _gelu(b, half)


def _gelu(b: list[Step], factor: float) -> list[Any] | None:
    """x * (k + k * erf(x / sqrt(2))), and the approximation by tanh, times the factor."""
    if not b or not isinstance(b[-1], Affine) or np.ndim(b[-1].factor):
        return None
    k = float(b[-1].factor)
    if not b[-1].is_close(k, k) or k == 0:
        return None
    if len(b) == 3 and isinstance(b[0], Affine) and b[0].scales_by(SQRT_HALF) and _are(b[1:2], "Erf"):
        return [nb.GELU(), Affine(2 * k * factor, 0.0)]
    if len(b) == 4 and _are(b[:1], "cubic") and isinstance(b[1], Affine) and b[1].scales_by(SQRT_2_PI) and isinstance(b[2], nb.Tanh):
        return [nb.GELU("tanh"), Affine(2 * k * factor, 0.0)]
    return None


def _of_sums(a: list[Step], b: list[Step]) -> list[Any] | None:
    """x + 0.044715 x^3, which is part of GELU."""
    if not a and len(b) == 2 and _are(b[:1], "cube") and isinstance(b[1], Affine) and b[1].scales_by(0.044715):
        return ["cubic"]
    return None


def _of_quotients(a: list[Step], b: list[Step]) -> list[Any] | None:
    """x / sqrt(mean of x^2 + eps), as RMSNorm is written."""
    if a or len(b) != 4 or not _are(b[:1], "square") or not _are(b[3:], "Sqrt"):
        return None
    mean, eps = b[1:3]
    if not isinstance(mean, Function) or not mean.op.startswith("mean") or not isinstance(eps, Affine) or not np.all(eps.factor == 1):
        return None
    count, number = int(mean.op.split()[1]), float(str(np.float32(eps.offset))) if np.ndim(eps.offset) == 0 else 0
    return [nb.RMSNorm(number, scale=False, axes=-1 if count == 1 else tuple(range(-count, 0)))] if number > 0 else None


def _of_differences(a: list[Step], b: list[Step]) -> list[Any] | None:
    """x - its mean, the beginning of a layer norm."""
    return [f"centred {b[0].op.split()[1]}"] if not a and len(b) == 1 and _is_mean(b[0]) else None  # type: ignore[union-attr]


def _is_mean(step: Step) -> bool:
    return isinstance(step, Function) and step.op.startswith("mean")


def _of_choices(condition: list[Step], a: list[Step], b: list[Step]) -> list[Any] | None:
    """x where beta * x > threshold, else softplus."""
    if a or not condition or not isinstance(condition[-1], Function) or not condition[-1].op.startswith("above"):
        return None
    scale = [step for step in condition[:-1] if isinstance(step, Affine)]
    beta = float(scale[0].factor) if scale and np.ndim(scale[0].factor) == 0 else 1.0
    fits = len(condition) == len(scale) + 1 <= 2 and all(step.scales_by(beta) for step in scale)
    if not fits or len(b) != 1 or not isinstance(b[0], nb.Softplus) or abs(b[0].beta / beta - 1) > 1e-6:
        return None
    return [nb.Softplus(b[0].beta, float(condition[-1].op.split()[1]))]


def _are(steps: Sequence[Step], *ops: str) -> bool:
    return tuple(step.op if isinstance(step, Function) else None for step in steps) == ops


PATTERNS: dict[str, Callable[..., list[Any] | None]] = {
    "Mul": _of_products,
    "Add": _of_sums,
    "Div": _of_quotients,
    "Sub": _of_differences,
    "Where": _of_choices,
}
ARITY = {"Where": 3}


def in_a_row(steps: list[Step]) -> tuple[int, Layer] | None:
    """The layer that the last steps are, and how many they are."""
    found = _of_two(steps[-2], steps[-1]) if len(steps) > 1 else None
    if found is not None:
        return 2, found
    found = _of_three(*steps[-3:]) if len(steps) > 2 else None
    return None if found is None else (3, found)


def _of_two(before: Step, after: Step) -> Layer | None:
    """LogSigmoid, LogSoftmax, LayerNorm without gamma and beta."""
    if _are([after], "Log"):
        return nb.LogSigmoid() if isinstance(before, nb.Sigmoid) else nb.LogSoftmax() if isinstance(before, nb.Softmax) else None
    if isinstance(before, Function) and before.op.startswith("centred") and isinstance(after, nb.RMSNorm) and not after.scale:
        axes = (after.axes,) if isinstance(after.axes, int) else after.axes
        return nb.LayerNorm(after.eps, False, False, axes=after.axes) if before.op == f"centred {len(axes)}" else None
    return None


def _of_three(before: Step, middle: Step, after: Step) -> Layer | None:
    """Hardsigmoid, Softplus with beta, LogSigmoid."""
    if not isinstance(before, Affine) or not isinstance(after, Affine):
        return None
    if isinstance(middle, nb.ReLU6) and before.is_close(1, 3) and after.scales_by(1 / 6):
        return nb.Hardsigmoid()
    if isinstance(middle, nb.Softplus) and np.ndim(before.factor) == 0 and middle.beta == 1:
        beta = float(before.factor)
        if beta == -1 and before.scales_by(-1) and after.scales_by(-1):
            return nb.LogSigmoid()
        if beta > 0 and before.scales_by(beta) and after.scales_by(1 / beta):
            return nb.Softplus(float(str(np.float32(beta))))
    return None


# ---------------------------------------------------------------------------------------------------------- joins


def _inner(branches: list[Reader]) -> list[list[Layer]]:
    return [branch.finished() for branch in branches]


def _add(r: Reader, node: Node, branches: list[Reader]) -> None:
    _in_one_order(branches)
    if len({branch.at.shape for branch in branches}) > 1:
        raise OnnxError(f"it adds arrays of shapes {', '.join(str(branch.at.shape) for branch in branches)}, expected equal ones")
    inner = _inner(branches)
    body = [layers for layers in inner if layers]
    _close(r, branches, nb.Residual(body[0]) if len(inner) == 2 and len(body) == 1 else nb.Add(inner), branches[0].at)


def _multiply(r: Reader, node: Node, branches: list[Reader]) -> None:
    """Of equal shapes, or with a gate (C, 1, 1)."""
    expanded = [branch for branch in branches if _are(branch.steps[-1:], "Expand")]
    for branch in expanded if len(expanded) < len(branches) else ():
        branch.steps.pop()
        gate = (branch.at.shape[0], *[1] * (len(branch.at.shape) - 1))
        branch.at = At(gate, gate)
    full = max((branch.at for branch in branches), key=lambda at: int(np.prod(at.shape)))
    for branch in branches:
        gate = (full.shape[0], *[1] * (len(full.shape) - 1))
        if branch.at.shape not in (full.shape, gate):
            raise OnnxError(f"it multiplies arrays of shapes {full.shape} and {branch.at.shape}, expected equal ones, or {gate}")
    if any(branch.at.shape != full.shape for branch in branches):
        for branch in branches:
            branch.last()
    else:
        _in_one_order(branches)
    full = max((branch.at for branch in branches), key=lambda at: int(np.prod(at.shape)))
    _close(r, branches, nb.Multiply(_inner(branches)), full)


def _concat(r: Reader, node: Node, branches: list[Reader]) -> None:
    rank = len(branches[0].at.shape)
    axis = node.int("axis", 1)
    axis = axis + rank + 1 if axis < 0 else axis
    if any(len(branch.at.shape) != rank for branch in branches) or axis not in (1, rank):
        raise OnnxError(f"along axis {axis} of arrays with {rank + 1} axes, expected the channels")
    for branch in branches:
        branch.last() if axis == 1 and rank > 1 else branch.same()
    parts = [branch.at.shape for branch in branches]
    if len({shape[: axis - 1] + shape[axis:] for shape in parts}) > 1:
        raise OnnxError(f"it joins arrays of shapes {', '.join(map(str, parts))}, expected the same sizes but of the channels")
    shape = (*parts[0][: axis - 1], sum(shape[axis - 1] for shape in parts), *parts[0][axis:])
    _close(r, branches, nb.Concat(_inner(branches)), At(shape, shape if branches[0].at.moved else ()))


def _parallel(r: Reader, node: Node, branches: list[Reader]) -> None:
    for branch in branches:
        branch.end()
    _close(r, branches, nb.Parallel(_inner(branches)), At(()))


def _in_one_order(branches: list[Reader]) -> None:
    if len({branch.at.moved for branch in branches}) > 1:
        for branch in branches:
            branch.same()


def _close(r: Reader, branches: list[Reader], layer: Layer, at: At) -> None:
    began: Any = branches[0].began if len({branch.source for branch in branches}) == 1 else tuple(branch.began for branch in branches)
    layer.build(began, backend=r.backend)
    r.steps.append(layer)
    r.at = at


JOINS: dict[str, Callable[[Reader, Node, list[Reader]], None]] = {
    "Add": _add,
    "Sum": _add,
    "Mul": _multiply,
    "Concat": _concat,
    "Outputs": _parallel,
}
