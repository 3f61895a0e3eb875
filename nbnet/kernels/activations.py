"""The table of element-wise activations, from which their kernels are made: on the CPU, on CUDA, and fused with batch normalisation.

A row is a name, the options of its kernels and what backward needs. Its formulas have the same name in three modules:

    nbnet.kernels.activation.reference    NumPy: the definition
    nbnet.kernels.cpu.activations         vectors
    nbnet.kernels.gpu.activations         numbers, for CUDA

nbnet.kernels.tables makes the kernels.
"""

import math

from nbnet.kernels.tables import Row

TABLE = {
    row.name: row
    for row in (
        Row("relu", saves="y"),
        Row("leaky_relu", ("slope",), saves="y"),
        Row("tanh", saves="y"),
        Row("sigmoid", saves="y"),
        Row("gelu"),
        Row("gelu_tanh"),
        Row("silu"),
        Row("mish"),
        Row("elu", ("alpha", "outer", "inner")),
        Row("softplus", ("beta", "threshold")),
        Row("logsigmoid"),
        Row("softsign"),
        Row("hardswish"),
        Row("hardsigmoid"),
        Row("hardtanh", ("low", "high"), saves="y"),
    )
}

RECTIFIERS = ("relu", "leaky_relu")  # which products and batch normalisation know by their slope
SMOOTH = tuple(name for name in TABLE if name not in RECTIFIERS)

GELU_TANH = 2 * math.sqrt(2 / math.pi), 0.044715 * 2 * math.sqrt(2 / math.pi)  # gelu_tanh(x) = x sigmoid(a x + b x^3)
