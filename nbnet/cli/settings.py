"""Settings of nbnet train: the defaults, those of a new run, and those of a resumed run."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import augment, datasets, losses, models, schedules, schema
from nbnet.cli import runs
from nbnet.datasets import Dataset, Split
from nbnet.distributed import wire as wires
from nbnet.distributed.slicing import check_slices
from nbnet.errors import ArgumentError, CheckpointError, DataError, unknown
from nbnet.layers import Sequential
from nbnet.optimizers import OPTIMIZERS, Optimizer
from nbnet.runtime.arrays import float_dtype
from nbnet.runtime.backend import get_backend
from nbnet.training import recipes
from nbnet.training.recipes import RECIPES
from nbnet.training.trainer import Trainer
from nbnet.version import __version__

Share = Callable[[Callable[[], Any]], Any]


def call(function: Callable[[], Any]) -> Any:
    return function()


COMMON: dict[str, Any] = {
    "model": "auto",
    "batch_size": 64,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "augment": "none",
    "label_smoothing": 0.0,
    "backend": "parallel",
    "dtype": "float32",
    "seed": 0,
}
LR_SCALES = {"lion": 0.1}  # of the default learning rates, which are adamw's: a step of Lion is as large as any of Adam's
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 40, "lr": 0.02},
    "mnist": {"epochs": 5, "lr": 0.003, "batch_size": 32},
    "fashion-mnist": {"epochs": 5, "lr": 0.003, "batch_size": 32},
    "kmnist": {"epochs": 5, "lr": 0.003, "batch_size": 32, "augment": "crop"},
    "emnist": {"epochs": 5, "lr": 0.003, "augment": "crop"},
    "emnist-letters": {"epochs": 5, "lr": 0.003, "augment": "crop"},
    "cifar10": {"epochs": 10, "lr": 0.01, "augment": "flip,crop"},
    "cifar100": {"epochs": 20, "lr": 0.01, "augment": "flip,crop"},
    "svhn": {"epochs": 10, "lr": 0.01, "augment": "crop"},  # a mirrored digit is another one
    "a folder": {"lr": 0.01, "label_smoothing": 0.1, "size": (32, 32)},
}
DEPENDS = {  # what `_of_images` says
    "epochs": "150 for a folder of up to 1,000 training images, fewer for more images, at least 20",
    "augment": "flip,crop for a folder of colour images, crop for a grey one",
}
IMAGES_TRAINED = 150_000  # of a folder, in all epochs together
OF_RECIPE: dict[str, Any] = {  # what a recipe uses in place of these defaults, and what of it cannot be chosen
    "model": "airbench",
    "epochs": 10,
    "batch_size": 256,
    "optimizer": "sgd",
    "schedule": "piecewise",
    "augment": "flip,translate",
    "label_smoothing": 0.2,
}
FIXED = ("model", "lr", "weight_decay", "schedule", "augment", "label_smoothing")
CHECKED = 4096  # images in memory at once for the checksum
AS_GIVEN = ("epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "label_smoothing", "backend", "seed")
SMALLEST = 25  # pixels of an image's side, for the model of the recipe
ADAMW_DECAY = 0.3


def by_data(option: str) -> str:
    """The defaults of an option, as its help gives them."""
    names: dict[Any, list[str]] = {}
    for name, values in DEFAULTS.items():
        if name in datasets.NAMES or option not in DEPENDS:
            names.setdefault((COMMON | values)[option], []).append(name)
    fixed = [f"{value} for {', '.join(each)}" for value, each in names.items()]
    return "; ".join([*fixed, *([DEPENDS[option]] if option in DEPENDS else [])])


def _of_images(count: int, channels: int) -> dict[str, Any]:
    """The defaults of a folder that depend on its images."""
    augmented = "flip,crop" if channels == 3 else "crop"  # a mirrored letter is another one
    return {"epochs": min(150, max(20, IMAGES_TRAINED // count)), "augment": augmented}


def new(given: dict[str, Any], share: Share = call) -> tuple[runs.Config, Dataset]:
    """The configuration and data of a new run. Names are checked before any data is read.

    Args:
        share: calls the function that reads the data, on one rank of several that share it.
    """
    name, of_recipe = given.get("data", "digits"), _of_recipe(given) if "recipe" in given else {}
    of_data = (
        DEFAULTS[name] if name in datasets.NAMES else DEFAULTS["a folder"] | {"epochs": 1, "augment": "none"}
    )  # until its images are known
    options = COMMON | of_data | of_recipe | given
    if "lr" not in given:
        options["lr"] *= LR_SCALES.get(options["optimizer"], 1)
    options.setdefault("weight_decay", ADAMW_DECAY if options["optimizer"] == "adamw" else 0.0)
    _check_names(options)
    if "recipe" in given:
        update = recipes.OPTIMIZERS[options["optimizer"]](options["batch_size"])
        options |= {"lr": update.lr, "weight_decay": update.weight_decay}
    _check_numbers(options)
    if options.get("slices") is not None:
        check_slices(options["slices"], 1)
    wires.get(options.get("wire"))
    runs.check_out(given.get("out"))
    dtype = float_dtype(options["dtype"]).name
    if name not in datasets.NAMES:
        name = os.path.abspath(os.path.expanduser(name)) if os.path.exists(os.path.expanduser(name)) else name
    data_dir = None if "data_dir" not in given else os.path.abspath(os.path.expanduser(given["data_dir"]))
    data, checksum = share(lambda: _with_checksum(datasets.open_data(name, data_dir, size=options.get("size"))))
    (height, width, channels), class_names = data[0][0].shape[1:], data[2]
    if name not in datasets.NAMES:
        options |= _of_images(len(data[0][0]), channels) | of_recipe | given
    if "recipe" in given and (channels != 3 or min(height, width) < SMALLEST):
        raise ArgumentError(
            f"--recipe {given['recipe']} is for RGB images of at least {SMALLEST}x{SMALLEST} pixels, got {height}x{width}x{channels}: use "
            "--data cifar10, or a folder of photos with --size 32"
        )
    names = _transforms(options["augment"])
    augment.get(names, (height, width, channels))
    settings = dict(
        nbnet=__version__,
        data=name,
        data_dir=data_dir,
        size=options.get("size"),
        checksum=checksum,
        image_shape=(height, width, channels),
        class_names=class_names,
        model=models.choose(options["model"], (height, width, channels)),
        recipe=options.get("recipe"),
        augment=names,
        dtype=dtype,
        slices=options.get("slices"),
        wire=options.get("wire"),
        **{key: options[key] for key in AS_GIVEN},
    )
    return runs.new_config(settings), data


def _check_names(options: dict[str, Any]) -> None:
    for kind, known in (("model", ["auto", *models.MODELS]), ("optimizer", OPTIMIZERS), ("schedule", schedules.SCHEDULES)):
        if options[kind] not in known:
            raise ArgumentError(unknown(kind, options[kind], known))
    for each in _transforms(options["augment"]):
        if each not in augment.NAMES:
            raise ArgumentError(unknown("transform", each, ["none", *augment.NAMES]))
    get_backend(options["backend"])


def _transforms(text: str) -> list[str]:
    return [] if text == "none" else [each.strip() for each in text.split(",")]


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


def resumed(given: dict[str, Any], share: Share = call) -> tuple[runs.Config, Dataset]:
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
    data, checksum = share(lambda: _with_checksum(datasets.open_data(config.data, config.data_dir, size=config.size)))
    if checksum != config.checksum:
        raise DataError(f"{config.data} has other images or labels than when {folder} was started: a run must be resumed on the same data")
    return config, data


def validation(config: runs.Config, test: Split, share: Share = call) -> Split:
    """What is evaluated after each epoch: a folder's own validation images if it has them and a test, else the test."""
    if config.data in datasets.NAMES or len(datasets.split_folders(config.data)) < 3:
        return test
    found: Split = share(lambda: datasets.from_folder(config.data, config.size, config.image_shape[2], held_out="validation")[1])
    return found


def _check_numbers(options: dict[str, Any]) -> None:
    for name in ("epochs", "batch_size", "lr", "weight_decay", "label_smoothing", "seed"):
        try:
            runs.FIELDS[name](options[name], name)
        except schema.Unfit as problem:  # noqa: PERF203
            raise ArgumentError(f"--{name.replace('_', '-')} {options[name]}: expected {problem.expected}") from problem


def trainer(config: runs.Config, model: Sequential, x: Any, comm: Any = None) -> Trainer:
    ranks: dict[str, Any] = {"comm": comm, "slices": config.slices, "wire": None if comm is None else config.wire}
    if config.recipe is not None:
        return RECIPES[config.recipe](model, x, batch_size=config.batch_size, optimizer=config.optimizer, seed=config.seed, **ranks)
    loss = losses.SoftmaxCrossEntropy(label_smoothing=config.label_smoothing)
    return Trainer(model, loss, optimizer(config), schedule=config.schedule, seed=config.seed, augment=config.augment, **ranks)


def optimizer(config: runs.Config) -> Optimizer:
    return OPTIMIZERS[config.optimizer](config.lr, weight_decay=config.weight_decay)


def _with_checksum(data: Dataset) -> tuple[Dataset, int]:
    """The data, and the CRC-32 of its images and labels, of which a block at a time is in memory."""
    value = 0
    for array in (*data[0], *data[1]):
        for start in range(0, len(array), CHECKED):
            value = zlib.crc32(np.ascontiguousarray(array[start : start + CHECKED]).data, value)
    return data, value
