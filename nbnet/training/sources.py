"""Where the batches of `Trainer.fit` come from: arrays, in memory or not, and batches of the user's own."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from nbnet.distributed import Ranks
from nbnet.errors import ArgumentError, DataError
from nbnet.functional import checks
from nbnet.preprocessing import stratified_split
from nbnet.runtime.arrays import each, first, take
from nbnet.runtime.lazy import Lazy, ahead, is_read
from nbnet.training.augmented import own_batches, own_rows, training_batches
from nbnet.training.epoch import Batch, Data, batches, check_data, check_weights, count_batches, with_weights

EVALUATED = 256  # rows of a batch of the validation
_END: Any = object()


class Rows:
    """A data set (x, y, weights), checked, whose rows are shuffled in each epoch.

    Attributes:
        count: batches of an epoch. rows, batch_size: as Position has them. total: rows of an epoch, None if unknown.
    """

    def __init__(self, data: Data, batch_size: int) -> None:
        self.data, self.batch_size = data, batch_size
        self.rows = self.total = len(first(data[0]))
        self.count = count_batches(self.rows, batch_size)

    def batches(self, trainer: Any) -> Generator[Batch]:
        """The rest of the trainer's epoch, x where the model reads it; of each batch the rows that this rank has."""
        x, y, weights = self.data
        left = batches(self.rows, self.batch_size, trainer.seed, trainer.epoch)[trainer.position.batches :]
        counts = [len(rows) for rows in left]
        left = [own_rows(trainer, rows) for rows in left]
        with closing(training_batches(trainer, x, y, left)) as parts:
            for rows, count in zip(left, counts):
                yield Batch(*next(parts), None if weights is None else weights[rows], count)

    def in_order(self, ranks: Ranks) -> Generator[Data]:
        """The batches of an evaluation that this rank has."""
        x, y, weights = self.data
        cuts = [slice(start, start + self.batch_size) for start in range(0, self.rows, self.batch_size)]
        cuts = cuts[ranks.rank :: ranks.size]
        found = ((take(x, cut), take(y, cut), None if weights is None else weights[cut]) for cut in cuts)
        return ahead(found) if any(map(is_read, x if type(x) is tuple else [x])) else found


class Batches:
    """Batches (x, y) or (x, y, sample_weight) of the user's own, in their order. Each is checked, and copied, when it is reached.

    A run that stopped within an epoch skips the batches that it has done: it continues bit for bit if the epoch has the same batches
    again. An iterator is never skipped; one that was read ahead when fit stops has lost a batch. For augmentation rows are numbered as
    they come in the epoch, and partners of MixUp and CutMix are of the same batch.

    Args:
        data: iterated again in each epoch, for the first `count` batches; an iterator goes on where it was.
        count: of the batches of an epoch.
    """

    batch_size, total = 0, None

    def __init__(self, data: Iterable[Any], count: int, name: str, trainer: Any) -> None:
        self.data, self.count, self.name, self.model, self.loss = data, count, name, trainer.model, trainer.loss
        self.rows = count

    def batches(self, trainer: Any) -> Generator[Batch]:
        """The rest of the trainer's epoch, x where the model reads it; of each batch the rows that this rank has."""
        with closing(ahead(self._checked(trainer.position.batches, f" of epoch {trainer.epoch + 1}"))) as found:
            yield from own_batches(trainer, found, trainer.position.rows)

    def in_order(self, ranks: Ranks) -> Generator[Data]:
        """The batches of an evaluation that this rank has."""
        return ahead(batch for number, batch in enumerate(self._checked(0, "")) if number % ranks.size == ranks.rank)

    def _checked(self, done: int, epoch: str) -> Generator[Data]:
        """The batches after the first `done`, which are skipped, unless an iterator has given them already."""
        found = iter(self.data)
        for number in range(0 if found is not self.data else done, self.count):
            batch = next(found, _END)
            if batch is _END:
                raise DataError(
                    f"{self.name}: batch {number + 1}{epoch} is missing: expected {self.count} batches; the iterable ended after {number}"
                )
            if number >= done:
                yield self._check(batch, f"{self.name}, batch {number + 1}{epoch}")

    def _check(self, batch: Any, name: str) -> Data:
        pair, weights = with_weights(batch)
        x, y = check_data(pair, name, self.model, self.loss)
        weights = check_weights(weights, len(first(x)), name, self.loss)
        return each(_copied, x), each(_copied, y), None if weights is None else weights.copy()


def _copied(array: Any) -> np.ndarray:
    """In memory of its own: an iterable may fill one array again and again."""
    return np.array(array[:])


Source = Rows | Batches


def source_of(trainer: Any, data: Any, name: str, batch_size: int, sample_weight: Any = None, steps: Any = None) -> Source:
    """The source of what `Trainer.fit` was given.

    Args:
        name: what errors call the data. sample_weight, steps: the arguments sample_weight and steps_per_epoch of fit.
    Raises:
        DataError, ShapeError, DTypeError, NonFiniteError, ArgumentError: something does not fit.
    """
    if not _is_own(data):
        if steps is not None:
            raise ArgumentError(f"steps_per_epoch={steps!r} is for batches of your own, got arrays: leave it out: an epoch is all rows")
        pair, weights = with_weights(data)
        if weights is not None and sample_weight is not None:
            raise ArgumentError(f"{name} has three parts (x, y, sample_weight), and sample_weight= is given too: expected one of them")
        x, y = check_data(pair, name, trainer.model, trainer.loss)
        weights = check_weights(sample_weight if weights is None else weights, len(first(x)), name, trainer.loss)
        return Rows((x, y, weights), batch_size)
    if sample_weight is not None:
        raise ArgumentError("sample_weight= is for arrays, got batches of your own: expected batches (x, y, sample_weight)")
    kind = type(data).__name__
    if steps is not None:
        return Batches(data, checks.whole(steps, "steps_per_epoch"), name, trainer)
    if isinstance(data, Iterator):
        if name == "data":
            hint = "give steps_per_epoch=, or an object that can be iterated again, such as a list"
        else:
            hint = "expected an object that can be iterated again, such as a list"
        raise ArgumentError(f"{name}: {kind} can be iterated only once: {hint}")
    try:
        count = len(data)
    except TypeError:
        hint = "give steps_per_epoch=" if name == "data" else "expected one with len()"
        raise ArgumentError(f"{name}: {kind} does not tell how many batches it has: {hint}") from None
    if count < 1:
        raise DataError(f"{name}: {kind} has no batch, expected at least one")
    return Batches(data, count, name, trainer)


def split(source: Source, validation: Source | None, fraction: Any, seed: int) -> tuple[Rows, Rows]:
    """The rows that train, and the share of them that is held out, of each class if there is one class for each row.

    Args:
        validation: what fit was given besides. fraction, seed: they alone decide, with the targets.
    Raises:
        ArgumentError: the share is not between 0 and 1, or does not fit what else was given. DataError: a part would have no row.
    """
    if validation is not None:
        raise ArgumentError(f"validation_split={fraction!r} and validation= are both given: expected one of them")
    if not isinstance(source, Rows):
        raise ArgumentError(f"validation_split={fraction!r} is for arrays, got batches of your own: write validation= with other batches")
    share = checks.number(fraction, "validation_split", "a number between 0 and 1, such as 0.1", lambda share: 0 < share < 1)
    x, y, weights = source.data
    classes = type(y) is not tuple and y.ndim == 1 and y.dtype.kind in "iu"
    train, held_out = stratified_split(y if classes else np.zeros(source.rows, np.int64), share, seed)
    if len(held_out) == 0:
        raise DataError(f"validation_split={fraction!r} leaves none of {source.rows} rows: expected at least two rows of some class")

    def part(rows: np.ndarray, batch_size: int) -> Rows:
        kept = each(lambda one: (one if isinstance(one, Lazy) else Lazy(one)).subset(rows) if is_read(one) else one[rows], x)
        return Rows((kept, take(y, rows), None if weights is None else weights[rows]), batch_size)

    return part(train, source.batch_size), part(held_out, EVALUATED)


def _is_own(data: Any) -> bool:
    """Whether these are batches, and not arrays, or something that is neither."""
    if isinstance(data, list):
        return bool(data) and all(type(batch) is tuple and len(batch) in (2, 3) for batch in data)
    return isinstance(data, Iterable) and not isinstance(data, (tuple, str, bytes, Mapping)) and not hasattr(data, "shape")
