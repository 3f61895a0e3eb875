"""Products, norms, activations and shapes, as layers."""

from __future__ import annotations

import math

import numpy as np

from nbnet import layers as nb
from nbnet.errors import OnnxError
from nbnet.layers import Layer
from nbnet.onnx import in_activations, in_windows
from nbnet.onnx.folding_constants import BATCH
from nbnet.onnx.graph import Node
from nbnet.onnx.reader import LARGEST, At, Function, Reader, Rules, for_last_axis, in_nbnet, short

# ------------------------------------------------------------------------------------------------------ products


def _gemm(r: Reader, node: Node) -> None:
    weight = r.weight(node, 1, (None, None))
    weight = weight.T if node.int("transB", 0) else weight
    if node.int("transA", 0):
        raise OnnxError("transA is set: the batch would be the features")
    weight = weight * np.float32(node.float("alpha", 1.0))
    bias = r.constant(node, 2)
    if bias is not None:
        bias = r.weight(node, 2) * np.float32(node.float("beta", 1.0))
    _dense(r, weight, bias)


def _matmul(r: Reader, node: Node) -> None:
    if node.inputs[0] not in node.data:
        raise OnnxError("a matrix on the left of the data, expected on the right, as in a dense layer")
    _dense(r, r.weight(node, 1, (None, None)), None)


def _dense(r: Reader, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """A dense layer; of images and sequences with the channels last, a convolution with kernels of one pixel."""
    rows, units = weight.shape
    rank = len(r.at.shape)
    if rank > 3:
        raise OnnxError(f"a product with an array of {rank + 1} axes, expected 2 to 4")
    if rank > 1:
        r.same()
    if r.at.shape[-1] != rows:
        raise OnnxError(f"weights of shape {weight.shape} for an array of shape {r.at.shape}: they do not fit")
    if bias is not None and bias.shape not in ((), (1,), (1, 1), (units,), (1, units)):
        raise OnnxError(f"a bias of shape {bias.shape}, expected ({units},)")
    arrays = {} if bias is None else {"bias": np.broadcast_to(bias.reshape(-1), (units,))}
    if rank > 1:
        form = [1] * (rank - 1)
        layer: Layer = (nb.Conv1D, nb.Conv2D)[rank - 2](units, 1, use_bias=bias is not None)
        r.add(layer, weight=weight.reshape(*form, rows, units), **arrays)
        return
    if r.at.moved:
        weight = np.moveaxis(weight.reshape(*r.at.moved, units), 0, -2).reshape(rows, units)
    r.at = At(r.at.shape)
    r.add(nb.Dense(units, use_bias=bias is not None), weight=weight, **arrays)


# --------------------------------------------------------------------------------------- arithmetic with constants


def with_constant(r: Reader, node: Node) -> None:
    """x + c, x - c, c - x, x * c, x / c, x ^ c."""
    index = 1 if node.inputs[0] in node.data else 0
    value = r.weight(node, index)
    if node.op == "Pow":
        power = {2.0: "square", 3.0: "cube", 0.5: "Sqrt"}.get(float(value.reshape(-1)[0])) if index == 1 and value.size == 1 else None
        if power is None:
            raise OnnxError("nbnet has no power of this exponent")
        r.steps.append(Function(power, node))
        return
    last = r.steps[-1] if r.steps else None
    if node.op == "Mul" and isinstance(last, nb.RMSNorm) and not last.scale and value.ndim > 1 and value.shape == r.at.shape[-value.ndim :]:
        r.steps.pop()
        r.add(nb.RMSNorm(last.eps, axes=last.axes), gamma=value)
        return
    c = for_last_axis(r, value).astype(np.float64)
    if node.op == "Add":
        r.affine(1, c)
    elif node.op == "Mul":
        r.affine(c, 0)
    elif node.op == "Sub":
        r.affine(*((1, -c) if index == 1 else (-1, c)))
    elif index == 1 and c.all():
        r.affine(1 / c, 0)
    else:
        raise OnnxError("it divides by the data, or by 0: nbnet has no division")


# ------------------------------------------------------------------------------------------------------------ norms


def _batch_norm(r: Reader, node: Node) -> None:
    if node.int("training_mode", 0):
        raise OnnxError("training_mode is set, expected a model for evaluation")
    r.last()
    gamma, beta, mean, var = (in_nbnet(r.at, r.weight(node, i, (r.at.shape[0],))) for i in (1, 2, 3, 4))
    eps = node.float("epsilon", 1e-5)
    if (var < 0).any() or eps < 0:
        raise OnnxError("a variance or epsilon is below 0")
    decay = short(node.float("momentum", 0.9))
    decay = decay if 0 < decay < 1 else 0.9
    if eps:
        r.add(nb.BatchNorm(decay, eps=short(eps)), gamma=gamma, beta=beta, moving_mean=mean, moving_var=var)
    else:  # nbnet adds none to a deviation
        r.add(nb.BatchNorm(decay, track="deviation"), gamma=gamma, beta=beta, moving_mean=mean, moving_std=np.sqrt(var))


def _instance_norm(r: Reader, node: Node) -> None:
    r.channels(node, (1, 2, 3))
    gamma, beta = (r.weight(node, i, (r.at.shape[0],)) for i in (1, 2))
    r.add(nb.InstanceNorm(eps=short(node.float("epsilon", 1e-5))), gamma=gamma, beta=beta)


def _group_norm(r: Reader, node: Node) -> None:
    groups, eps = node.int("num_groups"), short(node.float("epsilon", 1e-5))
    r.same() if len(r.at.shape) == 1 else r.last()
    channels = r.at.shape[0]
    if groups is None or groups < 1 or channels % groups:
        raise OnnxError(f"num_groups is {groups}, expected a divisor of {channels} channels")
    size = channels if r.opset >= 21 else groups
    gamma, beta = (np.repeat(r.weight(node, i, (size,)), channels // size) for i in (1, 2))
    r.add(nb.GroupNorm(groups, eps=eps), gamma=gamma, beta=beta)


def grouped(r: Reader, first: Node, norm: Node, second: Node) -> bool:
    """Read Reshape, InstanceNormalization, Reshape as a GroupNorm, as PyTorch writes it; whether they are one."""
    shape, channels = r.at.shape, r.at.shape[0]
    ones, zeros = (r.weight(norm, i, (None,)) for i in (1, 2))
    target = target_shape(r, first, shape)
    fits = len(shape) and target == (len(ones), math.prod(shape) // len(ones)) and channels % len(ones) == 0
    if not fits or (ones != 1).any() or zeros.any() or len(zeros) != len(ones) or target_shape(r, second, target) != shape:
        return False
    r.same() if len(shape) == 1 else r.last()
    r.add(nb.GroupNorm(len(ones), short(norm.float("epsilon", 1e-5)), center=False, scale=False))
    return True


def _layer_norm(r: Reader, node: Node) -> None:
    r.same()
    shape, rank = r.at.shape, len(r.at.shape) + 1
    axis = node.int("axis", -1)
    axis = axis + rank if axis < 0 else axis
    if not 1 <= axis < rank:
        raise OnnxError(f"axis {node.int('axis', -1)} of an array with {rank} axes, expected one after the batch's")
    sizes = shape[axis - 1 :]
    gamma = r.weight(node, 1, sizes)
    beta = None if r.constant(node, 2) is None else r.weight(node, 2, sizes)
    axes = -1 if len(sizes) == 1 else tuple(range(-len(sizes), 0))
    arrays = {"gamma": gamma} if beta is None else {"gamma": gamma, "beta": beta}
    r.add(nb.LayerNorm(short(node.float("epsilon", 1e-5)), beta is not None, axes=axes), **arrays)


def _reduce(r: Reader, node: Node) -> None:
    """The mean or the maximum over the image; another mean may be part of an RMSNorm."""
    axes, rank = r.ints(node, 1, "axes"), len(r.at.shape) + 1
    axes = [] if axes is None else sorted(axis + rank if axis < 0 else axis for axis in axes)
    keep, mean = bool(node.int("keepdims", 1)), node.op == "ReduceMean"
    is_of_norm = mean and keep and axes and axes == list(range(axes[0], rank))
    if is_of_norm and r.steps and isinstance(r.steps[-1], Function):
        r.steps.append(Function(f"mean {len(axes)}", node))
    elif rank > 2 and axes == list(range(2, rank)):
        in_windows.pool_all(r, node, mean, keep)
    elif rank > 2 and axes == list(range(1, rank - 1)) and not keep:  # of channels last
        r.same()
        r.at = At((r.at.shape[-1], *r.at.shape[:-1]), (r.at.shape[-1], *r.at.shape[:-1]))
        in_windows.pool_all(r, node, mean, False)
    elif is_of_norm:
        r.steps.append(Function(f"mean {len(axes)}", node))
    else:
        raise OnnxError(f"over the axes {axes} of {rank}: nbnet has pooling over whole images")


# ------------------------------------------------------------------------------------------------------------ shapes


def target_shape(r: Reader, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one example after a Reshape."""
    wanted = r.ints(node, 1, "shape")
    if not wanted or (node.int("allowzero", 0) and 0 in wanted):
        raise OnnxError(f"to {wanted}: expected a shape without allowzero")
    whole = (BATCH, *shape)
    sizes = [whole[i] if n == 0 and i < len(whole) else n for i, n in enumerate(wanted)]
    batch, rest = sizes[0], sizes[1:]
    size = math.prod(shape)
    if -1 in rest and batch != -1:
        known = math.prod(n for n in rest if n != -1)
        rest = [size // known if n == -1 and known > 0 else n for n in rest]
    if not rest or batch not in (BATCH, -1, r.rows) or min(rest) < 1 or math.prod(rest) != size:
        shown = [str(n).replace(str(BATCH), "N") for n in wanted]
        raise OnnxError(f"from (N, {', '.join(map(str, shape))}) to ({', '.join(shown)}): expected each example in another shape")
    return tuple(rest)


def _reshape(r: Reader, node: Node) -> None:
    r.reshape(target_shape(r, node, r.at.shape))


def _flatten(r: Reader, node: Node) -> None:
    axis = node.int("axis", 1)
    if axis not in (1, -len(r.at.shape)):
        raise OnnxError(f"axis {axis}, expected 1: each example as a row")
    r.reshape((math.prod(r.at.shape),))


def _squeeze(r: Reader, node: Node) -> None:
    axes, rank = r.ints(node, 1, "axes"), len(r.at.shape) + 1
    if axes is None and r.rows == 1:
        raise OnnxError("it removes all axes of size 1, also that of the batch, which the file fixes at 1: expected axes")
    removed = {axis % rank for axis in axes} if axes is not None else {i + 1 for i, n in enumerate(r.at.shape) if n == 1}
    shape = tuple(n for i, n in enumerate(r.at.shape) if i + 1 not in removed)
    if 0 in removed or not shape or math.prod(shape) != math.prod(r.at.shape):
        raise OnnxError(f"axes {axes} of an array of shape (N, {', '.join(map(str, r.at.shape))}), expected axes of size 1")
    r.reshape(shape)


def _unsqueeze(r: Reader, node: Node) -> None:
    axes = r.ints(node, 1, "axes") or []
    rank = len(r.at.shape) + 1 + len(axes)
    places = sorted(axis % rank for axis in axes)
    if 0 in places or len(set(places)) != len(places) or rank > 8:
        raise OnnxError(f"axes {axes}, expected each once, and not before the batch")
    sizes = iter(r.at.shape)
    r.reshape(tuple([1 if i in places else next(sizes) for i in range(1, rank)]))


def _expand(r: Reader, node: Node) -> None:
    """A gate (C, 1, 1), repeated over an image that it is then multiplied with: Multiply repeats it itself."""
    shape, wanted = r.at.shape, r.ints(node, 1, "shape") or []
    sizes = [*[1] * (len(shape) + 1 - len(wanted)), *wanted][1:]
    full = tuple([max(pair) for pair in zip(sizes, shape)])
    if full == shape and len(sizes) == len(shape):
        return
    fits = len(sizes) == len(shape) and all(n in (1, want) for n, want in zip((*shape, *sizes), full * 2))
    if not fits or math.prod(full) > LARGEST or shape != (full[0], *[1] * (len(full) - 1)):
        raise OnnxError(f"from {shape} to {tuple(sizes)}, expected a gate (C, 1, 1) that is repeated over an image")
    r.last()
    r.steps.append(Function("Expand", node))
    r.at = At(full, full)


def _transpose(r: Reader, node: Node) -> None:
    """Between channels first and last, nbnet's numbers stay where they are."""
    rank = len(r.at.shape)
    perm = node.ints("perm", list(range(rank, -1, -1)))
    if sorted(perm) != list(range(rank + 1)) or perm[0] != 0:
        raise OnnxError(f"perm {perm}, expected each axis once, the batch first")
    order = [axis - 1 for axis in perm[1:]]
    shape = tuple(r.at.shape[axis] for axis in order)
    if order == list(range(rank)):
        return
    if not r.at.moved and order == [rank - 1, *range(rank - 1)]:
        r.at = At(shape, shape)
    elif r.at.moved and order == [*range(1, rank), 0]:
        r.at = At(shape)
    else:
        r.same()
        r.add(nb.Permute([axis + 1 for axis in order]))
        r.at = At(shape)


def _same(r: Reader, node: Node) -> None:
    training = r.constant(node, 2) if node.op == "Dropout" else None
    if training is not None and training.any():
        raise OnnxError("training_mode is set, expected a model for evaluation")


def _cast(r: Reader, node: Node) -> None:
    if node.int("to") != 1:
        raise OnnxError("to another type, expected float32")


RULES: Rules = {
    **in_windows.RULES,
    **in_activations.RULES,
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), with_constant),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "Neg": lambda r, node: r.affine(-1, 0),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Expand": _expand,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
}
