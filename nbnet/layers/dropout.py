"""Dropout layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.functional.dropout import VARIANTS, check_noise_shape, check_rate, counter_of_part, dropout_at, dropout_backward
from nbnet.layers.base import Layer, Shape


class Dropout(Layer):
    """Drop each element with probability `rate` in training.

    Args:
        rate: the probability to DROP, 0 to 1.
        variant: "inverted": kept elements are divided by 1 - rate, evaluation is the identity (Srivastava et al. 2014);
            "vanilla": evaluation multiplies by 1 - rate instead; "alpha": for SELU (Klambauer et al. 2017).
        noise_shape: an axis of size 1 shares one decision; None is x's size: (None, 1, 1, None) drops whole channels of each
            image. The batch axis comes first.
        spatial: True is short for noise_shape=(None, 1, ..., 1, None)   (Tompson et al. 2015).
        seed: None follows the model's seed.
    Buffers: seed, and step, the number of training passes so far, so that every pass has its own mask. The mask is a
    function of (seed, layer, step, element): backward recomputes it and stores no array, and a resumed run continues with the
    same masks. `fixed_mask = True` keeps the step, and so the mask, the same.
    """

    _attributes = {"seed": "_own_seed"}  # `seed` is the model's

    def __init__(
        self,
        rate: float,
        variant: str = "inverted",
        noise_shape: tuple[int | None, ...] | None = None,
        spatial: bool = False,
        seed: int | None = None,
    ):
        super().__init__()
        self.rate = check_rate(rate)
        if variant not in VARIANTS:
            raise ArgumentError(unknown("dropout variant", variant, VARIANTS))
        if spatial and noise_shape is not None:
            raise ArgumentError("spatial=True is a noise_shape: expected one of the two")
        if seed is not None:
            checks.whole(seed, "seed", 0, (1 << 64) - 1)
        self.variant = variant
        self.noise_shape = noise_shape
        self.spatial = spatial
        self.fixed_mask = False
        self.first_row: int | None = None  # of x in a larger batch, whose mask it gets
        self._own_seed = seed

    def create(self, input_shape: Shape) -> Shape:
        if self.spatial:
            self.noise_shape = (None, *(1 for _ in input_shape[:-1]), input_shape[-1])
        if self.noise_shape is not None:
            fits = len(self.noise_shape) == len(input_shape) + 1
            if not fits or any(n not in (None, 1, size) for n, size in zip(self.noise_shape[1:], input_shape)):
                expected = ", ".join(map(str, input_shape))
                raise ShapeError(f"Dropout(noise_shape={self.noise_shape}) does not fit (N, {expected}): expected its sizes, None or 1")
        self.add_buffer("seed", [self.seed if self._own_seed is None else self._own_seed], np.uint64, on_host=True)
        self.add_buffer("step", [0], np.int64, on_host=True)
        return input_shape

    @property
    def replayable(self) -> bool:
        """Not with shared decisions, which are made on the host."""
        return self.noise_shape is None

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        noise_shape = None
        if self.noise_shape is not None:
            noise_shape = check_noise_shape(tuple(n or size for n, size in zip(self.noise_shape, x.shape)), x.shape)
        y, saved = dropout_at(x, self.rate, self.next_counter(train), self.variant, noise_shape, train, self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return dropout_backward(dy, saved)

    def next_counter(self, train: bool) -> np.ndarray:
        """The counter of this pass's random numbers: seed, stream, step (see `dropout_at`). A training pass advances the step."""
        of_batch = self.first_row is None or (self.noise_shape is not None and self.noise_shape[0] is not None)
        counter = np.empty(3, np.uint64) if of_batch else counter_of_part(self.first_row or 0, self.output_shape)
        step = self._buffers["step"]
        outputs = [counter[0:1], counter[1:2], counter[2:3], *([step] if train and not self.fixed_mask else [])]
        self.backend.channelwise(_count, outputs, self._buffers["seed"], self.stream, step)
        return counter


def _count(seed: Any, stream: Any, step: Any) -> Any:
    """The counter of this pass (seed, stream, step), and the step of the next."""
    return seed, stream, step & 0xFFFFFFFF, step + 1
