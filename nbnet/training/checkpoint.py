"""Checkpoints of a whole run in a file: parameters, buffers, optimiser state, step, position in the epoch, history and seeds.

A run that is stopped after any batch, saved, restored and continued gives the same bits as one that was not stopped:
shuffling is a function of (seed, epoch), dropout masks of counters that are buffers, and schedules of the step.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet import schema, storage
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.runtime.commit import Call
from nbnet.training.epoch import Position, count_batches

FORMAT = "nbnet checkpoint 1"
WORD = (1 << 64) - 1  # the largest seed
LONGEST = 1000  # characters that describe a loss or a schedule
SETTINGS = schema.record(
    optimizer=schema.mapping(schema.either(schema.truth, schema.number())),  # its options
    clip_norm=schema.optional(schema.number(above=0)),
    accumulate=schema.whole(1),
    loss=schema.text(LONGEST),
    schedule=schema.text(LONGEST),
)
RUN = schema.record(
    optimizer=schema.text(),
    optimizer_steps=schema.whole(),
    seed=schema.whole(0, WORD),
    step=schema.whole(),
    epoch=schema.whole(),
    schedule_epochs=schema.whole(),
    settings=schema.optional(SETTINGS),
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
    ),
)


COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds")  # of the history, which the Trainer writes


class State(NamedTuple):
    """A whole run, as Trainer.state returns it."""

    arrays: dict[str, Any]  # parameters, buffers and, as "optimizer.<slot>.<parameter>", the optimiser's arrays
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
    return State(arrays, schema.parse(metadata.get("run", ""), RUN, f"{path}: the description of the run is damaged", CheckpointError))


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, which JSON knows."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    raise CheckpointError(f"a run can be saved with numbers and text in its history, got {value!r}")


def settings(trainer: Any) -> dict[str, Any]:
    """What decides how a run continues, apart from its state: the numbers themselves, and descriptions of the loss and the schedule."""
    return {
        "optimizer": trainer.optimizer.options,
        "clip_norm": trainer.clip_norm,
        "accumulate": trainer.accumulate,
        "loss": _describe(trainer.loss),
        "schedule": _describe(trainer.schedule),
    }


def _describe(value: Any) -> str:
    """An object of nbnet as the code that makes it, a function by its name."""
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"[:LONGEST]
    return re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))[:LONGEST]


def restored_settings(found: dict[str, Any] | None, trainer: Any, source: str | Path) -> tuple[list[Call], str | None]:
    """The calls that give a trainer the settings of a state, for nbnet.runtime.commit, and a note on what differs.

    Raises:
        CheckpointError: the optimiser does not accept its options; nothing has changed.
    """
    if found is None:
        return [], None
    own = settings(trainer)
    options = {name: found["optimizer"].get(name, value) for name, value in own["optimizer"].items()}
    try:
        type(trainer.optimizer)(**options)
    except ArgumentError as error:
        raise CheckpointError(f"{source}: the settings of the optimiser are damaged: {error}") from error
    except TypeError:  # of an optimiser of the user's: its constructor takes more than numbers
        pass
    restored = {(trainer.optimizer, name): (options[name], value) for name, value in own["optimizer"].items()}
    restored |= {(trainer, name): (found[name], own[name]) for name in ("clip_norm", "accumulate")}
    differ = {key: pair for key, pair in restored.items() if pair[0] != pair[1]}
    notes = [f"{name} is {there!r} as in the file, not {here!r}" for (_, name), (there, here) in differ.items()]
    notes += [f"{name} stays {own[name]}, was {found[name]} in the file" for name in ("loss", "schedule") if found[name] != own[name]]
    calls: list[Call] = [partial(setattr, owner, name, there) for (owner, name), (there, _) in differ.items()]
    return calls, f"{source}: settings differ: {'; '.join(notes)}" if notes else None


def check(run: Any, source: str | Path) -> dict[str, Any]:
    """The run of a state, with its position as a Position. Training can continue there.

    Raises:
        CheckpointError: something is missing, has another type, is out of range, or contradicts the rest.
    """
    prefix = f"{source}: the description of the run is damaged"
    if isinstance(run, dict):
        run = {"schedule_epochs": 0, "settings": None} | run  # older files lack them
    run = schema.fit(run, RUN, prefix, CheckpointError)
    at = run["position"] = Position(**run["position"])
    lengths = {len(column) for name, column in run["history"].items() if name in COLUMNS}  # callbacks may add columns of their own
    if lengths - {run["epoch"]} or (run["epoch"] and not lengths):
        raise CheckpointError(f"{prefix}: epoch is {run['epoch']}, but the history has {max(lengths, default=0)} epochs")
    if at.batches == 0:
        fits = at == Position()
    else:
        fits = min(at.data_rows, at.batch_size) >= 1
        last = count_batches(at.data_rows, at.batch_size) if fits else 0
        rows = at.data_rows if at.batches == last else at.batches * at.batch_size
        fits = fits and at.batches <= last and at.rows == rows and (at.correct or 0) <= rows
    if not fits:
        raise CheckpointError(f"{prefix}: no epoch has the position {at._asdict()}")
    return run
