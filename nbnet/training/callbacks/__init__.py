"""Callbacks of Trainer.fit."""

from nbnet.training.callbacks.base import Callback
from nbnet.training.callbacks.logs import CSVLogger, Logger, TensorBoard
from nbnet.training.callbacks.monitors import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, TimeLimit

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "Logger", "ModelCheckpoint", "ReduceLROnPlateau", "TensorBoard", "TimeLimit"]
