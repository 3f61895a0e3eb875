"""Optimisers. They own the state arrays, and update all parameters that are neighbours in memory in one kernel call."""

from nbnet.optimizers.adam import Adam, AdamW
from nbnet.optimizers.base import Optimizer
from nbnet.optimizers.rmsprop import RMSProp
from nbnet.optimizers.sgd import SGD

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Optimizer", "RMSProp"]
