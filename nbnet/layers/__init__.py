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
from nbnet.layers.branches import Add, Concat, Multiply, Parallel, Residual
from nbnet.layers.conv1d import Conv1D
from nbnet.layers.conv2d import Conv2D, DepthwiseConv2D
from nbnet.layers.conv_transpose import ConvTranspose1D, ConvTranspose2D
from nbnet.layers.dense import Dense
from nbnet.layers.dropout import Dropout
from nbnet.layers.flatten import Flatten
from nbnet.layers.groupnorm import GroupNorm, InstanceNorm
from nbnet.layers.layernorm import LayerNorm, RMSNorm
from nbnet.layers.pool import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D
from nbnet.layers.pool1d import AvgPool1D, GlobalAvgPool1D, GlobalMaxPool1D, MaxPool1D
from nbnet.layers.resample import AdaptiveAvgPool2D, Crop2D, Pad2D, UpSample2D, ZeroPad2D
from nbnet.layers.separable import SeparableConv2D
from nbnet.layers.sequential import Sequential
from nbnet.layers.shapes import Identity, Permute, Reshape

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "AdaptiveAvgPool2D",
    "Add",
    "AvgPool1D",
    "AvgPool2D",
    "BatchNorm",
    "Concat",
    "Conv1D",
    "Conv2D",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "Crop2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "MaxPool1D",
    "MaxPool2D",
    "Mish",
    "Multiply",
    "PReLU",
    "Pad2D",
    "Parallel",
    "Param",
    "Permute",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Renorm",
    "Reshape",
    "Residual",
    "SeparableConv2D",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "UpSample2D",
    "ZeroPad2D",
]
