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
        own = [None if cut is None else slice(at + cut.start, at + cut.stop) for cut in slicing.cuts(stop - start)]
        cuts = [cut for cut in own if cut is not None]
        at += slicing.share(stop - start).stop - slicing.share(stop - start).start
        images = tuple(part for cut in cuts for part in _inputs(take(x, cut)))
        one = slicing.passes.of(trainer.model, images, stop - start)
        predictions = _outputs(one.forward(images), trainer.model.output_shape, len(cuts))
        results, totals = [], []
        for cut, prediction in zip(cuts, predictions):
            given = options if weights is None else options | {"sample_weight": weights[cut]}
            results.append(check_result(loss(prediction, take(y, cut), **given), prediction, loss))
        done = iter(results)
        for each_cut in own:
            result = None if each_cut is None else next(done)
            totals.append(None if result is None else [result.total, math.nan if result.correct is None else result.correct])
        total, correct = slicing.add(totals, 2)
        found = found.plus(total, None if math.isnan(correct) else correct)
        if metrics:
            _measure(
                slicing,
                metrics,
                loss,
                predictions,
                [take(y, cut) for cut in cuts],
                [None if weights is None else weights[cut] for cut in cuts],
            )
        if not math.isfinite(found.loss):
            commit(waiting)
            bad = [i for i, result in enumerate(results) if not math.isfinite(result.total)]
            _not_finite(trainer, found.loss, take(x, cuts[bad[0]]) if bad else None)
        one.backward(tuple(part for result in results for part in _inputs(result.gradient)))
        adding.add(stop - start < rows)
    adding.finish()
    return found


def _inputs(value: Any) -> tuple[Any, ...]:
    return value if type(value) is tuple else (value,)


def _outputs(flat: tuple[Any, ...], shape: Any, count: int) -> list[Any]:
    """The predictions of each slice: arrays, or tuples of them."""
    if not count:
        return []
    each_has = len(flat) // count
    return [flat[i * each_has : (i + 1) * each_has] if type(shape[0]) is tuple else flat[i] for i in range(count)]


def _measure(slicing: Sliced, metrics: Collection[Metric], loss: Any, predictions: Any, targets: Any, weights: Any) -> None:
    """Give metrics the rows of all ranks."""
    own = [(each(np.array, p), t, w) for p, t, w in zip(predictions, targets, weights)]
    found = [part for of_rank in slicing.ranks.gather(own) for part in of_rank]
    joined = [each(lambda *arrays: np.concatenate(arrays), *column) for column in list(zip(*found))[:2]]
    prediction, target = joined
    measure(metrics, loss, prediction, target, None if found[0][2] is None else np.concatenate([part[2] for part in found]))


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
