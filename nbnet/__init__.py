"""nbnet: small convolutional networks with nothing under them but NumPy and Numba."""

from nbnet import callbacks, datasets, errors, functional, initializers, losses, schedules
from nbnet.backend import get_backend
from nbnet.errors import NbnetError
from nbnet.gradcheck import gradcheck
from nbnet.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LeakyReLU,
    MaxPool2D,
    Param,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from nbnet.optimizers import SGD, Adam, AdamW, RMSProp
from nbnet.trainer import Trainer
from nbnet.version import __version__

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "Layer",
    "LeakyReLU",
    "MaxPool2D",
    "NbnetError",
    "Param",
    "RMSProp",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Trainer",
    "__version__",
    "callbacks",
    "datasets",
    "errors",
    "functional",
    "get_backend",
    "gradcheck",
    "initializers",
    "losses",
    "schedules",
]
