"""One pass over the steps of a model, for all own slices: each step runs on all before the next one does.

Steps take blocks (nbnet.distributed.blocks). Where each row of a result depends on one row alone, a step runs once on each block, and the
gradients of its parameters are taken of each slice. Other steps run on each slice by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

from nbnet.distributed import norm
from nbnet.distributed.blocks import dropouts, is_by_rows, is_product, joins_by_rows
from nbnet.distributed.buckets import Reduction
from nbnet.distributed.norm import Back, Sync
from nbnet.errors import ArgumentError
from nbnet.functional import fused
from nbnet.functional.activations import through
from nbnet.layers import BatchNorm, Sequential
from nbnet.layers.activations import before_activation
from nbnet.layers.branches import Branches
from nbnet.layers.fusion import FusedStep, NormStep, ProductActivationStep, ProductDropoutStep, ProductNormStep, may_overwrite
from nbnet.runtime.arrays import first, several


class Walk:
    """Runs steps of all own slices; `run` returns the outputs, in blocks, and a function for backward:

    back(dys, need_dx, overwrite=False) -> dxs           # blocks; overwrite: dxs may replace dys in memory
    """

    def __init__(self, sync: Sync, reduction: Reduction) -> None:
        self.sync, self.blocks, self.reduction, self.depth = sync, sync.blocks, reduction, 0

    def run(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """forward(train=True) of one place of the model. stages: of all own slices. xs: blocks."""
        lead = stages[0]
        kind, replaced = type(lead), "forward" in vars(lead) or "backward" in vars(lead)
        if isinstance(lead, Sequential) and kind.forward is Sequential.forward and not replaced:
            return self._sequential(stages, xs)
        if isinstance(lead, Branches) and kind.forward is Branches.forward and not replaced:
            return self._branches(stages, xs)
        if isinstance(lead, FusedStep) and (lead.is_replaced or (kind is ProductNormStep and not is_product(lead.layers[0]))):
            return self._chain([[stage.layers[i] for stage in stages] for i in range(len(lead.layers))], xs)
        if (isinstance(lead, NormStep) or (kind is BatchNorm and not replaced)) and _is_synchronised(lead):
            return norm.run(stages, xs, self.sync)
        if not self.sync.active:
            for layer in dropouts(lead):
                layer.next_counter(True)
        if is_by_rows(lead) and not replaced:
            return self._by_rows(stages, xs)
        if kind in (ProductActivationStep, ProductDropoutStep) and is_product(lead.layers[0]):
            return self._product(stages, xs)
        if is_product(lead) and not replaced:
            return self._product(stages, xs)
        return self._apart(stages, xs)

    def _runners(self, stages: Sequence[Any]) -> Sequence[Any]:
        return self.blocks.runners(self.sync.members(stages))

    def _apart(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """Each slice by itself."""
        lead, members = stages[0], self.sync.members(stages)
        for layer in (one for outer in getattr(lead, "layers", [lead]) for one in outer.walk()):
            if isinstance(layer, BatchNorm) and layer.sync and layer.needs_statistics(True) and not isinstance(lead, NormStep):
                raise ArgumentError(
                    f"layer {layer.name} cannot be synchronised over slices, since {lead.name} runs it itself: use BatchNorm(sync=False)"
                )
        results = [stage.forward(x, True) for stage, x in zip(members, self.blocks.split(xs))]
        saved = [result[1] for result in results]

        def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            options = {"overwrite_dy": True} if overwrite else {}
            dys = self.blocks.split(dys)
            dxs = [stage.backward(dy, one, need_dx, **options) for stage, dy, one in zip(members, dys, saved)]
            return self.blocks.join(dxs) if need_dx else None

        return self.blocks.join([result[0] for result in results]), back

    def _by_rows(self, stages: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """A layer without parameters, on each block."""
        runners = self._runners(stages)
        with self._counting(runners):
            results = [stage.forward(x, True) for stage, x in zip(runners, xs)]
        saved = [result[1] for result in results]

        def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            return [stage.backward(dy, one, need_dx) for stage, dy, one in zip(runners, dys, saved)]

        return [result[0] for result in results], back

    def _product(self, steps: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        """A product, or a fused step that starts with one, on each block; its gradients are taken of each slice."""
        runners, members = self._runners(steps), self.sync.members(steps)
        with self._counting(runners):
            results = [step.forward(x, True) for step, x in zip(runners, xs)]
        saved = [result[1] for result in results]

        def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            before = [_before_product(step, dy, one) for step, dy, one in zip(runners, dys, saved)]
            for (block, cut), member in zip(self.blocks.places, members):
                dy, product = before[block]
                fused.product_backward(dy[cut], fused.rows_of_product(product, cut), _first_layer(member).gradients(), False)
            if not need_dx:
                return None
            dxs = [fused.product_backward(dy, product, None, True) for dy, product in before]
            return [dx.reshape(len(dx), *_first_layer(steps[0]).input_shape) for dx in dxs]

        return [result[0] for result in results], back

    @contextmanager
    def _counting(self, runners: Sequence[Any]) -> Iterator[None]:
        """Where one slice's dropout runs for all, it counts the pass, which else that of the last slice does."""
        layers = [layer for stage in runners for layer in dropouts(stage)] if self.blocks.joint else []
        before = [layer.fixed_mask for layer in layers]
        for layer in layers:
            vars(layer)["fixed_mask"] = not vars(layer)["counts_passes"]
        try:
            yield
        finally:
            for layer, value in zip(layers, before):
                vars(layer)["fixed_mask"] = value

    def _sequential(self, models: Sequence[Any], xs: list[Any]) -> tuple[list[Any], Back]:
        outermost, self.depth = self.depth == 0, self.depth + 1
        ys, back = self._chain(
            [[model.steps[i] for model in models] for i in range(len(models[0].steps))],
            [model.as_input(x) for model, x in zip(self._runners(models), xs)],
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
        leads, members = [stages[0] for stages in steps], self.sync.members(models) if models else []

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
        lead, members = stages[0], self.sync.members(stages)
        joint = joins_by_rows(lead)
        joining = self._runners(stages) if joint else members
        self.depth += 1
        xs = [stage.check_input(x) for stage, x in zip(self._runners(stages), xs)]
        parts: list[list[Any]] = []
        backs: list[Back] = []
        for i in range(len(lead.steps)):
            ys, back = self.run([stage.steps[i] for stage in stages], [x[i] if type(x) is tuple else x for x in xs])
            parts.append(ys if joint else self.blocks.split(ys))
            backs.append(back)
        self.depth -= 1
        if not lead.steps:
            branched = xs if joint else self.blocks.split(xs)
        else:
            branched = [[ys[k] for ys in parts] for k in range(len(joining))]
        results = [stage._join(one) for stage, one in zip(joining, branched)]
        joined, rows = [result[1] for result in results], [len(first(result[0])) for result in results]

        def backward(dys: Any, need_dx: bool, overwrite: bool = False) -> list[Any] | None:
            dys = dys if joint else self.blocks.split(dys)
            dys = [stage._check_gradient(dy, count) for stage, dy, count in zip(joining, dys, rows)]

            def gradients(i: int) -> list[Any]:
                found = [stage._gradient(dy, one, i) for stage, dy, one in zip(joining, dys, joined)]
                return found if joint else self.blocks.join(found)

            if not lead.steps:
                inputs = [gradients(i) for i in range(len(lead.input_shape))]
                return [tuple(of_block) for of_block in zip(*inputs)] if need_dx else None
            dxs: list[Any] = [None] * len(lead.steps)
            for i in reversed(range(len(lead.steps))):
                if need_dx or lead.steps[i].params:
                    held = [(stage, stage._hold(i) if stage._shared else ()) for stage in members]
                    dxs[i] = backs[i](gradients(i), need_dx)
                    for stage, arrays in held:
                        stage._add_held(arrays)
            if not need_dx:
                return None
            of_blocks = [list(one) for one in zip(*dxs)]
            if several(lead.input_shape):
                return [tuple(one) for one in of_blocks]
            return [reduce(stage._add, one) for stage, one in zip(self._runners(stages), of_blocks)]

        ys = [result[0] for result in results]
        return ys if joint else self.blocks.join(ys), backward


def _is_synchronised(stage: Any) -> bool:
    layer = stage.norm if isinstance(stage, NormStep) else stage
    synchronised: bool = layer.sync and layer.needs_statistics(True)
    return synchronised


def _first_layer(step: Any) -> Any:
    return step.layers[0] if isinstance(step, FusedStep) else step


def _before_product(step: Any, dy: Any, saved: Any) -> tuple[Any, Any]:
    """The gradient of the product that a step starts with, and what the product saved."""
    if not isinstance(step, FusedStep):
        dy, saved = before_activation(dy, saved)
        return step.as_product(dy), saved
    dy = step.as_product(dy)
    if isinstance(saved, fused.ProductDropoutSaved):
        return fused.before_dropout(dy, saved), saved.product
    if isinstance(step, ProductDropoutStep):  # whose dropout runs by itself
        saved, dropped = saved
        dy = step.layers[2].backward(dy, dropped)
    return through(dy, saved.activation), saved.product
