"""Layers: each owns parameters and buffers, checks its input and calls `functional`."""

from nbnet.layers.activations import (
    CELU,
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from nbnet.layers.base import Layer, Param
from nbnet.layers.batchnorm import BatchNorm, Renorm
from nbnet.layers.containers import Residual, Sequential
from nbnet.layers.conv2d import Conv2D
from nbnet.layers.dense import Dense
from nbnet.layers.dropout import Dropout
from nbnet.layers.flatten import Flatten
from nbnet.layers.groupnorm import GroupNorm
from nbnet.layers.layernorm import LayerNorm
from nbnet.layers.pool import AvgPool2D, GlobalAvgPool2D, MaxPool2D

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "MaxPool2D",
    "Mish",
    "PReLU",
    "Param",
    "ReLU",
    "ReLU6",
    "Renorm",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
]
