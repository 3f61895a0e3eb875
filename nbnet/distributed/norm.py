"""Synchronised batch normalisation: each slice is normalised by the statistics of all (Zhang et al. 2018, by Chan's formula).

Forward merges (count, mean, m2) of the slices, backward adds the two sums over the rows that every dx needs: one message for each layer
and direction. The rest is the pair of nbnet.functional.fused on blocks of slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet.distributed.blocks import Blocks
from nbnet.distributed.slicing import Slicing, tree
from nbnet.functional import Stats, batch_norm_stats, batchnorm, fused
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
    """The sums over slices of one pass. rows: of the batch.

    Attributes:
        active: the own slices that have rows, by number among the own. blocks: of these.
    """

    def __init__(self, slicing: Slicing, rows: int, be: Any) -> None:
        self.slicing, self.rows, self.be = slicing, rows, be
        cuts = slicing.cuts(rows)
        self.active = [number for number, cut in enumerate(cuts) if cut is not None]
        self.blocks = Blocks([cut for cut in cuts if cut is not None], be)

    def members(self, stages: Sequence[Any]) -> list[Any]:
        """Of the stages of all own slices, those of the active ones."""
        return [stages[number] for number in self.active]

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
        """Those of dx, the same for all slices. The gradients of gamma and beta go to the first slice of all; those of others are 0.

        saved: of each block. norms: of all own slices.
        """
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


# ----------------------------------------------------------------------------------------------------- the layers


def run(stages: Sequence[Any], xs: Sequence[Any], sync: Sync) -> tuple[list[Any], Back]:
    """forward(train=True) of a BatchNorm, or of a fused step with one, of all own slices, xs blocks; and what its backward is."""
    norms = [stage.norm if isinstance(stage, NormStep) else stage for stage in stages]
    if norms[0].virtual_batch_size is not None:
        return _ghost(norms, xs, sync)
    blocks, be, lead, norm = sync.blocks, sync.be, stages[0], norms[0]
    runners, products = blocks.runners(sync.members(stages)), []
    axis, shape = norm.channel_axis, norm.input_shape or ()
    if isinstance(lead, ProductNormStep):
        taken = [product_of(one.layers[0], x).run() for one, x in zip(runners, xs)]
        rows, products = [each[0] for each in taken], [each[1] for each in taken]
    else:
        rows = [channels_last(norm.check_input(x), axis, be) for x in xs]
    whole = sync.merged(
        [batch_norm_stats(part, backend=be) for part in blocks.split(rows)], int(np.prod(shape)) // shape[axis - 1], shape[axis - 1]
    )
    numbers = [
        one.numbers(x, whole, True) if isinstance(one, NormStep) else one.normalization(x, whole, True) for one, x in zip(runners, rows)
    ]
    results = [fused.normalization_forward(x, by, lead.epilogue, be) for x, by in zip(rows, numbers)]
    norm.follow([whole], True)
    saved = [result[1] for result in results]

    def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
        if isinstance(lead, NormStep):
            dys = [lead.as_product(dy) for dy in dys]
        else:
            dys = [channels_last(norm.check_gradient(dy, one.out_shape[0]), axis, be) for dy, one in zip(dys, saved)]
        if norm.use_batch_statistics:
            dxs = _backward(stages, norms, dys, saved, products, need_dx, overwrite, sync)
        else:
            dxs = _backward_of_constants(stages, norms, dys, saved, products, need_dx, sync)
        if dxs is None or not isinstance(lead, NormStep):
            return dxs and [channels_back(dx, axis, be) for dx in dxs]
        return [dx.reshape(len(dx), *lead.layers[0].input_shape) for dx in dxs]

    if not isinstance(lead, NormStep):
        return [channels_back(y, axis, be) for y, _ in results], back
    return [y.reshape(len(y), *lead.output_shape) for y, _ in results], back


def _backward(
    stages: Sequence[Any], norms: Sequence[BatchNorm], dys: list[Any], saved: Sequence[Any], products: Sequence[Any], need_dx: bool,
    overwrite: bool, sync: Sync,
) -> list[Any] | None:  # fmt: skip
    """The dx of blocks, whose rows the gradients of all slices reach."""
    blocks, be, sums = sync.blocks, sync.be, []
    smooth = stages[0].epilogue.smooth is not None
    gs = [be.empty(dy.shape, dy.dtype) for dy in dys] if smooth and not overwrite else dys
    for block, cut in blocks.places:
        sums.append(
            fused.normalization_sums(dys[block][cut], fused.rows_of_norm(saved[block], cut), gs[block][cut] if smooth else None)[1:]
        )
    coefficients = sync.coefficients(sums, [one.norm for one in saved], norms)
    own = smooth or overwrite  # dx may replace g, where there is no pool
    if not products:
        return [fused.normalization_input_gradient(g, one, coefficients, g if own else None) for g, one in zip(gs, saved)]
    own = own and not stages[0].epilogue.max_pool
    into = [g if own else be.empty(one.norm.x.shape, one.norm.x.dtype) for g, one in zip(gs, saved)]
    for (block, cut), member in zip(blocks.places, sync.members(stages)):
        dx = into[block][cut]
        fused.normalization_input_gradient(gs[block][cut], fused.rows_of_norm(saved[block], cut), coefficients, dx)
        fused.product_backward(dx, fused.rows_of_product(products[block], cut), member.layers[0].gradients(), False)
    return [fused.product_backward(dx, product, None, True) for dx, product in zip(into, products)] if need_dx else None


def _backward_of_constants(
    stages: Sequence[Any],
    norms: Sequence[BatchNorm],
    dys: list[Any],
    saved: Sequence[Any],
    products: Sequence[Any],
    need_dx: bool,
    sync: Sync,
) -> list[Any] | None:
    """The dx of blocks where the batch is normalised by the moving statistics: each slice by itself."""
    dxs = []
    for (block, cut), stage, norm in zip(sync.blocks.places, sync.members(stages), sync.members(norms)):
        one = fused.rows_of_norm(saved[block], cut)
        dx = fused.normalization_backward(dys[block][cut], one, norm.gradients())[0]
        if products:
            dx = fused.product_backward(dx, fused.rows_of_product(products[block], cut), stage.layers[0].gradients(), need_dx)
        dxs.append(dx)
    return sync.blocks.join(dxs) if need_dx else None


def _ghost(norms: Sequence[BatchNorm], xs: Sequence[Any], sync: Sync) -> tuple[list[Any], Back]:
    """With groups, which are within slices: they share the moving statistics alone."""
    lead, members = norms[0], sync.members(norms)
    taken = [norm.groups_of(x, True) for norm, x in zip(members, sync.blocks.split(xs))]
    whole = sync.gather([each[1] for each in taken])
    results = [norm.normalize(groups, stats, whole, True) for norm, (groups, stats) in zip(members, taken)]
    lead.follow(whole, True)

    def back(dys: Sequence[Any], need_dx: bool, overwrite: bool = False) -> list[Any] | None:
        dys = sync.blocks.split(dys)
        return sync.blocks.join([norm.backward(dy, one[1], need_dx) for norm, dy, one in zip(members, dys, results)])

    return sync.blocks.join([result[0] for result in results]), back
