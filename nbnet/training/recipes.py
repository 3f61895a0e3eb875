"""Recipes: everything that a training run needs beside the model and the data, tuned for a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet import augment, losses, schedules
from nbnet.errors import ArgumentError, BuildError, DTypeError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.initializers import whitening
from nbnet.layers import Sequential
from nbnet.optimizers import SGD, Muon, Optimizer
from nbnet.runtime.arrays import X_DTYPES
from nbnet.training.averages import Lookahead
from nbnet.training.freezing import freeze
from nbnet.training.trainer import Trainer

WHITENED = 5000  # images that are enough to whiten patches


def airbench(
    model: Sequential,
    images: Any,
    *,
    batch_size: int = 256,
    optimizer: str = "sgd",
    seed: int = 0,
    comm: Any = None,
    slices: int | None = None,
    wire: str | None = None,
) -> Trainer:
    """The recipe of "94% on CIFAR-10 in 3.29 seconds" (Jordan 2024) for nb.models.airbench: 10 epochs, or as few as 3.

        model = nb.models.airbench()
        model.build(x.shape[1:])
        trainer = nb.recipes.airbench(model, x)
        trainer.fit((x, y), epochs=10, batch_size=256)

    Standardised pixels, a frozen whitening convolution, label smoothing 0.2, Nesterov's momentum 0.85 with a triangular learning rate,
    64 times as high for biases, Lookahead, and images that are moved by up to 2 pixels and mirrored in every second epoch.

    Args:
        model: a built nb.models.airbench, or another one whose layers "standardize" (a BatchNorm without gamma and beta), "whiten" and
            "head" are like its.
        images: the training images (N, H, W, C), uint8, float32 or float64, for the statistics of pixels and patches.
        batch_size: of `fit`; the learning rate is proportional to it.
        optimizer: "sgd", or "muon", whose steps for the convolutions are orthogonal.
        seed: of the shuffling and the augmentation.
        comm, slices, wire: of the Trainer.
    Raises:
        BuildError: the model is not built. ArgumentError: it has not these layers, or an option is unknown; nothing has changed.
        ShapeError, DTypeError: the images do not fit.
    """
    if model.input_shape is None:
        raise BuildError("the model is not built yet: call model.build(input_shape) before nb.recipes.airbench(model, x)")
    names = [layer.name for layer in model.layers]
    for name in ("standardize", "whiten", "head"):
        if name not in names:
            raise ArgumentError(f"the model has no layer {name!r}: expected nb.models.airbench(), or layers with its names")
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(unknown("optimizer", optimizer, OPTIMIZERS))
    update = OPTIMIZERS[optimizer](checks.whole(batch_size, "batch_size"))
    pixels = 2 / min(model.input_shape[:2])
    trainer = Trainer(
        model,
        losses.SoftmaxCrossEntropy(label_smoothing=0.2),
        update,
        schedule=schedules.piecewise(((0.0, 0.2), (0.23, 1.0), (1.0, 0.07))),
        average=Lookahead(every=5, weight=0.5),
        augment=[augment.RandomFlip(alternating=True), augment.RandomTranslate(pixels, mode="reflect")],
        seed=seed,
        comm=comm,
        slices=slices,
        wire=wire,
    )
    _prepare(model, images)  # last: it changes the model, and what fails before changes nothing
    return trainer


def _prepare(model: Sequential, images: Any) -> None:
    """Set and freeze the statistics of the pixels and the whitening filters."""
    if not hasattr(images, "dtype"):
        images = checks.as_array(images, "images")
    if tuple(images.shape[1:]) != model.input_shape or not len(images):
        expected = ", ".join(map(str, model.input_shape or ()))
        raise ShapeError(f"images have shape {tuple(images.shape)}, expected (N, {expected}) with N at least 1")
    if images.dtype not in X_DTYPES:
        raise DTypeError(f"images have dtype {images.dtype}, expected uint8, float32 or float64")
    rows = np.linspace(0, len(images) - 1, min(WHITENED, len(images))).astype(np.int64)  # of all classes, which may be in order
    some = np.asarray(images[rows], np.float64) / (255 if images.dtype == np.uint8 else 1)
    mean, deviation = some.mean(axis=(0, 1, 2)), some.std(axis=(0, 1, 2))
    whitening(model["whiten"], (some - mean) / np.maximum(deviation, 1e-6))
    standardize = model["standardize"]
    standardize.buffers["moving_mean"][...] = mean
    standardize.buffers["moving_var"][...] = deviation**2
    freeze(model, "standardize")


# The learning rate of the paper is for the sum over 1024 images, and includes the gain of the momentum, 1 + 1 / (1 - 0.85).
MOMENTUM, DECAY, BIAS_SCALE, HEAD = 0.85, 0.0153 / 11.5, 64.0, 1 / 9
LR = 11.5 / 1024 / (1 + 1 / (1 - MOMENTUM))
BIASES = {"lr_scale": BIAS_SCALE, "weight_decay": DECAY / BIAS_SCALE}


def _sgd(batch_size: int) -> Optimizer:
    # the paper divides the logits by 9; a head whose weights are 9 times as small takes steps that are 81 times as small
    head = {"lr_scale": HEAD**2, "weight_decay": DECAY / HEAD**2}
    groups: dict[str, Any] = {"*.bias": BIASES, "*.beta": BIASES, "head": head}
    return SGD(LR * batch_size, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY, groups=groups)


def _muon(batch_size: int) -> Optimizer:
    return Muon(0.02 * (batch_size / 256) ** 0.5, momentum=0.85, adam_scale=0.1, groups={"head": {"adam": True}})


OPTIMIZERS: dict[str, Callable[[int], Optimizer]] = {"sgd": _sgd, "muon": _muon}
RECIPES: dict[str, Callable[..., Trainer]] = {"airbench": airbench}
