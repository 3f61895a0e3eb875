"""Layers: each owns parameters and buffers, checks its input and calls `functional`."""

from nbnet.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from nbnet.layers.base import Layer, Param
from nbnet.layers.batchnorm import BatchNorm, Renorm
from nbnet.layers.branches import Add, Concat, Multiply, Parallel, Residual
from nbnet.layers.conv2d import Conv2D
from nbnet.layers.dense import Dense
from nbnet.layers.dropout import Dropout
from nbnet.layers.flatten import Flatten
from nbnet.layers.groupnorm import GroupNorm
from nbnet.layers.layernorm import LayerNorm
from nbnet.layers.pool import AvgPool2D, GlobalAvgPool2D, MaxPool2D
from nbnet.layers.sequential import Sequential
from nbnet.layers.shapes import Identity, Permute, Reshape

__all__ = [
    "Add",
    "AvgPool2D",
    "BatchNorm",
    "Concat",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2D",
    "GroupNorm",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "Multiply",
    "Parallel",
    "Param",
    "Permute",
    "ReLU",
    "Renorm",
    "Reshape",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
