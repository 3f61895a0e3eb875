"""Checkpoints of a whole run in a file: parameters, buffers, optimiser state, best weights, step, position in the epoch, history and
seeds.

A run that is stopped after any batch, saved, restored and continued gives the same bits as one that was not stopped:
shuffling is a function of (seed, epoch), dropout masks of counters that are buffers, and schedules of the step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet import schema, storage
from nbnet.errors import CheckpointError
from nbnet.training.epoch import Position, count_batches

FORMAT = "nbnet checkpoint 1"
WORD = (1 << 64) - 1  # the largest seed
LONGEST = 1000  # characters that describe a loss or a schedule
OPTION = schema.either(schema.truth, schema.either(schema.whole(), schema.number()))
SETTINGS = schema.record(
    optimizer=schema.mapping(schema.either(OPTION, schema.mapping(schema.mapping(OPTION)))),  # its options, and its groups
    clip_norm=schema.optional(schema.number(above=0)),
    accumulate=schema.whole(1),
    loss=schema.text(LONGEST),
    schedule=schema.text(LONGEST),
    average=schema.optional(schema.text(LONGEST)),
    off=schema.optional(schema.rows(schema.text())),  # switches (nbnet.training.freezing) that are False
    augment=schema.optional(schema.text(LONGEST)),
    slices=schema.optional(schema.whole(1)),
)
RUN = schema.record(
    optimizer=schema.text(),
    optimizer_steps=schema.whole(),
    seed=schema.whole(0, WORD),
    step=schema.whole(),
    epoch=schema.whole(),
    schedule_epochs=schema.whole(),
    lr_factor=schema.number(0),
    settings=schema.optional(SETTINGS),
    best=schema.optional(schema.whole(1)),
    history=schema.mapping(schema.rows(schema.number(finite=False))),
    position=schema.record(
        batches=schema.whole(),
        rows=schema.whole(),
        loss=schema.number(),
        correct=schema.optional(schema.whole()),
        lr=schema.number(0),
        seconds=schema.number(0),
        data_rows=schema.whole(),
        batch_size=schema.whole(),
        counted=schema.whole(),
    ),
)


COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds")  # of the history, which the Trainer writes


class Best(NamedTuple):
    """The weights of the best epoch so far."""

    epoch: int  # counted from 1
    arrays: dict[str, np.ndarray]  # those of Sequential.state, copied


class State(NamedTuple):
    """A whole run, as Trainer.state returns it."""

    arrays: dict[str, Any]  # parameters, buffers and, as "optimizer.<slot>.<parameter>", the optimiser's arrays; "best.<name>"
    run: dict[str, Any]  # everything else, as JSON has it


def write(state: State, path: str | Path) -> None:
    """Write a state to a safetensors file.

    Raises:
        CheckpointError: it cannot be written; an older file there is untouched.
    """
    storage.write(path, state.arrays, {"format": FORMAT, "run": json.dumps(state.run, default=_plain)})


def read(path: str | Path) -> State:
    """Read what `write` wrote.

    Raises:
        CheckpointError: the file cannot be read, or is not a checkpoint of a run.
    """
    arrays, metadata = storage.read(path)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format")
        raise CheckpointError(f"{path} is not a checkpoint of a run (format {found!r}, expected {FORMAT!r}); for weights use load_weights")
    prefix = f"{path}: the description of the run is damaged"
    run = schema.parse(metadata.get("run", ""), lambda value, where: value, prefix, CheckpointError)
    return State(arrays, schema.fit(_filled(run), RUN, prefix, CheckpointError))


def _filled(run: Any) -> Any:
    """The description of a run with what older files lack."""
    if not isinstance(run, dict):
        return run
    run = {"schedule_epochs": 0, "lr_factor": 1.0, "settings": None, "best": None} | run
    if isinstance(run["settings"], dict):
        run["settings"] = {"average": None, "off": None, "augment": None, "slices": None} | run["settings"]
    if isinstance(at := run.get("position"), dict):
        run["position"] = {"counted": at.get("rows")} | at
    return run


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, which JSON knows."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    raise CheckpointError(f"a run can be saved with numbers in its history, got {value!r}")


def check(run: Any, source: str | Path) -> dict[str, Any]:
    """The run of a state, with its position as a Position. Training can continue there.

    Raises:
        CheckpointError: something is missing, has another type, is out of range, or contradicts the rest.
    """
    prefix = f"{source}: the description of the run is damaged"
    run = schema.fit(_filled(run), RUN, prefix, CheckpointError)
    at = run["position"] = Position(**run["position"])
    lengths = {len(column) for name, column in run["history"].items() if name in COLUMNS}  # callbacks may add columns of their own
    if lengths - {run["epoch"]} or (run["epoch"] and not lengths):
        raise CheckpointError(f"{prefix}: epoch is {run['epoch']}, but the history has {max(lengths, default=0)} epochs")
    if at.batches == 0:
        fits = at == Position()
    elif at.batch_size == 0:  # batches of the user's own
        fits = at.batches <= min(at.data_rows, at.rows) and (at.correct or 0) <= at.counted <= at.rows
    else:
        fits = at.data_rows >= 1
        last = count_batches(at.data_rows, at.batch_size) if fits else 0
        rows = at.data_rows if at.batches == last else at.batches * at.batch_size
        fits = fits and at.batches <= last and at.rows == rows and at.counted <= rows and (at.correct or 0) <= at.counted
    if (run["best"] or 0) > run["epoch"]:
        raise CheckpointError(f"{prefix}: epoch is {run['epoch']}, but the best one is {run['best']}")
    if not fits:
        raise CheckpointError(f"{prefix}: no epoch has the position {at._asdict()}")
    return run
