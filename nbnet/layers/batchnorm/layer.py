"""The batch normalisation layer: every dialect as a choice of statistics around the functional calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nbnet import functional as F
from nbnet.errors import ArgumentError, BuildError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.functional.activations import leaky_relu, named
from nbnet.functional.batchnorm import Normalization, by_statistics
from nbnet.functional.fused import Epilogue, Gradients, epilogue_of, normalization_backward, normalization_forward
from nbnet.layers.base import Layer, Shape
from nbnet.layers.batchnorm import groups as ghost
from nbnet.layers.batchnorm.axes import channels_back, channels_last, weights_last
from nbnet.layers.batchnorm.moving import MovingStatistics
from nbnet.layers.batchnorm.presets import PRESETS
from nbnet.layers.batchnorm.renorm import Renorm
from nbnet.runtime.arrays import float_dtype
from nbnet.runtime.commit import Call


class Groups(NamedTuple):
    """A batch, cut into groups that are normalised together."""

    rows: Any  # the batch, channels last
    weights: Any
    parts: list[tuple[slice, Any, Any]]  # of each group: where it is, its rows and their weights


class BatchNorm(Layer):
    """Normalise each channel by the statistics of the batch; in evaluation by their moving averages.

    y = act(gamma * (x - mean) / sqrt(var + eps) + beta)   (Ioffe and Szegedy 2015)

    Args:
        decay: the weight of the OLD moving value, 0 to 1; None is the cumulative average of all batches.
        eps: added to the variance.
        axis: the channels: -1 for NHWC, 1 for NCHW, or another axis, but not the batch's.
        center, scale: whether there is a beta, a gamma.
        unbiased: the moving variance averages the unbiased variance, as in the paper's algorithm 2 and PyTorch; False averages the
            biased one, as in Keras and Flax.
        unbiased_batch: the batch is also normalised by its unbiased variance.
        track, zero_debias, warm_decay, initial_var: see MovingStatistics.
        renorm: a Renorm, for batch renormalisation.
        virtual_batch_size: examples that are normalised together (ghost batches, Hoffer, Hubara and Soudry 2017); None is the batch.
        groups: "contiguous", or "strided" as in TensorFlow: of 8 examples in groups of 4, {0, 2, 4, 6} and {1, 3, 5, 7}.
        group_variance: the moving variance averages the "pooled" variance of the batch, or the "mean" of the groups', as in TensorFlow.
        update: "inline", or "deferred": forward only stores the update, and `apply_updates()` applies it; the next forward needs that.
        sync: in sliced training (`Trainer(comm=)` or `Trainer(slices=)`), whether a batch is normalised as one, by the statistics of all
            its slices; False: each slice by its own, and the moving statistics are the means of the slices'.
        activation: None, or the name of an activation, applied in the same pass: "relu", "leaky_relu" (of `slope`), "gelu", ...
            (nbnet.functional.activations.NAMED, with default options).
        stats_dtype: of the moving statistics; None is the layer's.
        gamma_initializer, beta_initializer: a name or a function (rng, shape) -> array.
        gamma_regularizer, beta_regularizer: see nbnet.regularizers.
        momentum: an error, since PyTorch and Keras use the word for opposite things.
    Three switches, attributes that can be set at any time and only affect forward(train=True):
        use_batch_statistics: normalise by the batch's statistics, or by the moving ones, as constants.
        update_statistics: whether the moving statistics are updated.
        trainable: whether optimisers change gamma and beta.
    Params: gamma (C,), beta (C,). Buffers: moving_mean (C,), moving_var (C,) (or moving_std), updates, and those of the options.
    """

    def __init__(
        self,
        decay: float | None = 0.9,
        eps: float = 1e-5,
        *,
        axis: int = -1,
        center: bool = True,
        scale: bool = True,
        unbiased: bool = True,
        unbiased_batch: bool = False,
        track: str = "variance",
        zero_debias: bool | str = False,
        warm_decay: bool = False,
        initial_var: float = 1.0,
        renorm: Renorm | None = None,
        virtual_batch_size: int | None = None,
        groups: str = "contiguous",
        group_variance: str = "pooled",
        update: str = "inline",
        sync: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        stats_dtype: Any = None,
        gamma_initializer: Any = "ones",
        beta_initializer: Any = "zeros",
        gamma_regularizer: Any = None,
        beta_regularizer: Any = None,
        momentum: Any = None,
    ) -> None:
        super().__init__()
        if momentum is not None:
            raise ArgumentError(
                f"momentum={momentum!r} is ambiguous: in PyTorch it is the weight of the new value, in Keras of the old one; "
                f"use decay=, the weight of the old moving value (PyTorch's 0.1 is decay=0.9, Keras's 0.99 is decay=0.99)"
            )
        checks.number(eps, "eps", "a number above 0, or a constant channel divides 0 by 0", lambda eps: 0 < eps < float("inf"))
        for name, value, known in (
            ("groups", groups, ("contiguous", "strided")),
            ("group_variance", group_variance, ("pooled", "mean")),
            ("update", update, ("inline", "deferred")),
        ):
            if value not in known:
                raise ArgumentError(unknown(name, value, map(str, known)))
        named(activation)
        if virtual_batch_size is not None:
            virtual_batch_size = checks.whole(virtual_batch_size, "virtual_batch_size")
        if (gamma_regularizer is not None and not scale) or (beta_regularizer is not None and not center):
            raise ArgumentError("got a regularizer for a parameter that scale=False or center=False leaves out: drop one of the two")
        if renorm is not None and not isinstance(renorm, Renorm):
            raise ArgumentError(f"renorm={renorm!r}: expected nb.Renorm(rmax=3, dmax=5) or None")
        self.moving = MovingStatistics(decay, warm_decay, track, zero_debias, initial_var, eps)
        self.eps = eps
        self.axis = axis
        self.center = center
        self.scale = scale
        self.ddof_moving = int(unbiased)
        self.ddof_batch = int(unbiased_batch)
        self.renorm = renorm
        self.virtual_batch_size = virtual_batch_size
        self.strided = groups == "strided"
        self.pooled = group_variance == "pooled"
        self.deferred = update == "deferred"
        self.sync = bool(sync)
        self.activation = activation
        self.slope = slope
        self.stats_dtype = None if stats_dtype is None else float_dtype(stats_dtype)
        self.initializers = {"gamma": gamma_initializer, "beta": beta_initializer}
        self.regularizers = {"gamma": gamma_regularizer, "beta": beta_regularizer}
        self.use_batch_statistics = True
        self.update_statistics = True
        self.observer: Callable[[F.Stats], None] | None = None
        self._trainable = True
        self._pending: list[F.Stats] | None = None  # the statistics of a deferred update

    @classmethod
    def preset(cls, name: str, **options: Any) -> BatchNorm:
        """Batch norm as "pytorch", "keras", "tf_contrib", "flax", "cs231n" or "sigma" means it; options override the preset's."""
        if not isinstance(name, str) or name not in PRESETS:
            raise ArgumentError(unknown("batch-norm preset", name, PRESETS))
        return cls(**(PRESETS[name] | options))

    def create(self, input_shape: Shape) -> Shape:
        axes = len(input_shape) + 1
        if not -axes < self.axis < axes or self.axis % axes == 0:
            raise ShapeError(
                f"BatchNorm(axis={self.axis}) on a batch of {input_shape}: expected an axis other than the batch's, 1 to {axes - 1}"
            )
        self.channel_axis = self.axis % axes
        channels = input_shape[self.channel_axis - 1]
        for name, present in (("gamma", self.scale), ("beta", self.center)):
            if present:
                self.add_param(name, (channels,), self.initializers[name], self.regularizers[name])
        self.trainable = self._trainable
        self.moving.create(self.add_buffer, channels, self.stats_dtype)
        if self.renorm is not None and self.renorm.decay is not None:
            self.add_buffer("renorm_mean", np.zeros(channels), self.stats_dtype)
            self.add_buffer("renorm_std", np.full(channels, self.moving.initial_var**0.5), self.stats_dtype)
        self._pending = None
        return input_shape

    @property
    def decay(self) -> float | None:
        """The weight of the old moving value."""
        return self.moving.decay

    @property
    def trainable(self) -> bool:
        """Whether optimisers change gamma and beta."""
        return all(param.trainable for param in self._params.values()) if self._params else self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = value
        for param in self.params.values():
            param.trainable = value

    def freeze(self) -> None:
        """Use the moving statistics, do not update them, and fix gamma and beta, as Keras's trainable=False does."""
        self.use_batch_statistics = self.update_statistics = self.trainable = False

    def unfreeze(self) -> None:
        """Undo freeze."""
        self.use_batch_statistics = self.update_statistics = self.trainable = True

    # ------------------------------------------------------------------------------------------------ the pair

    def forward(self, x: Any, train: bool = False, weights: Any = None) -> tuple[Any, Any]:
        """y, saved.

        Args:
            weights: at least 0; a mask is 0 and 1. Of x's rank, they broadcast against x; of a lower rank, they lack its last axes
                and the channels': (N,) weighs examples, (N, H, W) pixels.
        """
        groups, stats = self.groups_of(x, train, weights)
        y, saved = self.normalize(groups, stats, stats, train)
        self.follow(stats, train)
        return y, saved

    def groups_of(self, x: Any, train: bool, weights: Any = None) -> tuple[Groups, list[F.Stats]]:
        """The groups of a batch, and their statistics, where forward needs them."""
        x = self.check_input(x)
        self._check_pending()
        rows = channels_last(x, self.channel_axis, self.backend)
        weights = None if weights is None else weights_last(weights, rows.shape, self.channel_axis, self.dtype)
        size = self.virtual_batch_size if self.needs_statistics(train) else None
        parts = [(where, *self._part(rows, weights, where)) for where in ghost.slices(len(x), size, self.strided)]
        stats: list[F.Stats] = []
        if self.needs_statistics(train):
            stats = [F.batch_norm_stats(part, w, backend=self.backend) for _, part, w in parts]
        return Groups(rows, weights, parts), stats

    def normalize(self, groups: Groups, stats: list[F.Stats], whole: list[F.Stats], train: bool) -> tuple[Any, Any]:
        """y, saved.

        Args:
            stats: what each group is normalised by. whole: of all groups of the batch, for renormalisation.
        """
        rows, weights, parts = groups
        by_batch = self._by_batch(train)
        if not by_batch:
            parts = [(slice(None), rows, weights)]
        correction = self._correction(whole) if by_batch else None
        numbers = [self._normalization(part, stats[i] if by_batch else None, w, correction) for i, (_, part, w) in enumerate(parts)]
        results = [normalization_forward(part, by, self.epilogue, self.backend) for (_, part, _), by in zip(parts, numbers)]
        y = self._join(rows.shape, parts, [result[0] for result in results])
        saved = tuple((where, result[1]) for (where, _, _), result in zip(parts, results))
        return channels_back(y, self.channel_axis, self.backend), saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy = channels_last(self.check_gradient(dy, sum(part.out_shape[0] for _, part in saved)), self.channel_axis, self.backend)
        parts = [(where, self.backend.place(dy[where]), part) for where, part in saved]
        if len(parts) == 1:
            dx, _, _ = normalization_backward(parts[0][1], parts[0][2], self.gradients())
            return channels_back(dx, self.channel_axis, self.backend)
        results = [normalization_backward(part_dy, part, Gradients()) for _, part_dy, part in parts]
        for i, name in enumerate(("gamma", "beta"), start=1):
            if name in self.params:
                self._add_up(self.params[name].grad, [result[i] for result in results])
        dx = self._join(dy.shape, parts, [result[0] for result in results])
        return channels_back(dx, self.channel_axis, self.backend)

    def gradients(self) -> Gradients:
        """Arrays that the gradients of gamma and beta go into."""
        return Gradients(gamma=self.params["gamma"].grad if self.scale else None, beta=self.params["beta"].grad if self.center else None)

    def _add_up(self, total: Any, parts: list[Any]) -> None:
        """total = the sum of the groups' gradients."""
        total[:] = parts[0]
        for part in parts[1:]:
            self.backend.kernel("array.add")(total, part, total)

    # ------------------------------------------------------------------- what forward is made of; fused steps use it too

    def needs_statistics(self, train: bool) -> bool:
        """Whether forward needs the statistics of x."""
        return self._by_batch(train) or (train and self.update_statistics)

    def normalization(self, x: Any, stats: F.Stats | None, train: bool) -> Normalization:
        """What x, all of it one group, is normalised by: its statistics, or the moving ones."""
        self._check_pending()
        by_batch = self._by_batch(train)
        correction = self._correction([stats]) if by_batch and stats is not None else None
        return self._normalization(x, stats if by_batch else None, None, correction)

    def follow(self, stats: list[F.Stats], train: bool) -> None:
        """Update the moving statistics, or an observer, with the statistics of the groups."""
        if self.observer is not None:
            self.observer(F.merge_stats(stats))
        if train and self.update_statistics:
            if any(s.least <= self.ddof_moving for s in stats):
                raise ShapeError(
                    f"layer {self.name}: one value per channel has no unbiased variance; train on a larger batch, or use unbiased=False"
                )
            if self.deferred:
                self._pending = stats
            else:
                self._update(stats)

    def _normalization(self, x: Any, stats: F.Stats | None, weights: Any, correction: F.Correction | None) -> Normalization:
        gamma = self.params["gamma"].value if self.scale else None
        beta = self.params["beta"].value if self.center else None
        if stats is None:
            mean, var, eps = self.moving.read(self._buffers)
            return Normalization(None, mean, var, 1.0, gamma, beta, eps, weights)
        return by_statistics(x.shape, stats, gamma, beta, self.eps, weights, self.ddof_batch, correction)

    def _check_pending(self) -> None:
        if self._pending is not None:
            raise BuildError(
                f"layer {self.name} has a deferred update of its moving statistics: call apply_updates() after each training step"
            )

    def _by_batch(self, train: bool) -> bool:
        return self.use_batch_statistics if train else self.observer is not None

    @property
    def replayable(self) -> bool:
        """Not with what NumPy computes, or with numbers that change from step to step."""
        plain = self.virtual_batch_size is None and self.renorm is None and self.observer is None and not self.deferred
        return plain and self.moving.can_repeat(self.backend) and (self.use_batch_statistics or self.moving.spread == "moving_var")

    def settings(self) -> list[Callable[[], Iterable[Any]]]:
        return [*super().settings(), vars(self.moving).values]

    @property
    def epilogue(self) -> Epilogue:
        """The layer's own activation, in the same pass."""
        return epilogue_of(leaky_relu(self.slope) if self.activation == "leaky_relu" else named(self.activation))

    @property
    def fuses(self) -> bool:
        """Whether a fused step may run this layer: the channels are last, and there is one group."""
        return self.normalizes_last_axis and self.virtual_batch_size is None

    @property
    def normalizes_last_axis(self) -> bool:
        """Whether the channels are the last axis, as dense and convolution layers have them."""
        return self.channel_axis == len(self.input_shape or ())

    # ------------------------------------------------------------------------------------------------- helpers

    def _part(self, rows: Any, weights: np.ndarray | None, where: slice) -> tuple[Any, np.ndarray | None]:
        if where == slice(None):
            return rows, weights
        return self.backend.place(rows[where]), None if weights is None else np.ascontiguousarray(weights[where])

    def _join(self, shape: Shape, parts: list[Any], arrays: list[np.ndarray]) -> np.ndarray:
        if len(arrays) == 1:
            return arrays[0]
        whole = self.backend.empty(shape, self.dtype)
        for (where, *_), array in zip(parts, arrays):
            whole[where] = array
        return whole

    # ---------------------------------------------------------------------------------------- moving statistics

    def _correction(self, stats: list[F.Stats]) -> F.Correction | None:
        """Renormalisation's r and k for the whole batch, from the averages before its update. None while an observer is set: it
        needs the values that evaluation will produce."""
        renorm, buffers = self.renorm, self._buffers
        if renorm is None or self.observer is not None:
            return None
        mean, std = self._mean_and_std(stats)
        if renorm.decay is None:
            moving_mean, moving_var, eps = self.moving.read(buffers)
            moving_mean, moving_std = np.asarray(moving_mean), np.sqrt(np.asarray(moving_var, np.float64) + eps)
        else:
            moving_mean, moving_std = np.asarray(buffers["renorm_mean"]), np.maximum(np.asarray(buffers["renorm_std"]), self.eps**0.5)
        return renorm.correct(int(buffers["updates"][0]), mean, std, moving_mean, moving_std)

    def _mean_and_std(self, stats: list[F.Stats]) -> tuple[np.ndarray, np.ndarray]:
        """Of the batch, as renormalisation compares them with their averages."""
        mean, m2, divisor = ghost.combine(stats, self.pooled, self.ddof_batch)
        return np.asarray(mean), np.sqrt(np.asarray(m2) / divisor + self.eps)

    def assign_statistics(self, stats: F.Stats) -> None:
        """Set the moving statistics, and renormalisation's averages, as if rows of these statistics had been all the data."""
        self.moving.assign(self._buffers, stats.mean, stats.variance(self.ddof_moving))
        if "renorm_mean" in self._buffers:
            for name, value in zip(("renorm_mean", "renorm_std"), self._mean_and_std([stats])):
                self._buffers[name][:] = value

    def waiting_updates(self) -> list[Call]:
        return [partial(setattr, self, "_pending", self._pending)] if self.deferred or self._pending is not None else []

    def apply_updates(self) -> None:
        """Make the deferred update of the moving statistics, if there is one. The Trainer calls this after each step."""
        if self._pending is not None:
            stats, self._pending = self._pending, None
            self._update(stats)

    def _update(self, stats: list[F.Stats]) -> None:
        """Update the moving statistics, and renormalisation's averages."""
        if self.renorm is not None and self.renorm.decay is not None:
            d = self.renorm.decay
            for name, value in zip(("renorm_mean", "renorm_std"), self._mean_and_std(stats)):
                self._buffers[name][:] = d * np.asarray(self._buffers[name]) + (1 - d) * value
        self.moving.update(self._buffers, *ghost.combine(stats, self.pooled, self.ddof_moving), self.backend)
