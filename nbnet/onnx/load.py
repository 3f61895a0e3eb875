"""Build a model from an ONNX file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import layers as nb
from nbnet import schema
from nbnet.errors import ArgumentError, BuildError, NbnetError, OnnxError
from nbnet.layers import Sequential
from nbnet.layers.base import Shape
from nbnet.layers.inputs import checked
from nbnet.onnx import files
from nbnet.onnx.folding_constants import Constants
from nbnet.onnx.graph import Graph, Input, Item, Join, Node
from nbnet.onnx.in_layers import RULES, grouped
from nbnet.onnx.in_windows import resampled
from nbnet.onnx.joins import in_a_row, join
from nbnet.onnx.reader import LARGEST, At, Reader, unsupported
from nbnet.runtime.arrays import several
from nbnet.runtime.backend import Backend, get_backend

LONGEST = 400  # characters of a message


def load(path: str | os.PathLike[str], *, input_shape: Any = None, backend: str | Backend = "parallel") -> Sequential:
    """A built float32 model that computes what an ONNX file does, from the layers of nbnet.

    Images and sequences are NHWC and NLC, also where the file has NCHW and NCL; so are outputs. An input that the file itself turns at
    once, as files of Keras models do, and those of nb.onnx.export(input_layout="NHWC") have the layout of the file. Branches that are
    joined by Add, Mul or Concat nest as in ResNet. Weights are float32.

    Args:
        input_shape: of one example in nbnet, such as (224, 224, 3), where the file leaves sizes open; of several inputs, a tuple.
        backend: "numpy", "serial", "parallel" or "cuda".
    Raises:
        ExtraError: onnx is not installed. OnnxError: the file is damaged, or has an operator, a type or a form that nbnet does not have:
            one line names it. ArgumentError: input_shape does not fit. BackendError: unknown backend.
    """
    be = get_backend(backend)
    proto = files.read(path)
    try:
        with np.errstate(all="ignore"):
            return _model(Graph(proto, Path(path).parent), input_shape, be)
    except ArgumentError as error:
        raise ArgumentError(_shortened(error)) from error
    except RecursionError as error:
        raise OnnxError(f"{path}: branches nest too deep") from error
    except MemoryError as error:
        raise OnnxError(f"{path} does not fit into memory") from error
    except NbnetError as error:
        raise OnnxError(f"{path}: {_shortened(error)}") from error


def _shortened(error: Exception) -> str:
    """The message on one line; names in a file may be long."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the metadata of a file says, as far as nb.onnx.export writes it: "class_names", "input_layout", "mean", "std".

    Raises:
        ExtraError: onnx is not installed. OnnxError: the file cannot be read, or an entry is damaged.
    """
    found = {entry.key: entry.value for entry in files.read(path).metadata_props}
    entries = {name: _decoded(name, found[name]) for name in ENTRIES if name in found}
    return {name: schema.fit(value, ENTRIES[name], f"{path}: the metadata {name!r}", OnnxError) for name, value in entries.items()}


NUMBERS = schema.rows(schema.number(), 1, 1 << 20)
ENTRIES: dict[str, schema.Check] = {
    "input_layout": schema.one_of(("NHWC", "NCHW")),
    "class_names": schema.rows(schema.text(), 1, 100_000),
    "mean": lambda value, where: schema.number()(value, where) if isinstance(value, float) else NUMBERS(value, where),
    "std": lambda value, where: schema.number()(value, where) if isinstance(value, float) else NUMBERS(value, where),
}


def _decoded(name: str, text: str) -> Any:
    if name == "input_layout":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _model(graph: Graph, input_shape: Any, backend: Backend) -> Sequential:
    items = graph.nested()
    starts = _starts(graph, input_shape)
    constants = Constants(graph, _output_layout(graph, starts))
    for (name, _), start in zip(graph.inputs, starts):
        constants.shapes[name] = start.shape
    reader = Reader(constants, backend, starts[0])
    _read(reader, items, starts)
    reader.end()
    layers = reader.finished() or [nb.Identity()]
    model = nb.Sequential(layers)
    began: Any = starts[0].in_nbnet if len(starts) == 1 else tuple([start.in_nbnet for start in starts])
    try:
        model.build(began, backend=backend)
    except BuildError as error:
        raise OnnxError(str(error)) from error
    return model


def _read(r: Reader, items: Sequence[Item], starts: Sequence[At]) -> None:
    """Read what follows each other."""
    at = 0
    while at < len(items):
        item = items[at]
        if isinstance(item, Input):
            r.at = starts[item.number]
            r.began, r.source = r.at.in_nbnet, item.number
            at += 1
            continue
        branches = _branches(r, item, starts) if isinstance(item, Join) else []
        r.node = node = item.node if isinstance(item, Join) else item
        with _explained(node):
            if isinstance(item, Join):
                join(r, node, branches, r.source is None and len(starts) > 1)
                count = 1
            else:
                count = _sequence(r, items[at : at + 3])
            found = in_a_row(r.steps)
            if found:
                del r.steps[-found[0] :]
                r.add(found[1])
        at += count
        r.constants.shapes[items[at - 1].outputs[0] if count > 1 else node.outputs[0]] = r.at.shape  # type: ignore[union-attr]


def _sequence(r: Reader, items: Sequence[Any]) -> int:
    """Read a node, or several that are one layer; how many."""
    ops = tuple([item.op if isinstance(item, Node) else "" for item in items])
    for pattern, rule in SEQUENCES.items():
        if ops[: len(pattern)] == pattern and rule(r, *items[: len(pattern)]):
            return len(pattern)
    if ops[0] not in RULES:
        raise OnnxError(unsupported(items[0]))
    RULES[ops[0]](r, items[0])
    return 1


SEQUENCES: dict[tuple[str, ...], Callable[..., bool]] = {
    ("Reshape", "InstanceNormalization", "Reshape"): grouped,
    ("MatMul", "MatMul"): resampled,
}


def _branches(r: Reader, item: Join, starts: Sequence[At]) -> list[Reader]:
    branches = item.branches
    if r.source is None and len(starts) > 1:
        order = [branch[0].number if branch and isinstance(branch[0], Input) else -1 for branch in branches]
        if item.node.op != "Concat":
            branches = [branch for _, branch in sorted(zip(order, branches), key=lambda pair: pair[0])]
            order = sorted(order)
        if order != list(range(len(starts))):
            what = f"node {item.node.name!r} ({item.node.op}) joins inputs of the model"
            raise OnnxError(f"{what}, expected all {len(starts)}, each once and in order")
    readers = [r.branch() for _ in branches]
    for reader, branch in zip(readers, branches):
        _read(reader, branch, starts)
    return readers


@contextmanager
def _explained(node: Node) -> Iterator[None]:
    """Errors with the node that they are about."""
    try:
        yield
    except NbnetError as error:
        text = str(error)
        raise OnnxError(text if text.startswith("node ") else f"node {node.name!r} ({node.op}): {text}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of arguments that no exporter writes
        raise OnnxError(f"node {node.name!r} ({node.op}): its attributes or constants do not fit: {error}") from error


# ---------------------------------------------------------------------------------------------------------- inputs


def _starts(graph: Graph, input_shape: Any) -> list[At]:
    """Where the inputs are: in NHWC where the file says so, or turns them at once."""
    given: Any = None
    if input_shape is not None:
        given = checked(input_shape)
        given = given if several(given) else (given,)
        if len(given) != len(graph.inputs):
            raise ArgumentError(f"input_shape={input_shape!r} is of {len(given)} inputs, the file has {len(graph.inputs)}")
    return [_start(graph, name, sizes, given[i] if given else None) for i, (name, sizes) in enumerate(graph.inputs)]


def _start(graph: Graph, name: str, sizes: Sequence[int | None], given: Shape | None) -> At:
    rank = len(sizes) - 1
    last = rank == 1 or _has_channels_last(graph, name, rank)
    wanted = None if given is None else given if last else (given[-1], *given[:-1])
    if wanted is not None and (len(wanted) != rank or any(n not in (None, want) for n, want in zip(sizes[1:], wanted))):
        raise ArgumentError(f"input_shape={given} does not fit the input {name!r} of shape {_text(sizes)}")
    shape = sizes[1:] if wanted is None else wanted
    if any(n is None for n in shape):
        example = "(height, width, channels)" if rank == 3 else "the sizes of one example"
        raise ArgumentError(f"the input {name!r} has shape {_text(sizes)}, of open sizes: write load(path, input_shape={example})")
    known: Shape = tuple([n or 0 for n in shape])
    if min(known) < 1 or math.prod(known) > LARGEST:
        raise OnnxError(f"the input {name!r} has shape {_text(sizes)}, expected positive sizes, at most {LARGEST:,} numbers")
    return At(known, () if last else known)


def _has_channels_last(graph: Graph, name: str, rank: int) -> bool:
    if graph.of_nbnet and "input_layout" in graph.metadata:
        return graph.metadata["input_layout"] == "NHWC"
    users = [node for node in graph.order if name in node.data]
    return bool(users) and all(node.op == "Transpose" and node.attributes.get("perm") == [0, rank, *range(1, rank)] for node in users)


def _output_layout(graph: Graph, starts: Sequence[At]) -> str:
    """ "NHWC" where the file has the channels last, "NCHW" where first, "" where only nodes tell, as in files of PyTorch."""
    if graph.of_nbnet and "input_layout" in graph.metadata:
        return graph.metadata["input_layout"]
    return "" if any(start.moved for start in starts) else "NHWC"


def _text(sizes: Sequence[int | None]) -> str:
    return f"(N, {', '.join('?' if n is None else str(n) for n in sizes[1:])})"
