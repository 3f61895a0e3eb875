"""nbnet train: train on a data set and write a run folder with the model and pictures."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import os
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import augment, datasets, distributed, models, plots, schedules, storage
from nbnet.cli import kernels, results, runs, settings
from nbnet.cli.display import Display
from nbnet.cli.interrupts import stopper
from nbnet.cli.settings import ADAMW_DECAY, by_data
from nbnet.distributed import Ranks
from nbnet.distributed.slicing import SLICES
from nbnet.distributed.wire import WIRES
from nbnet.errors import ArgumentError, NonFiniteError
from nbnet.optimizers import OPTIMIZERS
from nbnet.training.callbacks import Callback, TensorBoard
from nbnet.training.epoch import count_batches
from nbnet.training.notes import rate_jump
from nbnet.training.recipes import RECIPES
from nbnet.training.trainer import Trainer

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

A run folder contains config.json, model.safetensors, history.json, curves.png, confusion.png, mistakes.png, augmented.png where
training images are changed (--augment), and report.html: one page with all pictures, and the gap between training and test."""

COLD = "compiling kernels (once, 10 to 30 s; later runs start at once)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Every default is None, to distinguish options that were given from those that were not."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="NAME", help=f"{', '.join(datasets.NAMES)}, or the path of a folder of images (default: digits)")
    data.add_argument("--data-dir", metavar="DIR", help="folder with the files of a data set (default: download them)")
    data.add_argument("--size", type=_size, metavar="N|HxW", help="size that the images of a folder are resized to (default: 32)")
    model = parser.add_argument_group("training")
    model.add_argument("--model", metavar="NAME", help=f"auto, {', '.join(models.MODELS)} (default: auto, by the size of the images)")
    model.add_argument(
        "--recipe", metavar="NAME", help=f"a complete, tuned model and training: {', '.join(RECIPES)}; with optimizer sgd or muon"
    )
    model.add_argument("--epochs", type=int, metavar="N", help=f"passes over the data (default: {by_data('epochs')})")
    model.add_argument("--batch-size", type=int, metavar="N", help=f"images per step (default: {by_data('batch_size')})")
    model.add_argument(
        "--lr", type=float, metavar="X", help=f"learning rate, the peak of the schedule; for lion a tenth (default: {by_data('lr')})"
    )
    model.add_argument("--optimizer", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (default: adamw)")
    model.add_argument("--weight-decay", type=float, metavar="X", help=f"of the optimizer (default: {ADAMW_DECAY} for adamw, else 0)")
    model.add_argument("--schedule", metavar="NAME", help=f"of the learning rate: {', '.join(schedules.SCHEDULES)} (default: one_cycle)")
    model.add_argument(
        "--augment", metavar="LIST", help=f"changes of the training images: {', '.join(augment.NAMES)} (default: {by_data('augment')})"
    )
    model.add_argument(
        "--label-smoothing",
        type=float,
        metavar="X",
        help=f"share of each target that is spread evenly over all classes, 0 to 1 (default: {by_data('label_smoothing')})",
    )
    model.add_argument("--seed", type=int, metavar="N", help="of the weights, the shuffling and the dropout (default: 0)")
    model.add_argument("--backend", metavar="NAME", help="parallel, serial, numpy or cuda (default: parallel)")
    model.add_argument("--dtype", metavar="NAME", help="float32 or float64 (default: float32)")
    ranks = parser.add_argument_group("several processes and machines")
    ranks.add_argument(
        "--mpi", action="store_true", default=None, help="train on all ranks that mpiexec has started: mpiexec -n 8 nbnet train --mpi"
    )
    ranks.add_argument(
        "--slices",
        type=int,
        metavar="N",
        help="parts that each batch is cut into, a power of two; they decide the bits (default with --mpi: 8)",
    )
    ranks.add_argument(
        "--wire",
        metavar="NAME",
        help=f"{', '.join(WIRES)}: round gradients between processes, in half the bytes; the bits then depend on the number of processes",
    )
    run = parser.add_argument_group("run folder")
    run.add_argument("--out", metavar="DIR", help="a new folder for the run (default: runs/DATA-MODEL-1, -2, ...)")
    run.add_argument(
        "--resume", metavar="RUN", help="continue this run; only --epochs, the new total, --mpi and --tensorboard may be given with it"
    )
    run.add_argument("--tensorboard", metavar="DIR", help="also write event files for TensorBoard there, after each epoch")


def run(options: argparse.Namespace) -> int:
    """The command."""
    began = time.perf_counter()
    given = {name: value for name, value in vars(options).items() if value is not None and name != "command"}
    if not given.pop("mpi", False):
        if "wire" in given:
            raise ArgumentError(f"--wire {given['wire']} without --mpi, expected both: one process sends nothing")
        return _run(given, began, Ranks(), None)
    comm = distributed.world()
    ranks = Ranks(comm)
    threads, processors, here = distributed.share_processors(comm)
    if ranks.rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    given = given if "resume" in given else {"slices": SLICES} | given
    print(f"mpi: {ranks.size} ranks, {threads} thread{'s' * (threads > 1)} each ({processors} processors for {here} ranks on this node)")
    with distributed.speaking(ranks), ranks.together():
        return _run(given, began, ranks, comm)


def _run(given: dict[str, Any], began: float, ranks: Ranks, comm: Any) -> int:
    board = given.pop("tensorboard", None)
    share = partial(distributed.shared, ranks, comm)
    config, data = settings.resumed(given, share) if "resume" in given else settings.new(given, share)
    (x, y), test, class_names = data
    validation = settings.validation(config, test, share)
    boards = [TensorBoard(board, train=x, validation=validation, class_names=class_names)] if board else []
    model = config.build()
    trainer = settings.trainer(config, model, x, comm)
    if "resume" in given:
        folder = Path(given["resume"])
        trainer.restore(folder / runs.MODEL)
        if trainer.epoch >= config.epochs and results.is_complete(folder):
            raise ArgumentError(f"the run {folder} is complete after {trainer.epoch} epochs; to continue, give a larger --epochs")
    shape = "x".join(map(str, config.image_shape))
    also = "" if validation is test else f", {len(validation[0]):,} validation"
    counts = f"{len(x):,} training{also} and {len(test[0]):,} test images"
    print(f"data: {Path(config.data).name}, {counts} of {shape}, {len(class_names)} classes")
    print(f"model: {config.model}")
    model.summary()
    print(
        f"training: {config.epochs} epochs, augmentation {', '.join(config.augment) or 'none'}, label smoothing {config.label_smoothing:g}"
    )
    if "flip" in config.augment and not given.keys() & {"augment", "recipe", "resume"} and config.data not in datasets.NAMES:
        print("note: training images are also mirrored; use --augment crop if mirroring changes the class, as with letters")
    ranks.first(lambda: _prepare(trainer, min(2, config.batch_size, len(x))))  # the others find the kernels in the cache
    if "resume" not in given:
        folder = ranks.of_first(lambda: runs.make_folder(given.get("out"), config.data, config.model))
    ranks.first(lambda: storage.write_json(folder / runs.CONFIG, dataclasses.asdict(config)))
    if (jump := rate_jump(trainer, config.epochs, count_batches(len(x), config.batch_size))) is not None:
        print(f"note: {jump}")
    print(f"run: {folder}, from epoch {trainer.epoch + 1} of {config.epochs}" if trainer.epoch or trainer.step else f"run: {folder}")
    if config.augment:
        ranks.first(lambda: results.draw_augmented(trainer, x, folder))
    stopped_by = _fit(trainer, config, folder, (x, y), validation, "test" if validation is test else "val", boards)
    if trainer.epoch < config.epochs:
        print(f"stopped in epoch {trainer.epoch + 1} of {config.epochs}; the run is saved. To continue:")
        print(f"  nbnet train --resume {runs.quoted(folder)}")
        return 128 + (stopped_by or signal.SIGINT)
    if ranks.rank:
        return 0
    results.report(trainer, config, (x, y), test, folder)
    print(f"run: {folder} (model, pictures, and {results.PAGE} with all pictures), in {time.perf_counter() - began:.1f} s")
    print(f"to use it: nbnet predict {runs.quoted(folder)} IMAGE...")
    return 0


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    try:
        height, width = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: expected 32, or height x width such as 48x64") from None
    return height, width


# ------------------------------------------------------------------------------------------------------ training


def _prepare(trainer: Trainer, rows: int) -> None:
    """Compile the kernels of training, or load them from the cache, on a copy of the trainer, before training is timed.

    This also rejects batches of one row, which some models cannot train on, before the run folder exists.
    """
    spare = copy.deepcopy(trainer)
    kernels.show(kernels.first_step(spare, rows), kernels.count_steps(spare), spare.model.backend.name, COLD)


class _Saver(Callback):
    """Saves the run after each epoch."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._folder = folder
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        trainer.save(self._folder / runs.MODEL)
        history = {name: [value if math.isfinite(value) else None for value in column] for name, column in trainer.history.items()}
        if trainer.ranks.rank == 0:
            storage.write_json(self._folder / runs.HISTORY, history)  # JSON has no NaN
        self.when = (
            f"after step {trainer.step} in epoch {trainer.epoch + 1}" if trainer.position.batches else f"after epoch {trainer.epoch}"
        )

    on_epoch_end = save


def _fit(
    trainer: Trainer, config: runs.Config, folder: Path, train: Any, held_out: Any, name: str, boards: list[TensorBoard]
) -> int | None:
    """Train until the end, Ctrl-C, SIGTERM or SIGHUP; the run is saved in each case. Returns the signal, or None."""
    saver = _Saver(folder, trainer)
    with stopper(says=trainer.ranks.rank == 0) as stop:
        try:
            # A diverging run is reported once, by its loss; NumPy would print many warnings before that.
            with np.errstate(all="ignore"), warnings.catch_warnings(), Display(config.epochs, len(train[0]), name) as display:
                warnings.filterwarnings("ignore", "the learning rate jumps|fit has nothing to train")  # `run` has said so, or draws only
                trainer.fit(train, config.epochs, config.batch_size, held_out, [saver, display, *boards, stop], progress=False)
        except NonFiniteError as error:
            error.args = (f"{error}; {folder} has the run as last saved, {saver.when}", *error.args[1:])
            raise
        except KeyboardInterrupt:
            if trainer.ranks.rank == 0:
                print(f"{folder} has the run as last saved, {saver.when}", file=sys.stderr)
            raise
        if trainer.position.batches:
            saver.save(trainer)
    if trainer.epoch and trainer.ranks.rank == 0:
        plots.curves(trainer.history, folder / results.CURVES)
    return stop.signal
