"""What a Trainer saves, and how it continues from that."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.distributed.slicing import check_slices
from nbnet.errors import ArgumentError, CheckpointError, unknown
from nbnet.runtime.commit import Call, assignment
from nbnet.training.averages import Average
from nbnet.training.checkpoint import LONGEST, Best, State, check
from nbnet.training.freezing import switches
from nbnet.training.history import History

OPTIMIZER, AVERAGE, BEST = storage.NOT_OF_THE_MODEL  # how the names of other arrays than the model's begin
DESCRIBED = ("loss", "schedule", "average", "augment")  # settings that are named, but not taken over
NAMES = ("seed", "step", "epoch", "schedule_epochs", "lr_factor", "history", "position")  # of attributes of a Trainer


def state(trainer: Any) -> State:
    """The state of a run. Arrays are not copied."""
    optimizer, average = trainer.optimizer, trainer.average
    optimizer.prepare(trainer.model.params)
    arrays = trainer.model.state() | {OPTIMIZER + name: array for name, array in optimizer.state.items()}
    if average is not None:
        arrays |= {AVERAGE + name: array for name, array in average.state().items()}
    if (best := trainer.best) is not None:
        arrays |= {BEST + name: array for name, array in best.arrays.items()}
    run = {name: getattr(trainer, name) for name in NAMES} | {"best": best and best.epoch}
    run |= {"optimizer": type(optimizer).__name__, "optimizer_steps": optimizer.steps, "settings": settings(trainer)}
    return State(arrays, run | {"position": trainer.position._asdict()})


def load(trainer: Any, state: State, source: str | Path) -> tuple[list[Call], str | None]:
    """The calls that give a trainer a state, for nbnet.runtime.commit, and a note on settings that differ.

    Args:
        source: what errors call the state.
    Raises:
        CheckpointError: the state is damaged, or belongs to another model or optimiser.
    """
    run = check(state.run, source)
    own = type(trainer.optimizer).__name__
    if run["optimizer"] != own:
        raise CheckpointError(f"{source} was trained with {run['optimizer']}, this trainer has {own}: use the same optimiser")
    average, best = _named(state.arrays, AVERAGE), _named(state.arrays, BEST)
    found = {name: array for name, array in state.arrays.items() if not name.startswith((AVERAGE, BEST))}
    arrays = {name: array for name, array in trainer.state().arrays.items() if not name.startswith((AVERAGE, BEST))}
    storage.check_match(found, arrays, source)
    storage.check_finite(found, trainer.model.params, source)
    calls: list[Call] = [assignment(arrays[name], array) for name, array in found.items()]
    restored, note = _settings(run["settings"], trainer, source)
    changes = {name: run[name] for name in NAMES} | {"_averaged": run["step"], "_measured": (0, ())}
    changes["history"] = History(run["history"])
    changes["best"] = _best(run["best"], best, trainer, source)
    calls += [*restored, *_average(trainer.average, average, source), partial(setattr, trainer.optimizer, "steps", run["optimizer_steps"])]
    return [*calls, *(partial(setattr, trainer, name, value) for name, value in changes.items())], note


def _average(own: Average | None, arrays: dict[str, np.ndarray], source: str | Path) -> list[Call]:
    """The calls that give a Trainer's average the arrays of a state.

    Raises:
        CheckpointError: the state has an average and the trainer has none, or the other way round, or it is damaged.
    """
    if (own is None) != (not arrays):
        has, lacks = ("no average", "has one") if arrays else ("an average", "has none")
        raise CheckpointError(f"{source} {lacks}, but this Trainer has {has}: make the Trainer with the same average= as before")
    if own is None:
        return []
    try:
        return own.loading(arrays)
    except ArgumentError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays whose names begin so, by the rest of the name."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _best(epoch: int | None, arrays: dict[str, Any], trainer: Any, source: str | Path) -> Best | None:
    """What a state has as trainer.best.

    Raises:
        CheckpointError: it is damaged, or belongs to another model.
    """
    model = trainer.model
    storage.check_match(arrays, {} if epoch is None else model.state(), f"{source}, in the weights of its best epoch,")
    storage.check_finite(arrays, model.params, source)
    return None if epoch is None else Best(epoch, {name: np.array(array) for name, array in arrays.items()})


def settings(trainer: Any) -> dict[str, Any]:
    """What decides how a run continues, apart from its state: the numbers themselves, and descriptions of the rest."""
    return {
        "optimizer": trainer.optimizer.options,
        "clip_norm": trainer.clip_norm,
        "accumulate": trainer.accumulate,
        "loss": describe(trainer.loss),
        "schedule": describe(trainer.schedule),
        "average": describe(trainer.average),
        "off": [name for name, (owner, attribute, _) in switches(trainer.model).items() if not getattr(owner, attribute)],
        "augment": describe(trainer.augment),
        "slices": trainer.slices,
    }


def _switched(off: set[str], trainer: Any, source: str | Path) -> tuple[list[Call], str]:
    """The calls that freeze what was frozen in a state, and nothing else, and what they change.

    Raises:
        CheckpointError: the model has no such switch.
    """
    known = switches(trainer.model)
    if lacks := off - known.keys():
        raise CheckpointError(f"{source}: the settings are damaged: {unknown('switch', min(lacks), known)}")
    changed = {name: name not in off for name, switch in known.items() if getattr(*switch[:2]) != (name not in off)}
    notes = [f"{name} is {value} as in the file" for name, value in [*changed.items()][:3]]
    notes += [f"and {len(changed) - 3} more switches"] if len(changed) > 3 else []
    return [partial(setattr, *known[name][:2], value) for name, value in changed.items()], ", ".join(notes)


def describe(value: Any) -> str:
    """An object of nbnet as the code that makes it, a function by its name."""
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"[:LONGEST]
    return re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))[:LONGEST]


def _check_slices(slices: int, trainer: Any, source: str | Path) -> None:
    """Raises CheckpointError: a run of so many slices cannot go on on this trainer's ranks."""
    try:
        check_slices(slices, trainer.ranks.size)
    except ArgumentError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _settings(found: dict[str, Any] | None, trainer: Any, source: str | Path) -> tuple[list[Call], str | None]:
    """The calls that give a trainer the settings of a state, for nbnet.runtime.commit, and a note on what differs.

    Raises:
        CheckpointError: the optimiser does not accept its options; nothing has changed.
    """
    if found is None:
        return [], None
    own = settings(trainer)
    options = {name: found["optimizer"].get(name, value) for name, value in own["optimizer"].items()}
    try:
        slots = type(trainer.optimizer)(**options).slots
        if slots != trainer.optimizer.slots:  # such as amsgrad, which needs one more: the arrays do not say so
            raise ArgumentError(f"they need the state {', '.join(slots)}, got {', '.join(trainer.optimizer.slots)}")
    except ArgumentError as error:
        raise CheckpointError(f"{source}: the settings of the optimiser are damaged: {error}") from error
    except TypeError:  # of an optimiser of the user's: its constructor takes more than numbers
        pass
    restored = {(trainer.optimizer, name): (options[name], value) for name, value in own["optimizer"].items()}
    restored |= {(trainer, name): (found[name], own[name]) for name in ("clip_norm", "accumulate")}
    if found["slices"] is not None:  # else a run goes on in slices if this trainer has them
        _check_slices(found["slices"], trainer, source)
        restored[trainer, "slices"] = found["slices"], own["slices"]
    differ = {key: pair for key, pair in restored.items() if pair[0] != pair[1]}
    notes = [f"{name} is {there!r} as in the file, not {here!r}" for (_, name), (there, here) in differ.items()]
    notes += [f"{name} stays {own[name]}, was {found[name]} in the file" for name in DESCRIBED if found[name] not in (None, own[name])]
    calls: list[Call] = [partial(setattr, owner, name, there) for (owner, name), (there, _) in differ.items()]
    if found["off"] is not None and set(found["off"]) != set(own["off"]):
        more, note = _switched(set(found["off"]), trainer, source)
        calls, notes = [*calls, *more], [*notes, note]
    return calls, f"{source}: settings differ: {'; '.join(notes)}" if notes else None
