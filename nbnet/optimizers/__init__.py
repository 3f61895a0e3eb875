"""Optimisers. They own the state arrays, and update all parameters that are neighbours in memory in one kernel call."""

from typing import Any

from nbnet.errors import ArgumentError, unknown
from nbnet.optimizers.adam import Adam, AdamW, NAdam, RAdam
from nbnet.optimizers.base import Optimizer
from nbnet.optimizers.lamb import LAMB
from nbnet.optimizers.lion import Lion
from nbnet.optimizers.muon import Muon
from nbnet.optimizers.rmsprop import Adagrad, RMSProp
from nbnet.optimizers.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "rmsprop": RMSProp,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "lion": Lion,
    "lamb": LAMB,
    "muon": Muon,
}

__all__ = ["LAMB", "OPTIMIZERS", "SGD", "Adagrad", "Adam", "AdamW", "Lion", "Muon", "NAdam", "Optimizer", "RAdam", "RMSProp", "get"]


def get(optimizer: Any) -> Optimizer:
    """A new optimiser of that name with its default options, or the object itself.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            raise ArgumentError(unknown("optimizer", optimizer, OPTIMIZERS))
        made: Optimizer = OPTIMIZERS[optimizer.lower()]()  # type: ignore[call-arg]  # each has a default lr
        return made
    got = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else repr(optimizer)
    raise ArgumentError(f"optimizer={got}: expected an optimiser such as nb.Adam(1e-3), or a name such as 'adam'")
