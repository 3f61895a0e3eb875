"""Checkpoints of a whole run: parameters, buffers, optimiser state, step, position in the epoch, history and seeds.

A run that is stopped after any batch, saved, restored and continued gives the same bits as one that was not stopped:
shuffling is a function of (seed, epoch), dropout masks of counters that are buffers, and schedules of the step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nbnet import storage
from nbnet.errors import CheckpointError

if TYPE_CHECKING:
    from nbnet.training.trainer import Trainer

FORMAT = "nbnet checkpoint 1"
PREFIX = "optimizer."


def save(trainer: Trainer, path: str | Path) -> None:
    """Write the run to a safetensors file; see Trainer.save."""
    trainer.optimizer.prepare(trainer.model.params)
    arrays = trainer.model.state() | {PREFIX + name: array for name, array in trainer.optimizer.state.items()}
    run = {
        "optimizer": type(trainer.optimizer).__name__,
        "optimizer_steps": trainer.optimizer.steps,
        "seed": trainer.seed,
        "step": trainer.step,
        "epoch": trainer.epoch,
        "history": trainer.history,
        "position": trainer.position._asdict(),
    }
    storage.write(path, arrays, {"format": FORMAT, "run": json.dumps(run)})


def restore(trainer: Trainer, path: str | Path) -> None:
    """Read what save wrote; see Trainer.restore. Nothing changes unless everything fits."""
    arrays, metadata = storage.read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no checkpoint of a run (format {metadata.get('format')!r}, wanted {FORMAT!r}); for weights use load_weights"
        )
    try:
        run = json.loads(metadata["run"])
        position = type(trainer.position)(**run["position"])
        numbers = {key: int(run[key]) for key in ("seed", "step", "epoch", "optimizer_steps")}
        history = {key: [float(v) for v in values] for key, values in run["history"].items()}
        optimizer = run["optimizer"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the description of the run is damaged: {error!r}") from error
    if optimizer != type(trainer.optimizer).__name__:
        raise CheckpointError(
            f"{path} was trained with {optimizer}, this trainer has {type(trainer.optimizer).__name__}: make it with the same"
        )
    trainer.optimizer.prepare(trainer.model.params)
    wanted = trainer.model.state() | {PREFIX + name: array for name, array in trainer.optimizer.state.items()}
    storage.check_match(arrays, wanted, path)
    for name, array in arrays.items():
        wanted[name][...] = array
    trainer.optimizer.steps = numbers["optimizer_steps"]
    trainer.seed, trainer.step, trainer.epoch = numbers["seed"], numbers["step"], numbers["epoch"]
    trainer.history = history
    trainer.position = position
