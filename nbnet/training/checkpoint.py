"""Checkpoints of a whole run in a file: parameters, buffers, optimiser state, step, position in the epoch, history and seeds.

A run that is stopped after any batch, saved, restored and continued gives the same bits as one that was not stopped:
shuffling is a function of (seed, epoch), dropout masks of counters that are buffers, and schedules of the step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from nbnet import storage
from nbnet.errors import CheckpointError

FORMAT = "nbnet checkpoint 1"


class State(NamedTuple):
    """A whole run, as Trainer.state returns it."""

    arrays: dict[str, Any]  # parameters, buffers and, as "optimizer.<slot>.<parameter>", the optimiser's arrays
    run: dict[str, Any]  # everything else, as JSON has it


def write(state: State, path: str | Path) -> None:
    """Write a state to a safetensors file.

    Raises:
        CheckpointError: it cannot be written; an older file there is untouched.
    """
    storage.write(path, state.arrays, {"format": FORMAT, "run": json.dumps(state.run)})


def read(path: str | Path) -> State:
    """Read what `write` wrote.

    Raises:
        CheckpointError: the file cannot be read, or is not a checkpoint of a run.
    """
    arrays, metadata = storage.read(path)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format")
        raise CheckpointError(f"{path} is not a checkpoint of a run (format {found!r}, expected {FORMAT!r}); for weights use load_weights")
    try:
        return State(arrays, json.loads(metadata["run"]))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the description of the run is damaged: {error!r}") from error
