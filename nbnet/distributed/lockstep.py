"""The slices of a batch side by side: each has a twin of the model, and all twins run one step before any runs the next.

A twin has the same layers with the same parameter values, and gradients and tapes of its own. Most steps run on each slice by itself. A
synchronised batch norm sees all slices. Dropout masks are those of the rows in the whole batch. What other layers keep in buffers is the
mean over slices after each step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from nbnet.distributed import norm
from nbnet.distributed.buckets import Flat, Reduction
from nbnet.distributed.norm import Back, Sync
from nbnet.distributed.slicing import Slicing, tree
from nbnet.errors import ArgumentError
from nbnet.layers import BatchNorm, Dropout, Layer, Sequential
from nbnet.layers.branches import Branches
from nbnet.layers.containers import Container
from nbnet.layers.fusion import FusedStep, NormStep, may_overwrite
from nbnet.layers.parameters import Param
from nbnet.runtime.arrays import several
from nbnet.runtime.stage import Stage


class Lockstep(Stage):
    """Stands for a model in a pass over a batch: x, predictions and gradients are tuples with a part for each own slice that has rows.

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
        active = [number for number, cut in enumerate(slicing.cuts(rows)) if cut is not None]
        sync, lead = Sync(slicing, active, rows, be), self.twins[0]
        reduction = Reduction(slicing, self.flat, self.buckets, active, rows)
        for number in active:
            _place_dropout(self.twins[number], slicing.bounds(slicing.own[number], rows)[0], number == active[-1])
        if not active:
            _place_dropout(lead, 0, True)
        for buffer, parts in self.averaged:
            for part in parts:
                be.run(np.copyto, part, buffer)
        xs = list(x)
        if several(lead.input_shape):
            inputs = len(lead.input_shape)
            xs = [tuple(xs[i : i + inputs]) for i in range(0, len(xs), inputs)]
        ys, back = _Walk(sync, reduction).run(self.twins, xs)
        return tuple(_flat(ys)), (back, reduction)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        """Write the gradients of all slices and ranks into the parameters of the model."""
        back, reduction = saved
        if isinstance(saved, list):
            saved.clear()
        dys = list(dy)
        if several(self.twins[0].output_shape):
            outputs = len(self.twins[0].output_shape)
            dys = [tuple(dys[i : i + outputs]) for i in range(0, len(dys), outputs)]
        back(dys, False)
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


def _flat(values: Sequence[Any]) -> list[Any]:
    return [part for value in values for part in (value if type(value) is tuple else (value,))]


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


# ------------------------------------------------------------------------------------------------------ the walk


class _Walk:
    """Runs steps of all own slices; `run` returns the outputs of the active ones, and a function for backward:

    back(dys, need_dx, overwrite=False) -> dxs           # overwrite: dxs may replace dys in memory
    """

    def __init__(self, sync: Sync, reduction: Reduction) -> None:
        self.sync, self.reduction, self.depth = sync, reduction, 0

    def run(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """forward(train=True) of one place of the model. stages: of all own slices. xs: of the active ones."""
        lead = stages[0]
        kind, replaced = type(lead), "forward" in vars(lead) or "backward" in vars(lead)
        if isinstance(lead, Sequential) and kind.forward is Sequential.forward and not replaced:
            return self._sequential(stages, xs)
        if isinstance(lead, Branches) and kind.forward is Branches.forward and not replaced:
            return self._branches(stages, xs)
        if isinstance(lead, FusedStep) and lead.is_replaced:
            return self._chain([[stage.layers[i] for stage in stages] for i in range(len(lead.layers))], xs)
        if isinstance(lead, NormStep) and lead.norm.sync and lead.norm.needs_statistics(True):
            return norm.step(stages, xs, self.sync)
        if kind is BatchNorm and not replaced and lead.sync and lead.needs_statistics(True):
            return norm.layer(stages, xs, self.sync)
        return self._apart(stages, xs)

    def _members(self, stages: Sequence[Any]) -> list[Any]:
        return [stages[number] for number in self.sync.active]

    def _apart(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """Each slice by itself."""
        lead, members = stages[0], self._members(stages)
        layers = [one for layer in getattr(lead, "layers", [lead]) for one in layer.walk()]
        for layer in layers:
            if isinstance(layer, BatchNorm) and layer.sync and layer.needs_statistics(True) and not isinstance(lead, NormStep):
                raise ArgumentError(
                    f"layer {layer.name} cannot be synchronised over slices, since {lead.name} runs it itself: use BatchNorm(sync=False)"
                )
            if isinstance(layer, Dropout) and not members:
                layer.next_counter(True)
        results = [stage.forward(x, True) for stage, x in zip(members, xs)]
        saved = [result[1] for result in results]

        def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            options = {"overwrite_dy": True} if overwrite else {}
            return [stage.backward(dy, one, need_dx, **options) for stage, dy, one in zip(members, dys, saved)]

        return [result[0] for result in results], back

    def _sequential(self, models: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        lead, members = models[0], self._members(models)
        outermost, self.depth = self.depth == 0, self.depth + 1
        ys, back = self._chain(
            [[model.steps[i] for model in models] for i in range(len(lead.steps))],
            [model.as_input(x) for model, x in zip(members, xs)],
            models,
            outermost,
        )
        self.depth -= 1
        return ys, back

    def _chain(
        self, steps: Sequence[Sequence[Any]], xs: list[Any], models: Sequence[Any] = (), outermost: bool = False
    ) -> tuple[list[Any], Back]:
        """Steps one after another, of these containers, if any."""
        backs = []
        for stages in steps:
            xs, back = self.run(stages, xs)
            backs.append(back)
        leads, members = [stages[0] for stages in steps], self._members(models) if models else []

        def backward(dys: Any, need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            lowest = 0 if need_dx else next((i for i, step in enumerate(leads) if step.params), len(leads))
            for i in range(len(leads) - 1, lowest - 1, -1):
                above = leads[i + 1] if i + 1 < len(leads) else None
                held = [(model, model._hold(i) if model._shared else ()) for model in members]
                dys = backs.pop()(dys, need_dx or i > lowest, above is not None and may_overwrite(leads[i], above))
                for model, arrays in held:
                    model._add_held(arrays)
                if outermost:
                    self.reduction.done(i, self.sync.be)
            return dys if need_dx else None

        return xs, backward

    def _branches(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        lead, members = stages[0], self._members(stages)
        self.depth += 1
        xs = [stage.check_input(x) for stage, x in zip(members, xs)]
        parts: list[list[Any]] = []
        backs: list[Back] = []
        for i in range(len(lead.steps)):
            ys, back = self.run([stage.steps[i] for stage in stages], [x[i] if type(x) is tuple else x for x in xs])
            parts.append(ys)
            backs.append(back)
        self.depth -= 1
        branched = [[ys[k] for ys in parts] for k in range(len(members))] if lead.steps else xs
        results = [stage._join(one) for stage, one in zip(members, branched)]
        joined, rows = [result[1] for result in results], [len(x[0] if type(x) is tuple else x) for x in xs]

        def backward(dys: Any, need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            dys = [stage._check_gradient(dy, count) for stage, dy, count in zip(members, dys, rows)]

            def gradients(i: int) -> list[Any]:
                return [stage._gradient(dy, one, i) for stage, dy, one in zip(members, dys, joined)]

            if not lead.steps:
                inputs = [gradients(i) for i in range(len(lead.input_shape))]
                return [tuple(of_slice) for of_slice in zip(*inputs)] if need_dx else None
            dxs: list[Any] = [None] * len(lead.steps)
            for i in reversed(range(len(lead.steps))):
                if need_dx or lead.steps[i].params:
                    held = [(stage, stage._hold(i) if stage._shared else ()) for stage in members]
                    dxs[i] = backs[i](gradients(i), need_dx)
                    for stage, arrays in held:
                        stage._add_held(arrays)
            if not need_dx:
                return None
            of_slices = [[dx[k] for dx in dxs] for k in range(len(members))]
            if several(lead.input_shape):
                return [tuple(one) for one in of_slices]
            return [reduce(stage._add, one) for stage, one in zip(members, of_slices)]

        return [result[0] for result in results], backward
