"""The slices of a batch side by side: each has a twin of the model, and all twins run one step before any runs the next.

A twin has the same layers with the same parameter values, and gradients and tapes of its own. Steps whose rows depend on each other run
on each slice by itself (nbnet.distributed.walk). A synchronised batch norm sees all slices. Dropout masks are those of the rows in the
whole batch. What other layers keep in buffers is the mean over slices after each step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.distributed.buckets import Flat, Reduction
from nbnet.distributed.norm import Sync
from nbnet.distributed.slicing import Slicing, tree
from nbnet.distributed.walk import Walk
from nbnet.layers import BatchNorm, Dropout, Layer, Sequential
from nbnet.layers.containers import Container
from nbnet.layers.parameters import Param
from nbnet.runtime.arrays import each
from nbnet.runtime.stage import Stage


class Lockstep(Stage):
    """Stands for a model in a pass over a batch: x, predictions and gradients are those of the rows that this rank has.

    Attributes:
        rows: of the whole batch, in this pass; those of the slicing when forward began.
    """

    replayable = True

    def __init__(self, model: Sequential, slicing: Slicing) -> None:
        self.slicing, self.rows = slicing, 0
        self.backend, self.dtype, self.name = model.backend, model.dtype, model.name
        params = list(dict.fromkeys(model.params.values()))
        self.flat = Flat(params, len(slicing.own), model.backend, model.dtype)
        self.buckets = self.flat.cut(model.steps)
        self.twins = [_twin(model, self.flat, number) for number in range(len(slicing.own))]
        self.averaged = _averaged(model, self.twins)

    def inner(self) -> Sequence[Stage]:
        return self.twins

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        """The predictions, and the tape."""
        self.rows = self.slicing.rows
        be, slicing, rows = self.backend, self.slicing, self.rows
        sync, lead = Sync(slicing, rows, be), self.twins[0]
        reduction = Reduction(slicing, self.flat, self.buckets, sync.active, rows)
        for number in sync.active:
            _place_dropout(self.twins[number], slicing.bounds(slicing.own[number], rows)[0], number == sync.active[-1])
        if not sync.active:
            _place_dropout(lead, 0, True)
        for buffer, parts in self.averaged:
            for part in parts:
                be.run(np.copyto, part, buffer)
        ys, back = Walk(sync, reduction).run(self.twins, sync.blocks.of(x))
        if ys:
            y = sync.blocks.whole(ys)
        else:
            y = each(lambda shape: be.empty((0, *shape), self.dtype), lead.output_shape)
        return y, (sync.blocks, back, reduction)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        """Write the gradients of all slices and ranks into the parameters of the model."""
        blocks, back, reduction = saved
        if isinstance(saved, list):
            saved.clear()
        back(blocks.of(dy), False)
        reduction.finish(self.backend)

    def apply_updates(self) -> None:
        """Make deferred updates, and average the buffers that each slice has of its own."""
        for twin in self.twins:
            twin.apply_updates()
        if self.averaged:
            self.backend.run(self._average)

    def _average(self) -> None:
        active = [number for number, cut in enumerate(self.slicing.cuts(self.rows)) if cut is not None]

        def packed(number: int) -> np.ndarray:
            parts = [np.asarray(parts[number], np.float64).ravel() for _, parts in self.averaged]
            return np.concatenate([np.ones(1), *parts])

        own: list[np.ndarray | None] = [packed(number) if number in active else None for number in range(len(self.twins))]
        size = 1 + sum(buffer.size for buffer, _ in self.averaged)
        total = self.slicing.add_ranks(tree(own, np.add), size)
        at = 1
        for buffer, _ in self.averaged:
            mean = total[at : at + buffer.size].reshape(buffer.shape) / total[0]
            buffer[...] = np.rint(mean) if buffer.dtype.kind in "iu" else mean
            at += buffer.size


# --------------------------------------------------------------------------------------------------------- twins


def _twin(model: Any, flat: Flat, number: int) -> Any:
    """A model that shares all but gradients, and the buffers that are averaged."""
    params: dict[Param, Param] = {}
    copies: dict[int, Any] = {}

    def param_of(param: Param) -> Param:
        if param not in params:
            params[param] = twin = Param.__new__(Param)
            twin.value, twin.grad, twin.trainable = param.value, flat.view(number, param), param.trainable
            twin.regularizer, twin.layout, twin.index = param.regularizer, None, 0
        return params[param]

    def copied(thing: Any) -> Any:
        if isinstance(thing, list):
            return [copied(part) for part in thing]
        if not isinstance(thing, Stage):
            return thing
        if id(thing) not in copies:
            twin: Any = copy.copy(thing)
            copies[id(thing)] = twin
            vars(twin).update({name: copied(value) for name, value in vars(thing).items()})
            if isinstance(thing, Layer) and not isinstance(thing, Container):
                vars(twin)["_params"] = {name: param_of(param) for name, param in thing.params.items()}
                if _has_own_buffers(thing):
                    vars(twin)["_buffers"] = {name: array.copy() for name, array in thing.buffers.items()}
            elif isinstance(thing, Container):
                twin._gather()
        return copies[id(thing)]

    return copied(model)


def _has_own_buffers(layer: Layer) -> bool:
    """Whether each slice changes its buffers by itself."""
    return not isinstance(layer, Dropout) and not (isinstance(layer, BatchNorm) and layer.sync)


def _averaged(model: Any, twins: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """The buffers of the model that each slice changes by itself, with those of the twins."""
    found = []
    for layer, *copies in zip(model.walk(), *(twin.walk() for twin in twins)):
        if not isinstance(layer, Container) and _has_own_buffers(layer):
            found += [(array, [twin.buffers[name] for twin in copies]) for name, array in layer.buffers.items()]
    return found


def _place_dropout(twin: Layer, row: int, last: bool) -> None:
    """Let the masks of a twin be those of the batch from this row on. last: it counts the pass."""
    for layer in twin.walk():
        if isinstance(layer, Dropout):
            original = vars(layer).setdefault("counts_passes", not layer.fixed_mask)
            vars(layer).update(first_row=row, fixed_mask=not (last and original))
