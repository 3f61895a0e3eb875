"""The table of element-wise activations, from which their kernels are made: on the CPU, on CUDA, and fused with batch normalisation.

A row is a name, the options of its kernels and what backward needs. Its formulas have the same name in three modules:

    nbnet.kernels.activation.reference    NumPy: the definition
    nbnet.kernels.cpu.activations         vectors
    nbnet.kernels.gpu.activations         numbers, for CUDA

A kernel is made when it is first asked for: a template of its operation, filled in for a row. So activations that nobody uses cost
nothing.
"""

import math
from typing import NamedTuple

from nbnet.kernels.made import made_on_demand


class Row(NamedTuple):
    """options: numbers, in the order in which kernels take them, whose names no kernel has for something else. saves: "x" or "y", which
    of the two backward gets."""

    name: str
    options: tuple[str, ...] = ()
    saves: str = "x"


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


def filled(template, row):
    """The source of a row's kernel: NAME, what it saves, its options as parameters and arguments, as a tuple, and in dtype T."""
    listed = ", ".join(row.options) + "," * (len(row.options) == 1)
    text = template.replace(", OPTIONS", "".join(f", {option}" for option in row.options)).replace("TUPLE", f"({listed})")
    text = text.replace("(TYPED)", f"({''.join(f'T({option}), ' for option in row.options)})")
    text = text.replace(", TYPED", "".join(f", T({option})" for option in row.options))
    return text.replace("SAVED", row.saves).replace("NAME", row.name)


def made_from_table(module, templates, make, suffixes=("",), rows=tuple(TABLE)):
    """`__getattr__` and `__dir__` of a module, given by its globals, whose kernels are made from the table.

    Args:
        templates: {"NAME_forward": its source}. suffixes: of the functions that a template defines. rows: their names.
        make: (name, source, row) -> everything that the source defines.
    """
    names = {kernel.replace("NAME", name): (template, TABLE[name]) for kernel, template in templates.items() for name in rows}

    def made(name):
        template, row = names[name]
        return make(name, filled(template, row), row)

    return made_on_demand(module, names, made, suffixes)
