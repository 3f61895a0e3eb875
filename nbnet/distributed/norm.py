"""Synchronised batch normalisation: each slice is normalised by the statistics of all (Zhang et al. 2018, by Chan's formula).

Forward merges (count, mean, m2) of the slices, backward adds the two sums over the rows that every dx needs: one message for each layer
and direction. The rest is the pair of nbnet.functional.fused on each slice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet.distributed.slicing import Slicing, tree
from nbnet.functional import Stats, batchnorm, fused
from nbnet.functional.fused import Gradients
from nbnet.layers.batchnorm import BatchNorm
from nbnet.layers.batchnorm.axes import channels_back, channels_last
from nbnet.layers.fusion import NormStep, ProductNormStep, product_of

Back = Callable[..., list[Any] | None]


def _chan(mean: Any, m2: Any, other: Any, other_m2: Any, share: Any, weight: Any) -> Any:
    """Mean and m2 of two parts (Chan, Golub and LeVeque 1979). share: of the second part; weight: the first's count times share."""
    delta = other - mean
    return mean + delta * share, (m2 + other_m2) + delta * delta * weight


def _plus(a: Any, b: Any, c: Any, d: Any) -> Any:
    return a + c, b + d


class Sync:
    """The sums over slices of one pass. active: the own slices that have rows, by number among the own. rows: of the batch."""

    def __init__(self, slicing: Slicing, active: Sequence[int], rows: int, be: Any) -> None:
        self.slicing, self.active, self.rows, self.be = slicing, active, rows, be

    def merged(self, stats: Sequence[Stats], values: int, channels: int) -> Stats:
        """The statistics of all slices. values: of a channel in one row."""

        def combine(a: Stats, b: Stats) -> Stats:
            return self._merge(a, b, a.mean, a.m2)

        own = self._own(stats)
        found = tree(own, combine)
        if self.slicing.levels:
            found = self._between(found, values, channels, lambda a, b: self._merge(a, b, *_pair(channels)))
        assert found is not None
        return found

    def added(self, sums: Sequence[tuple[Any, Any]], channels: int) -> tuple[Any, Any]:
        """The sums of the slices' pairs of vectors."""

        def combine(a: Stats, b: Stats) -> Stats:
            self.be.channelwise(_plus, (a.mean, a.m2), a.mean, a.m2, b.mean, b.m2)
            return Stats(a.mean, a.m2, 1.0)

        def apart(a: Stats, b: Stats) -> Stats:
            pair = _pair(channels)
            self.be.channelwise(_plus, pair, a.mean, a.m2, b.mean, b.m2)
            return Stats(*pair, 1.0)

        found = tree(self._own([Stats(g, gx, 1.0) for g, gx in sums]), combine)
        if self.slicing.levels:
            found = self._between(found, 1, channels, apart)
        assert found is not None
        return found.mean, found.m2

    def _merge(self, a: Stats, b: Stats, mean: Any, m2: Any) -> Stats:
        count = a.count + b.count
        share = b.count / count
        self.be.channelwise(_chan, (mean, m2), a.mean, a.m2, b.mean, b.m2, share, a.count * share)
        return Stats(mean, m2, count)

    def _own(self, parts: Sequence[Stats]) -> list[Stats | None]:
        found: list[Stats | None] = [None] * len(self.slicing.own)
        for number, part in zip(self.active, parts):
            found[number] = part
        return found

    def _between(self, found: Stats | None, values: int, channels: int, combine: Callable[[Stats, Stats], Stats]) -> Stats | None:
        """Recursive doubling: each rank swaps what it has with another one at the distances 1, 2, 4, ..."""
        ranks, me = self.slicing.ranks, self.slicing.ranks.rank
        for distance in self.slicing.levels:
            partner = me ^ distance
            mine, theirs = np.zeros((2, channels)), np.zeros((2, channels))
            if found is not None:
                self.be.run(np.copyto, mine[0], found.mean)
                self.be.run(np.copyto, mine[1], found.m2)
            self.be.run(ranks.swap, partner, mine, theirs)
            count = self.slicing.rows_of_block(partner, distance, self.rows)
            if count:
                other = Stats(theirs[0], theirs[1], float(count * values))
                found = other if found is None else combine(*((found, other) if me < partner else (other, found)))
        return found

    def gather(self, stats: Sequence[Sequence[Stats]]) -> list[Stats]:
        """The statistics of all groups of all slices, in order."""
        own = [(part.mean, part.m2, part.count) for slice_ in stats for part in slice_]
        if not self.slicing.levels:
            return [Stats(*part) for part in own]
        return [Stats(*part) for of_rank in self.slicing.ranks.gather(own) for part in of_rank]

    # ------------------------------------------------------------------------------------------------- backward

    def coefficients(
        self, sums: Sequence[tuple[Any, Any]], saved: Sequence[batchnorm.BatchNormSaved], norms: Sequence[BatchNorm]
    ) -> list[Any]:
        """Those of dx, the same for all slices. The gradients of gamma and beta go to the first slice of all; those of others are 0."""
        channels = norms[0].buffers["moving_mean"].size
        total = self.added(sums, channels)
        first = self.slicing.own[0] + self.active[0] == self.slicing.lowest(self.rows) if self.active else False
        for i, number in enumerate(self.active):
            own = norms[number].gradients()
            for grad in (own.gamma, own.beta):
                if grad is not None and not (first and i == 0):
                    self.be.run(np.ndarray.fill, grad, 0)
        if not self.active:
            return []
        into = norms[self.active[0]].gradients() if first else Gradients()
        found, _, _ = batchnorm.backward_coefficients(*total, saved[0].affine[0], saved[0], into.gamma, into.beta)
        return found


def _pair(channels: int) -> tuple[Any, Any]:
    pair = np.empty((2, channels))
    return pair[0], pair[1]


# ------------------------------------------------------------------------------------------------------ the layer


def layer(norms: Sequence[BatchNorm], xs: Sequence[Any], sync: Sync) -> tuple[list[Any], Back]:
    """forward(train=True) of a BatchNorm of all own slices, xs those of the active ones; and what its backward is."""
    lead, members = norms[0], [norms[i] for i in sync.active]
    taken = [norm.groups_of(x, True) for norm, x in zip(members, xs)]
    groups, stats = [each[0] for each in taken], [each[1] for each in taken]
    if lead.virtual_batch_size is not None:
        whole = sync.gather(stats)
    else:
        shape = lead.input_shape or ()
        channels = shape[lead.channel_axis - 1]
        whole = [sync.merged([part[0] for part in stats], int(np.prod(shape)) // channels, channels)]
        stats = [whole] * len(members)
    results = [norm.normalize(group, own, whole, True) for norm, group, own in zip(members, groups, stats)]
    lead.follow(whole, True)
    saved = [result[1] for result in results]

    def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
        if lead.virtual_batch_size is not None or not lead.use_batch_statistics:
            return [norm.backward(dy, one, need_dx) for norm, dy, one in zip(members, dys, saved)]
        axis, be = lead.channel_axis, lead.backend
        of_slices = [one[0][1] for one in saved]
        last = [channels_last(norm.check_gradient(dy, one.out_shape[0]), axis, be) for norm, dy, one in zip(members, dys, of_slices)]
        sums = [fused.normalization_sums(dy, one, False) for dy, one in zip(last, of_slices)]
        coefficients = sync.coefficients([each[1:] for each in sums], [one.norm for one in of_slices], norms)
        dxs = [fused.normalization_input_gradient(each[0], one, coefficients) for each, one in zip(sums, of_slices)]
        return [channels_back(dx, axis, be) for dx in dxs]

    return [result[0] for result in results], back


def step(steps: Sequence[NormStep], xs: Sequence[Any], sync: Sync) -> tuple[list[Any], Back]:
    """The same for a fused step with a batch norm."""
    lead, members = steps[0], [steps[i] for i in sync.active]
    products: list[Any] = [None] * len(members)
    if isinstance(lead, ProductNormStep):
        taken = [product_of(one.layers[0], x).run(stats=True) for one, x in zip(members, xs)]
        rows, products, stats = (
            [each[0] for each in taken],
            [each[1] for each in taken],
            [each[2] or Stats(np.empty(0), np.empty(0), 0.0) for each in taken],
        )
    else:
        rows = [one.norm.check_input(x) for one, x in zip(members, xs)]
        stats = [batchnorm.batch_norm_stats(x, backend=lead.backend) for x in rows]
    shape = lead.norm.input_shape or ()
    whole = sync.merged(stats, int(np.prod(shape[:-1])), shape[-1])
    results = [fused.normalization_forward(x, one.numbers(x, whole, True), one.epilogue, lead.backend) for one, x in zip(members, rows)]
    lead.norm.follow([whole], True)
    saved = [result[1] for result in results]

    def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
        dys = [one.as_product(dy) for one, dy in zip(members, dys)]
        if not lead.norm.use_batch_statistics:
            kept = [one if product is None else fused.ProductNormSaved(product, one) for product, one in zip(products, saved)]
            dxs = [one.run_backward(dy, each, need_dx, overwrite) for one, dy, each in zip(members, dys, kept)]
        else:
            sums = [fused.normalization_sums(dy, one, overwrite) for dy, one in zip(dys, saved)]
            coefficients = sync.coefficients([each[1:] for each in sums], [one.norm for one in saved], [one.norm for one in steps])
            dxs = [
                _input_gradient(one, g, coefficients, product, each, need_dx, overwrite)
                for one, (g, _, _), product, each in zip(members, sums, products, saved)
            ]
        return [None if dx is None else dx.reshape(len(dx), *lead.layers[0].input_shape) for dx in dxs]

    return [y.reshape(len(y), *lead.output_shape) for y, _ in results], back


def _input_gradient(one: Any, g: Any, coefficients: list[Any], product: Any, saved: Any, need_dx: bool, overwrite: bool) -> Any:
    if product is None:
        return fused.normalization_input_gradient(g, saved, coefficients, overwrite)
    grads = one.layers[0].gradients()
    return fused.product_norm_input_gradient(g, coefficients, fused.ProductNormSaved(product, saved), grads, need_dx, overwrite)
