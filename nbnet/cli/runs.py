"""Run folders: creating them, config.json, and rebuilding a model from it."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from nbnet import models
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.layers import Sequential

CONFIG, MODEL, HISTORY = "config.json", "model.safetensors", "history.json"


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
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    weight_decay: float
    schedule: str
    backend: str
    dtype: str
    seed: int

    def build(self, backend: str | None = None) -> Sequential:
        """The model, built as for training, on another backend if one is given."""
        model = models.get(self.model)(len(self.class_names))
        model.build(self.image_shape, backend=backend or self.backend, dtype=self.dtype, seed=self.seed)
        return model


_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "str | None": (str, type(None)), "list[str]": list}


def read_config(folder: Path) -> Config:
    """The configuration of a run.

    Raises:
        CheckpointError: there is no such run, or its config.json is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        what = f"{folder} is not a run folder" if folder.exists() else f"there is no run {folder}"
        raise CheckpointError(f"{what}: expected a folder written by nbnet train, with {CONFIG} and {MODEL}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        size = None if values["size"] is None else _shape(values["size"], 2)
        config = Config(**values | {"size": size, "image_shape": _shape(values["image_shape"], 3)})
        for field in dataclasses.fields(Config):
            value = getattr(config, field.name)
            if str(field.type) in _KINDS and not isinstance(value, _KINDS[str(field.type)]):
                raise ValueError(f"{field.name} is {value!r}")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return config


def _shape(values: Any, axes: int) -> Any:
    if not isinstance(values, list) or len(values) != axes or not all(isinstance(n, int) for n in values):
        raise ValueError(f"{values!r} is not a list of {axes} whole numbers")
    return tuple(values)


def check_out(out: str | None) -> None:
    """Check that a new run may use this folder: it must be missing or empty.

    Raises:
        ArgumentError: it is not empty, or is a file.
    """
    folder = Path(out or "").expanduser()
    if out is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    hint = f", or continue that run: nbnet train --resume {out}" if (folder / CONFIG).exists() else ""
    raise ArgumentError(f"--out {out} exists already{' and is not empty' if folder.is_dir() else ''}: choose another folder{hint}")


def make_folder(out: str | None, data: str, model: str) -> Path:
    """Create the folder of a new run: `out`, or runs/<data>-<model>-<n> with the first free number.

    Raises:
        CheckpointError: it cannot be created.
    """
    try:
        if out is not None:
            folder = Path(out).expanduser()
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
