"""Run folders: creating them, config.json, and rebuilding a model from it."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from nbnet import models, schedules, schema, storage
from nbnet.augment import NAMES
from nbnet.distributed.wire import WIRES
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.kernels import BACKENDS
from nbnet.layers import Sequential
from nbnet.optimizers import OPTIMIZERS
from nbnet.training.checkpoint import WORD
from nbnet.training.recipes import RECIPES

CONFIG, MODEL, HISTORY = "config.json", "model.safetensors", "history.json"
PATH = schema.text(4096, lines=True)
SIDE = schema.whole(1, 65535)
LARGEST = 1 << 24  # numbers in an image


def _image(value: Any, where: str) -> tuple[int, ...]:
    shape = schema.rows(SIDE, 3, 3)(value, where)
    if math.prod(shape) > LARGEST:
        raise schema.Unfit(where, f"is {shape}", f"an image of at most {LARGEST:,} numbers")
    return tuple(shape)


def _size(value: Any, where: str) -> tuple[int, ...]:
    return tuple(schema.rows(SIDE, 2, 2)(value, where))


FIELDS: dict[str, schema.Check] = {
    "nbnet": schema.text(),
    "data": PATH,
    "data_dir": schema.optional(PATH),
    "size": schema.optional(_size),
    "checksum": schema.whole(0, (1 << 32) - 1),
    "image_shape": _image,
    "class_names": schema.rows(schema.text(), 2, 10_000),
    "model": schema.one_of(models.MODELS),
    "recipe": schema.optional(schema.one_of(RECIPES)),
    "epochs": schema.whole(1),
    "batch_size": schema.whole(1),
    "lr": schema.number(above=0),
    "optimizer": schema.one_of(OPTIMIZERS),
    "weight_decay": schema.number(0),
    "schedule": schema.one_of(schedules.SCHEDULES),
    "augment": schema.rows(schema.one_of(NAMES), 0, 100),
    "label_smoothing": schema.number(0, most=1),
    "backend": schema.one_of(BACKENDS),
    "dtype": schema.one_of(("float32", "float64")),
    "seed": schema.whole(0, WORD),
    "slices": schema.optional(schema.whole(1)),
    "wire": schema.optional(schema.one_of(WIRES)),
}
SCHEMA = schema.record(**FIELDS)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines a run: with it and the same nbnet, the results are the same bits."""

    nbnet: str  # version
    data: str  # a name, or the absolute path of a folder of images
    data_dir: str | None
    size: tuple[int, int] | None  # (height, width) that the images of a folder are resized to
    checksum: int  # CRC-32 of the images and labels
    image_shape: tuple[int, int, int]
    class_names: list[str]
    model: str
    recipe: str | None  # it has the optimizer's options, the schedule and the transforms; lr and the like say what they are
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    weight_decay: float
    schedule: str
    augment: list[str]
    label_smoothing: float
    backend: str
    dtype: str
    seed: int
    slices: int | None  # that each batch is cut into (nbnet.distributed)
    wire: str | None  # what gradients are rounded to between ranks; the bits then depend on their number

    @property
    def duration(self) -> str:
        """Its epochs, in words."""
        return f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"

    def build(self, backend: str | None = None) -> Sequential:
        """The model, built as for training, on another backend if one is given."""
        model = models.get(self.model)(len(self.class_names))
        model.build(self.image_shape, backend=backend or self.backend, dtype=self.dtype, seed=self.seed)
        return model


def new_config(values: dict[str, Any]) -> Config:
    """The configuration of a new run.

    Raises:
        ArgumentError: `read_config` would refuse a value.
    """
    return Config(**schema.fit(values, SCHEMA, "cannot train this", ArgumentError))


def read_config(folder: Path) -> Config:
    """The configuration of a run.

    Raises:
        CheckpointError: there is no such run, or its config.json is damaged.
    """
    path = folder / CONFIG
    try:
        there, is_run = folder.exists(), path.is_file()
        text = path.read_bytes() if is_run else b""
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not is_run:
        what = f"{folder} is not a run folder" if there else f"there is no run {folder}"
        raise CheckpointError(f"{what}: expected a folder written by nbnet train, with {CONFIG} and {MODEL}")
    return Config(**schema.parse(text, _filled, f"{path} is damaged", CheckpointError))


def _filled(value: Any, where: str) -> Any:
    """The configuration with what those of older versions lack."""
    if not isinstance(value, dict):
        return SCHEMA(value, where)
    smoothing = 0.2 if value.get("recipe") == "airbench" else 0.0
    return SCHEMA({"augment": [], "recipe": None, "label_smoothing": smoothing, "slices": None, "wire": None} | value, where)


def check_out(out: str | None) -> None:
    """Check that a new run may use this folder: it must be missing or empty, or have only what a run that was killed before its first
    save has left.

    Raises:
        ArgumentError: it is not empty, or is a file.
    """
    if out is None:
        return
    folder = Path(os.path.expanduser(out))
    if not folder.exists() or (folder.is_dir() and _unused(folder)):
        return
    hint = f", or continue that run: nbnet train --resume {out}" if (folder / CONFIG).exists() else ""
    raise ArgumentError(f"--out {out} exists already{' and is not empty' if folder.is_dir() else ''}: choose another folder{hint}")


def _unused(folder: Path) -> bool:
    names = [path.name for path in folder.iterdir() if not path.match(storage.TEMPORARY)]
    if names != [CONFIG]:
        return not names
    try:
        read_config(folder)
    except CheckpointError:  # somebody else's
        return False
    return True


def make_folder(out: str | None, data: str, model: str) -> Path:
    """Create the folder of a new run: `out`, or runs/<data>-<model>-<n> with the first free number.

    Raises:
        CheckpointError: it cannot be created.
    """
    try:
        if out is not None:
            folder = Path(os.path.expanduser(out))
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        name = re.sub(r"[^\w.-]+", "-", Path(data).name) or "images"
        number = 1
        while True:
            folder = Path("runs") / f"{name}-{model}-{number}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise CheckpointError(
            f"cannot create the run folder {folder}: {error.strerror or error}; choose a writable one with --out"
        ) from error


def quoted(path: Path) -> str:
    """A path as a word of a command that can be pasted into the shell: cmd.exe and PowerShell do not know POSIX quotes."""
    return subprocess.list2cmdline([str(path)]) if sys.platform == "win32" else shlex.quote(str(path))
