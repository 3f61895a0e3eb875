"""Arithmetic on C numbers on the CPU: a formula of numbers becomes one compiled loop over channels.

Between the heavy kernels of batch normalisation there are about forty operations on C numbers. NumPy calls for them cost more
than the kernels of a small network, and all the more after a kernel has filled the caches with other things.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from nbnet.kernels.compile import precise, serial_precise

LARGEST = float(np.finfo(np.float32).max)


@precise
def within(value, output):
    """value, or the largest number of output's dtype where that is float32 and value is beyond."""
    if output.itemsize == 4:
        if value > LARGEST:
            return LARGEST
        if value < -LARGEST:
            return -LARGEST
    return value


@cache
def compiled(formula: Callable[..., tuple], outputs: int, arrays: tuple[bool, ...], clamp: bool) -> Any:
    """A kernel (out0, ..., in0, ...) with out0[c], ... = formula(in0[c], ...) for each channel c.

    Its source is written here, and belongs to the formula's file: Numba keeps the machine code on disk until that file changes.

    Args:
        arrays: which of the formula's arguments are arrays (C,), and not numbers for all channels.
        clamp: see Backend.channelwise.
    """
    targets, sources = [f"out{i}" for i in range(outputs)], [f"in{i}" for i in range(len(arrays))]
    values = ", ".join(f"{name}[c]" if is_array else name for name, is_array in zip(sources, arrays))
    name = f"{formula.__name__}_{''.join('na'[is_array] for is_array in arrays)}{'_clamped' if clamp else ''}"
    lines = [f"def {name}({', '.join(targets + sources)}):", "    for c in range(out0.size):", f"        values = formula({values})"]
    for i, target in enumerate(targets):
        lines.append(f"        {target}[c] = {f'within(values[{i}], {target})' if clamp else f'values[{i}]'}")
    scope = {"formula": precise(formula), "within": within, "__name__": formula.__module__}
    exec(compile("\n".join(lines), formula.__code__.co_filename, "exec"), scope)
    return serial_precise(scope[name])
