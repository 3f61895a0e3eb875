"""nbnet: small convolutional networks on NumPy and Numba alone."""

from nbnet import cs231n, datasets, errors, functional, initializers, losses, models, plots, regularizers, schedules
from nbnet.batchnorm_tools import batch_norm_export, batch_norm_import, batch_norm_report, recalibrate
from nbnet.errors import NbnetError
from nbnet.folding import fold_batch_norm
from nbnet.layers import (
    AdaptiveAvgPool2D,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Crop2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    Pad2D,
    Param,
    ReLU,
    Renorm,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    UpSample2D,
    ZeroPad2D,
)
from nbnet.optimizers import SGD, Adam, AdamW, RMSProp
from nbnet.runtime.backend import empty_cache, get_backend
from nbnet.scaler import StandardScaler
from nbnet.training import callbacks
from nbnet.training.averages import ExponentialMovingAverage
from nbnet.training.gradcheck import gradcheck
from nbnet.training.trainer import Trainer
from nbnet.version import __version__

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool2D",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Crop2D",
    "Dense",
    "Dropout",
    "ExponentialMovingAverage",
    "Flatten",
    "GlobalAvgPool2D",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "NbnetError",
    "Pad2D",
    "Param",
    "RMSProp",
    "ReLU",
    "Renorm",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StandardScaler",
    "Tanh",
    "Trainer",
    "UpSample2D",
    "ZeroPad2D",
    "__version__",
    "batch_norm_export",
    "batch_norm_import",
    "batch_norm_report",
    "callbacks",
    "cs231n",
    "datasets",
    "empty_cache",
    "errors",
    "fold_batch_norm",
    "functional",
    "get_backend",
    "gradcheck",
    "initializers",
    "losses",
    "models",
    "plots",
    "recalibrate",
    "regularizers",
    "schedules",
]
