"""Training in slices (nbnet.distributed): the gradients of a batch of which this rank has some rows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np

from nbnet.distributed import Ranks, Slicing
from nbnet.distributed.lockstep import Lockstep
from nbnet.errors import ArgumentError, NonFiniteError
from nbnet.layers import Param, Sequential
from nbnet.losses.base import check_result, count_rows, divisor
from nbnet.metrics import Metric
from nbnet.runtime.arrays import each, first, take
from nbnet.runtime.commit import Call, commit
from nbnet.runtime.replay import Replay
from nbnet.training import resume
from nbnet.training.epoch import Sums, parts
from nbnet.training.evaluation import measure
from nbnet.training.gradients import Adding, explain_not_finite
from nbnet.training.sources import Rows, Source
from nbnet.version import __version__

LOOKED_AT = 16  # rows of a data set


class Sliced(Slicing):
    """The slicing of a Trainer.

    Attributes:
        passes: what runs the slices of a batch.
    """

    def __init__(self, slices: int, ranks: Ranks, wire: str | None, replay: bool) -> None:
        super().__init__(slices, ranks, wire)
        self.passes = Replay(replay, self.lockstep)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is of one process."""
        return Sliced, (self.slices, Ranks(), None, self.passes.enabled)

    def lockstep(self, model: Sequential) -> Lockstep:
        if model.backend.name == "cuda":
            raise ArgumentError("slices= and comm= are for the CPU, got a model on backend 'cuda': use 'parallel', 'serial' or 'numpy'")
        return Lockstep(model, self)

    def own_rows(self, rows: int, accumulate: int) -> np.ndarray:
        """Which rows of a batch this rank has, in order."""
        found = []
        for start, stop in parts(rows, accumulate):
            share = self.share(stop - start)
            found.append(np.arange(start + share.start, start + share.stop))
        return np.concatenate(found)


def gradients(trainer: Any, batch: Any, metrics: Collection[Metric], params: Collection[Param], waiting: list[Call]) -> Sums:
    """What nbnet.training.gradients.gradients does, for the own rows of a batch.

    Raises:
        NonFiniteError: on all ranks, if the loss of one is not finite.
    """
    slicing: Sliced = trainer.sliced
    (x, y, weights, rows), loss, backend = batch, trainer.loss, trainer.model.backend
    counted = count_rows(loss, y) if len(first(y)) else 0
    if slicing.levels:
        counted = int(slicing.add_ranks(np.array([float(counted)]))[0])
    found, adding, at = Sums(counted=counted), Adding(params, backend), 0
    options: dict[str, Any] = {"rows": divisor(loss, counted), "backend": backend}
    for start, stop in parts(rows, trainer.accumulate):  # where a part has rows of this rank, from `at` on
        slicing.rows = stop - start
        own, share = slicing.cuts(stop - start), slicing.share(stop - start)
        x_own, y_own, w_own = (None if part is None else take(part, slice(at, at + share.stop - share.start)) for part in (x, y, weights))
        at += share.stop - share.start
        one = slicing.passes.of(trainer.model, x_own, stop - start)
        prediction = one.forward(x_own)
        results, totals = [], []
        cuts = [cut for cut in own if cut is not None]
        for cut in cuts:
            given = options if w_own is None else options | {"sample_weight": w_own[cut]}
            of_slice = take(prediction, cut)
            results.append(check_result(loss(of_slice, take(y_own, cut), **given), of_slice, loss))
        done = iter(results)
        for each_cut in own:
            result = None if each_cut is None else next(done)
            totals.append(None if result is None else [result.total, math.nan if result.correct is None else result.correct])
        total, correct = slicing.add(totals, 2)
        found = found.plus(total, None if math.isnan(correct) else correct)
        if metrics:
            _measure(slicing, metrics, loss, prediction, y_own, w_own)
        if not math.isfinite(found.loss):
            commit(waiting)
            bad = [i for i, result in enumerate(results) if not math.isfinite(result.total)]
            _not_finite(trainer, found.loss, take(x_own, cuts[bad[0]]) if bad else None)
        one.backward(each(lambda *parts: np.concatenate(parts), *(result.gradient for result in results)) if results else prediction)
        adding.add(stop - start < rows)
    adding.finish()
    return found


def _inputs(value: Any) -> tuple[Any, ...]:
    return value if type(value) is tuple else (value,)


def _measure(slicing: Sliced, metrics: Collection[Metric], loss: Any, prediction: Any, target: Any, weights: Any) -> None:
    """Give metrics the rows of all ranks."""
    found = slicing.ranks.gather((each(np.array, prediction), target, weights)) if slicing.levels else [(prediction, target, weights)]
    prediction, target = (each(lambda *arrays: np.concatenate(arrays), *column) for column in list(zip(*found))[:2])
    measure(metrics, loss, prediction, target, None if weights is None else np.concatenate([part[2] for part in found]))


def _not_finite(trainer: Any, loss: float, images: Any) -> None:
    """Raise NonFiniteError on all ranks. images: of a slice whose loss is not finite, if this rank has one."""
    ranks = trainer.sliced.ranks
    found = ranks.gather(None if images is None else explain_not_finite(trainer.model, images))
    rank = next((rank for rank, text in enumerate(found) if text is not None), 0)
    where = f" on rank {rank} of {ranks.size}" if ranks.size > 1 else ""
    error = NonFiniteError(f"the loss is {loss} at step {trainer.step}{where}: {found[rank] or 'the sum of the slices overflows'}")
    error.agreed = error.on_all = True  # type: ignore[attr-defined]
    raise error


# ------------------------------------------------------------------------------------------- what all ranks must have


def facts_of(trainer: Any) -> dict[str, Any]:
    """What decides the results of a trainer, in words and checksums."""
    model, parameters = trainer.model, 0
    for array in model.state().values():
        parameters = zlib.crc32(np.ascontiguousarray(array).data, parameters)
    names = {"nbnet": __version__, "model": resume.describe(model), "input_shape": model.input_shape, "dtype": str(model.dtype)}
    seeds = {"backend": model.backend.name, "seed of the model": model.seed, "seed": trainer.seed}
    return names | seeds | {"wire": trainer.wire} | resume.settings(trainer) | {"checksum of the parameters": parameters}


def facts_of_data(trainer: Any, source: Source, held_out: Source | None, epochs: int) -> dict[str, Any]:
    """The same of the data of `fit`, of which a few rows are looked at."""
    facts: dict[str, Any] = {"epochs": epochs, "step": trainer.step, "position": trainer.position._replace(seconds=0.0)}
    for name, one in (("data", source), ("validation", held_out)):
        if one is not None:
            facts |= {f"{name} rows": one.rows, f"{name} batch_size": one.batch_size, f"{name} checksum": _checksum(one)}
    return facts


def _checksum(source: Source) -> int:
    if not isinstance(source, Rows):
        return 0
    value, rows = 0, np.linspace(0, source.rows - 1, min(source.rows, LOOKED_AT)).astype(np.int64)
    x, y, weights = source.data
    for array in (*_inputs(take(x, rows)), *_inputs(y), *([] if weights is None else [weights])):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value
