"""nbnet train: train on a data set and write a run folder with the model and pictures."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import signal
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import augment, datasets, models, plots, schedules, schema, storage
from nbnet.cli import kernels, runs
from nbnet.cli.display import Display
from nbnet.cli.interrupts import stopper
from nbnet.datasets import Dataset, Split
from nbnet.errors import ArgumentError, CheckpointError, DataError, NonFiniteError, unknown
from nbnet.layers import Sequential
from nbnet.optimizers import OPTIMIZERS, Optimizer
from nbnet.runtime.arrays import float_dtype
from nbnet.runtime.backend import get_backend
from nbnet.training import recipes
from nbnet.training.callbacks import Callback
from nbnet.training.epoch import count_batches
from nbnet.training.notes import rate_jump
from nbnet.training.recipes import RECIPES
from nbnet.training.trainer import Trainer
from nbnet.version import __version__

HELP = "Train a CNN and save it in a run folder."
EPILOG = """examples:
  nbnet train                                        the digits that come with nbnet: seconds
  nbnet train --data mnist --data-dir my/mnist       your own copy of the files; without --data-dir they are downloaded
  nbnet train --data cifar10 --model resnet9 --epochs 20
  nbnet train --data mnist --augment crop,affine     training images that differ in each epoch; --augment none for none
  nbnet train --data cifar10 --recipe airbench       the recipe of a speed record
  nbnet train --data photos --size 64                photos/cat/*.jpg, photos/dog/*.jpg: your own classes;
                                                     or photos/train/cat/*.jpg, photos/val/cat/*.jpg, photos/test/cat/*.jpg, ...
  nbnet train --resume runs/mnist-lenet-1            continue a stopped run; Ctrl-C stops a run cleanly
  nbnet train --resume runs/mnist-lenet-1 --epochs 10

A run folder contains config.json, model.safetensors, history.json, curves.png, confusion.png, mistakes.png, and
augmented.png where training images are changed (--augment)."""

COMMON: dict[str, Any] = {
    "model": "auto",
    "batch_size": 64,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "augment": "none",
    "backend": "parallel",
    "dtype": "float32",
    "seed": 0,
}
LR_SCALES = {"lion": 0.1}  # of the default learning rates, which are adamw's: a step of Lion is as large as any of Adam's
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 40, "lr": 0.02},
    "mnist": {"epochs": 5, "lr": 0.003, "batch_size": 32},
    "fashion-mnist": {"epochs": 5, "lr": 0.003, "batch_size": 32},
    "cifar10": {"epochs": 10, "lr": 0.01, "augment": "flip,crop"},
    "a folder": {"epochs": 20, "lr": 0.01, "augment": "crop", "size": (32, 32)},  # not flip: a mirrored letter or arrow is another one
}
OF_RECIPE: dict[str, Any] = {  # what a recipe uses in place of these defaults, and what of it cannot be chosen
    "model": "airbench",
    "epochs": 10,
    "batch_size": 256,
    "optimizer": "sgd",
    "schedule": "piecewise",
    "augment": "flip,translate",
}
FIXED = ("model", "lr", "weight_decay", "schedule", "augment")
SMALLEST = 25  # pixels of an image's side, for the model of the recipe
ADAMW_DECAY = 0.3
SHOWN = 8  # images, and epochs, of augmented.png
COLD = "compiling kernels (once, about a minute; later runs start at once)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Every default is None, to distinguish options that were given from those that were not."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="NAME", help=f"{', '.join(datasets.NAMES)}, or the path of a folder of images (default: digits)")
    data.add_argument("--data-dir", metavar="DIR", help="folder with the files of mnist, fashion-mnist or cifar10 (default: download them)")
    data.add_argument("--size", type=_size, metavar="N|HxW", help="size that the images of a folder are resized to (default: 32)")
    model = parser.add_argument_group("training")
    model.add_argument("--model", metavar="NAME", help=f"auto, {', '.join(models.MODELS)} (default: auto, by the size of the images)")
    model.add_argument(
        "--recipe", metavar="NAME", help=f"model and training as somebody has tuned them: {', '.join(RECIPES)}; with optimizer sgd or muon"
    )
    model.add_argument("--epochs", type=int, metavar="N", help=f"passes over the data (default: {_by_data('epochs')})")
    model.add_argument("--batch-size", type=int, metavar="N", help=f"images per step (default: {_by_data('batch_size')})")
    model.add_argument(
        "--lr", type=float, metavar="X", help=f"learning rate, the peak of the schedule (default: {_by_data('lr')}; for lion a tenth)"
    )
    model.add_argument("--optimizer", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (default: adamw)")
    model.add_argument("--weight-decay", type=float, metavar="X", help=f"of the optimizer (default: {ADAMW_DECAY} for adamw, else 0)")
    model.add_argument("--schedule", metavar="NAME", help=f"of the learning rate: {', '.join(schedules.SCHEDULES)} (default: one_cycle)")
    model.add_argument(
        "--augment", metavar="LIST", help=f"changes of the training images: {', '.join(augment.NAMES)} (default: {_by_data('augment')})"
    )
    model.add_argument("--seed", type=int, metavar="N", help="of the weights, the shuffling and the dropout (default: 0)")
    model.add_argument("--backend", metavar="NAME", help="parallel, serial, numpy or cuda (default: parallel)")
    model.add_argument("--dtype", metavar="NAME", help="float32 or float64 (default: float32)")
    run = parser.add_argument_group("run folder")
    run.add_argument("--out", metavar="DIR", help="a new folder for the run (default: runs/DATA-MODEL-1, -2, ...)")
    run.add_argument("--resume", metavar="RUN", help="continue this run; only --epochs, the new total, may be given with it")


def run(options: argparse.Namespace) -> int:
    """The command."""
    began = time.perf_counter()
    given = {name: value for name, value in vars(options).items() if value is not None and name != "command"}
    config, data = _resumed(given) if "resume" in given else _new(given)
    (x, y), test, class_names = data
    validation = _validation(config, test)
    model = config.build()
    trainer = _trainer(config, model, x)
    if "resume" in given:
        folder = Path(given["resume"])
        trainer.restore(folder / runs.MODEL)
        if trainer.epoch >= config.epochs and (folder / "mistakes.png").exists():
            raise ArgumentError(f"the run {folder} is complete after {trainer.epoch} epochs; to continue, give a larger --epochs")
    shape = "x".join(map(str, config.image_shape))
    also = "" if validation is test else f", {len(validation[0]):,} validation"
    counts = f"{len(x):,} training{also} and {len(test[0]):,} test images"
    print(f"data: {Path(config.data).name}, {counts} of {shape}, {len(class_names)} classes")
    print(f"model: {config.model}")
    model.summary()
    _prepare(config, min(2, config.batch_size, len(x)))
    if "resume" not in given:
        folder = runs.make_folder(given.get("out"), config.data, config.model)
    storage.write_json(folder / runs.CONFIG, dataclasses.asdict(config))
    if (jump := rate_jump(trainer, config.epochs, count_batches(len(x), config.batch_size))) is not None:
        print(f"note: {jump}")
    print(f"run: {folder}, from epoch {trainer.epoch + 1} of {config.epochs}" if trainer.epoch or trainer.step else f"run: {folder}")
    if config.augment:
        _draw_augmented(trainer, x, folder)
    stopped_by = _fit(trainer, config, folder, (x, y), validation, "test" if validation is test else "val")
    if trainer.epoch < config.epochs:
        print(f"stopped in epoch {trainer.epoch + 1} of {config.epochs}; the run is saved. To continue:")
        print(f"  nbnet train --resume {runs.quoted(folder)}")
        return 128 + (stopped_by or signal.SIGINT)
    _report(model, test, class_names, folder)
    print(f"run: {folder}, with its model, history and pictures, in {time.perf_counter() - began:.1f} s")
    print(f"to use it: nbnet predict {runs.quoted(folder)} IMAGE...")
    return 0


# ------------------------------------------------------------------------------------------------------ settings


def _new(given: dict[str, Any]) -> tuple[runs.Config, Dataset]:
    """The configuration and data of a new run. Names are checked before any data is read."""
    name = given.get("data", "digits")
    defaults = COMMON | DEFAULTS[name if name in datasets.NAMES else "a folder"]
    options = defaults | (_of_recipe(given) if "recipe" in given else {}) | given
    if "lr" not in given:
        options["lr"] *= LR_SCALES.get(options["optimizer"], 1)
    options.setdefault("weight_decay", ADAMW_DECAY if options["optimizer"] == "adamw" else 0.0)
    for kind, known in (("model", ["auto", *models.MODELS]), ("optimizer", OPTIMIZERS), ("schedule", schedules.SCHEDULES)):
        if options[kind] not in known:
            raise ArgumentError(unknown(kind, options[kind], known))
    names = [] if options["augment"] == "none" else [each.strip() for each in options["augment"].split(",")]
    for each in names:
        if each not in augment.NAMES:
            raise ArgumentError(unknown("transform", each, ["none", *augment.NAMES]))
    if "recipe" in given:
        update = recipes.OPTIMIZERS[options["optimizer"]](options["batch_size"])
        options |= {"lr": update.lr, "weight_decay": update.weight_decay}
    _check_numbers(options)
    runs.check_out(given.get("out"))
    get_backend(options["backend"])
    dtype = float_dtype(options["dtype"]).name
    if name not in datasets.NAMES:
        name = os.path.abspath(os.path.expanduser(name)) if os.path.exists(os.path.expanduser(name)) else name
    data_dir = None if "data_dir" not in given else os.path.abspath(os.path.expanduser(given["data_dir"]))
    data = datasets.open_data(name, data_dir, size=options.get("size"))
    (height, width, channels), class_names = data[0][0].shape[1:], data[2]
    augment.get(names, (height, width, channels))
    if "recipe" in given and (channels != 3 or min(height, width) < SMALLEST):
        raise ArgumentError(
            f"--recipe {given['recipe']} is for RGB images of at least {SMALLEST}x{SMALLEST} pixels, got {height}x{width}x{channels}: use "
            "--data cifar10, or a folder of photos with --size 32"
        )
    settings = dict(
        nbnet=__version__,
        data=name,
        data_dir=data_dir,
        size=options.get("size"),
        checksum=_checksum(data),
        image_shape=(height, width, channels),
        class_names=class_names,
        model=models.choose(options["model"], (height, width, channels)),
        recipe=options.get("recipe"),
        augment=names,
        dtype=dtype,
        **{key: options[key] for key in ("epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "backend", "seed")},
    )
    return runs.new_config(settings), data


def _of_recipe(given: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a recipe, which fixes some options."""
    name = given["recipe"]
    if name not in RECIPES:
        raise ArgumentError(unknown("recipe", name, RECIPES))
    for option in FIXED:
        if option in given:
            raise ArgumentError(f"--{option.replace('_', '-')} is a part of the recipe {name}: leave it out")
    if given.get("optimizer", "sgd") not in recipes.OPTIMIZERS:
        raise ArgumentError(unknown("optimizer", given["optimizer"], recipes.OPTIMIZERS))
    return OF_RECIPE


def _resumed(given: dict[str, Any]) -> tuple[runs.Config, Dataset]:
    """The configuration and data of a resumed run."""
    other = sorted(given.keys() - {"resume", "epochs"})
    if other:
        raise ArgumentError(f"--{other[0].replace('_', '-')} cannot change when a run is resumed: give only --resume and --epochs")
    folder = Path(given["resume"])
    config = runs.read_config(folder)
    if not (folder / runs.MODEL).is_file():
        raise CheckpointError(f"{folder} has no {runs.MODEL}: there is nothing to resume; start it again with nbnet train --out {folder}")
    before = config.epochs
    config = dataclasses.replace(config, epochs=given.get("epochs", before))
    _check_numbers(dataclasses.asdict(config))
    data = datasets.open_data(config.data, config.data_dir, size=config.size)
    if _checksum(data) != config.checksum:
        raise DataError(f"{config.data} has other images or labels than when {folder} was started: a run must be resumed on the same data")
    return config, data


def _validation(config: runs.Config, test: Split) -> Split:
    """What is evaluated after each epoch: a folder's own validation images if it has them and a test, else the test."""
    if config.data in datasets.NAMES or len(datasets.split_folders(config.data)) < 3:
        return test
    return datasets.from_folder(config.data, config.size, config.image_shape[2], held_out="validation")[1]


def _check_numbers(options: dict[str, Any]) -> None:
    for name in ("epochs", "batch_size", "lr", "weight_decay", "seed"):
        try:
            runs.FIELDS[name](options[name], name)
        except schema.Unfit as problem:  # noqa: PERF203
            raise ArgumentError(f"--{name.replace('_', '-')} {options[name]}: expected {problem.expected}") from problem


def _trainer(config: runs.Config, model: Sequential, x: Any) -> Trainer:
    if config.recipe is not None:
        return RECIPES[config.recipe](model, x, batch_size=config.batch_size, optimizer=config.optimizer, seed=config.seed)
    return Trainer(model, optimizer=_optimizer(config), schedule=config.schedule, seed=config.seed, augment=config.augment)


def _optimizer(config: runs.Config) -> Optimizer:
    return OPTIMIZERS[config.optimizer](config.lr, weight_decay=config.weight_decay)


def _checksum(data: Dataset) -> int:
    value = 0
    for array in (*data[0], *data[1]):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    try:
        height, width = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: expected 32, or height x width such as 48x64") from None
    return height, width


def _by_data(option: str) -> str:
    return ", ".join(f"{(COMMON | values)[option]} for {name}" for name, values in DEFAULTS.items())


# ------------------------------------------------------------------------------------------------------ training


def _prepare(config: runs.Config, rows: int) -> None:
    """Compile the kernels of training, or load them from the cache, on a spare model, before training is timed.

    This also rejects batches of one row, which some models cannot train on, before the run folder exists.
    """
    model = config.build()
    steps = kernels.first_step(model, _optimizer(config), rows)
    kernels.show(steps, kernels.count_steps(model), config.backend, COLD)


def _draw_augmented(trainer: Trainer, x: np.ndarray, folder: Path) -> None:
    """Draw a few training images as they are, and in the first epochs."""
    rows = np.linspace(0, len(x) - 1, min(SHOWN, len(x))).astype(np.int64)
    options: dict[str, Any] = {"seed": trainer.seed, "backend": trainer.model.backend}
    epochs = [augment.apply(trainer.augment, x, rows, epoch=epoch, **options) for epoch in range(SHOWN)]
    plots.augmented(x[rows], np.stack(epochs), folder / "augmented.png")


class _Saver(Callback):
    """Saves the run after each epoch."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        trainer.save(self._folder / runs.MODEL)
        history = {name: [value if math.isfinite(value) else None for value in column] for name, column in trainer.history.items()}
        storage.write_json(self._folder / runs.HISTORY, history)  # JSON has no NaN
        self.when = (
            f"after step {trainer.step} in epoch {trainer.epoch + 1}" if trainer.position.batches else f"after epoch {trainer.epoch}"
        )

    on_epoch_end = save


def _fit(trainer: Trainer, config: runs.Config, folder: Path, train: Any, held_out: Any, name: str) -> int | None:
    """Train until the end, Ctrl-C, SIGTERM or SIGHUP; the run is saved in each case. Returns the signal, or None."""
    saver = _Saver(folder, trainer)
    with stopper() as stop:
        try:
            # A diverging run is reported once, by its loss; NumPy would print many warnings before that.
            with np.errstate(all="ignore"), warnings.catch_warnings(), Display(config.epochs, len(train[0]), name) as display:
                warnings.filterwarnings("ignore", "the learning rate jumps|fit has nothing to train")  # `run` has said so, or draws only
                trainer.fit(train, config.epochs, config.batch_size, held_out, [saver, display, stop], progress=False)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {folder} has the run as last saved, {saver.when}") from error
        except KeyboardInterrupt:
            print(f"{folder} has the run as last saved, {saver.when}", file=sys.stderr)
            raise
        if trainer.position.batches:
            saver.save(trainer)
    if trainer.epoch:
        plots.curves(trainer.history, folder / "curves.png")
    return stop.signal


def _report(model: Sequential, test: Any, class_names: list[str], folder: Path) -> None:
    """Print the test accuracy; draw the confusion matrix and the mistakes."""
    x, y = test
    probabilities = model.predict_proba(x)
    said = probabilities.argmax(axis=1)
    matrix = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(matrix, (y, said), 1)
    plots.confusion(matrix, class_names, folder / "confusion.png")
    plots.mistakes(x, y, said, probabilities, class_names, folder / "mistakes.png")
    wrong = int((said != y).sum())
    print(f"test accuracy: {100 * (1 - wrong / len(y)):.2f} % ({wrong:,} of {len(y):,} wrong)")
