"""Callbacks that pass on what training measures: to a CSV file, to an experiment tracker, to TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import augment, plots
from nbnet.augment import Normalize
from nbnet.errors import ArgumentError, DataError, ExtraError, ShapeError
from nbnet.functional import checks
from nbnet.preprocessing import check_labels
from nbnet.storage import write_file
from nbnet.training.callbacks.base import Callback

SHOWN = 8  # images of a picture


class CSVLogger(Callback):
    """Write the history to a CSV file after each epoch, one row per epoch.

    Args:
        path: the file, overwritten each time. DataError is raised where it cannot be written.
    """

    first_rank_only = True

    def __init__(self, path: str | Path) -> None:
        self.path = checks.path(path, "path", "history.csv")

    def on_epoch_end(self, trainer: Any) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["epoch", *trainer.history])
        writer.writerows([i, *row] for i, row in enumerate(zip(*trainer.history.values()), start=1))
        write_file(self.path, text.getvalue().encode())


class Logger(Callback):
    """Pass each column of the history on after each epoch, as run.log_metric(name, value, step=epoch).

    Args:
        run: any object with that method, such as the module mlflow, or an experiment of Comet.
    Raises:
        ArgumentError: it has no such method.
    """

    first_rank_only = True

    def __init__(self, run: Any) -> None:
        method = getattr(run, "log_metric", None)
        if not callable(method) or not checks.takes(method, "loss", 0.0, step=1):
            raise ArgumentError(f"run={run!r}: expected an object with log_metric(name, value, step=), such as the module mlflow")
        self.run = run

    def on_epoch_end(self, trainer: Any) -> None:
        for name, column in trainer.history.items():
            if not math.isnan(column[-1]):
                self.run.log_metric(name, column[-1], step=trainer.epoch)


class TensorBoard(Callback):
    """Write event files that TensorBoard shows (pip install 'nbnet[tensorboard]'), after each epoch.

    Scalars: the columns of the history. Histograms: parameters, the gradients of the last batch, and buffers, such as the moving
    statistics of batch norms. Pictures: what is given of the following.

    Args:
        folder: of the event files. A run that goes on after `Trainer.restore` goes on in the same folder.
        train: images (N, H, W, 1 or 3), of which the first 8 are shown as training sees them in the next epoch.
        validation: (x, y) with class numbers y, whose most confident mistakes are shown.
        class_names: for the mistakes; None for the numbers.
        histograms: whether there are histograms.
    Raises:
        ExtraError: tensorboardX, which writes the files, is not installed. ArgumentError: an option is wrong.
        ShapeError, DTypeError, DataError, when `fit` begins: images, labels or names do not fit, or the files cannot be written.
    """

    first_rank_only = True

    def __init__(
        self,
        folder: str | Path,
        *,
        train: Any = None,
        validation: tuple[Any, Any] | None = None,
        class_names: Any = None,
        histograms: bool = True,
    ) -> None:
        _writer_class()
        if validation is not None and not (isinstance(validation, (tuple, list)) and len(validation) == 2):
            raise ArgumentError(f"validation={type(validation).__name__}: expected a pair (x, y) of images and class numbers")
        self.folder = checks.path(folder, "folder", "runs/board")
        self.train, self.validation, self.class_names = train, validation, class_names
        self.histograms = bool(histograms)
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_writer": None}  # an open file cannot be copied

    def on_train_begin(self, trainer: Any) -> None:
        self._check(trainer)
        if self._writer is not None:  # an exception ended the last run
            self._writer.close()
        # What an earlier process wrote of later epochs is not shown any more; it may have begun in the same second, which names the file.
        options = {"purge_step": trainer.epoch + 1, "filename_suffix": f".{trainer.epoch}", "flush_secs": 10}
        try:
            self._writer = _writer_class()(str(self.folder), **options)
        except OSError as error:
            raise DataError(f"cannot write event files to {self.folder}: {error.strerror or error}") from error
        self._draw_augmented(trainer)

    def on_epoch_end(self, trainer: Any) -> None:
        epoch = trainer.epoch
        for name, column in trainer.history.items():
            self._writer.add_scalar(name, column[-1], epoch)
        if self.histograms:
            for name, param in trainer.model.params.items():
                self._writer.add_histogram(f"parameters/{name}", np.asarray(param.value), epoch)
                self._writer.add_histogram(f"gradients/{name}", np.asarray(param.grad), epoch)
            for name, array in trainer.model.buffers.items():
                self._writer.add_histogram(f"buffers/{name}", np.asarray(array), epoch)
        self._draw_augmented(trainer)
        self._draw_mistakes(trainer)
        self._writer.flush()

    def on_train_end(self, trainer: Any) -> None:
        self._writer.close()
        self._writer = None

    def _check(self, trainer: Any) -> None:
        """Nothing is trained, and no file is made, for pictures that cannot be drawn."""
        if self.train is not None:
            _check_images(self.train[:SHOWN] if hasattr(self.train, "__getitem__") else self.train, "train")
        if self.validation is None:
            return
        x, y = _check_images(self.validation[0], "x of validation"), np.asarray(self.validation[1])
        if y.shape != (len(x),):
            raise ShapeError(f"validation has {len(x)} images and labels of shape {y.shape}, expected ({len(x)},)")
        classes = trainer.model.output_shape[-1]
        check_labels(y, classes)
        names = self.class_names
        if names is not None and (isinstance(names, str) or not hasattr(names, "__len__") or len(names) != classes):
            raise ArgumentError(f"class_names={names!r}: expected {classes} names")

    def _draw_augmented(self, trainer: Any) -> None:
        """The images as the next epoch sees them."""
        if self.train is None:
            return
        transforms = [transform for transform in trainer.augment if not isinstance(transform, Normalize)]
        images = np.asarray(self.train[:SHOWN])
        seen = augment.apply(transforms, images, epoch=trainer.epoch, seed=trainer.seed)
        self._writer.add_images("augmented", np.clip(seen, 0, 1), trainer.epoch + 1, dataformats="NHWC")

    def _draw_mistakes(self, trainer: Any) -> None:
        if self.validation is None:
            return
        x, y = np.asarray(self.validation[0]), np.asarray(self.validation[1])
        probabilities = trainer.model.predict_proba(x)
        names = [str(c) for c in range(probabilities.shape[1])] if self.class_names is None else list(self.class_names)
        figure = plots.mistakes(x, y, probabilities.argmax(axis=1), probabilities, names)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        self._writer.add_image("mistakes", pixels, trainer.epoch, dataformats="HWC")


def _check_images(images: Any, name: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise ShapeError(f"{name} has shape {images.shape}, expected images (N, H, W, 1 or 3)")
    return images


def _writer_class() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ExtraError(f"TensorBoard needs tensorboardX ({error}): pip install 'nbnet[tensorboard]'") from None
    return SummaryWriter
