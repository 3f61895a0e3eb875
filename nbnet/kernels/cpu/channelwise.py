"""Arithmetic on C numbers: a formula of numbers becomes a compiled loop over channels, or a kernel of the GPU (`launch`).

Between the heavy kernels of batch normalisation there are about forty operations on C numbers. NumPy calls for them cost more
than the kernels of a small network, and all the more after a kernel has filled the caches with other things.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from nbnet.kernels.cpu.compile import precise, serial_precise

LARGEST = float(np.finfo(np.float32).max)


def within(value, output):
    """value, or the largest number of output's dtype where that is float32 and value is beyond."""
    if output.itemsize == 4:
        if value > LARGEST:
            return LARGEST
        if value < -LARGEST:
            return -LARGEST
    return value


def source(name: str, outputs: int, arrays: tuple[bool, ...], clamp: bool, loop: str, first: str = "") -> str:
    """The Python source of a kernel (out0, ..., in0, ...) with out0[c], ... = formula(in0[c], ...).

    Args:
        arrays: which of the formula's arguments are arrays (C,), and not numbers for all channels.
        clamp: see Backend.channelwise.
        loop: the line that goes over channels c. first: parameters before the others.
    """
    targets, sources = [f"out{i}" for i in range(outputs)], [f"in{i}" for i in range(len(arrays))]
    values = ", ".join(f"{argument}[c]" if is_array else argument for argument, is_array in zip(sources, arrays))
    lines = [f"def {name}({first}{', '.join(targets + sources)}):", f"    {loop}", f"        values = formula({values})"]
    for i, target in enumerate(targets):
        lines.append(f"        {target}[c] = {f'within(values[{i}], {target})' if clamp else f'values[{i}]'}")
    return "\n".join(lines)


@cache
def compiled(formula: Callable[..., tuple], outputs: int, arrays: tuple[bool, ...], clamp: bool) -> Any:
    """The kernel on the CPU. Its source belongs to the formula's file: Numba keeps the machine code on disk until that file changes."""
    name = f"{formula.__name__}_{''.join('na'[is_array] for is_array in arrays)}{'_clamped' if clamp else ''}"
    code = compile(source(name, outputs, arrays, clamp, "for c in range(out0.size):"), formula.__code__.co_filename, "exec")
    scope = {"formula": precise(formula), "within": precise(within), "__name__": formula.__module__}
    exec(code, scope)
    return serial_precise(scope[name])
