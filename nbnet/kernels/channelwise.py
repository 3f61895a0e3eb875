"""Arithmetic on C numbers: a formula of numbers becomes the source of a loop over channels, for the CPU and for CUDA.

Batch normalisation needs about forty operations on C numbers between its heavy kernels. NumPy calls for them cost more than the
kernels of a small network.
"""

import numpy as np

LARGEST = float(np.finfo(np.float32).max)


def within(value, output):
    """value, clamped to the range of float32 where that is output's dtype."""
    if output.itemsize == 4:
        if value > LARGEST:
            return LARGEST
        if value < -LARGEST:
            return -LARGEST
    return value


def named(formula, arrays, clamp):
    """The name of the kernel: the formula's, which of its arguments are arrays (a) or numbers (n), and whether it clamps."""
    return f"{formula.__name__}_{''.join('na'[is_array] for is_array in arrays)}{'_clamped' if clamp else ''}"


def source(name: str, outputs: int, arrays: tuple[bool, ...], clamp: bool, loop: str, first: str = "") -> str:
    """The Python source of a kernel (out0, ..., in0, ...) with out0[c], ... = formula(in0[c], ...).

    Args:
        arrays: which of the formula's arguments are arrays (C,); the others are numbers for all channels.
        clamp: see Backend.channelwise.
        loop: the line that loops over channels c. first: parameters before the others.
    """
    targets, sources = [f"out{i}" for i in range(outputs)], [f"in{i}" for i in range(len(arrays))]
    values = ", ".join(f"{argument}[c]" if is_array else argument for argument, is_array in zip(sources, arrays))
    lines = [f"def {name}({first}{', '.join(targets + sources)}):", f"    {loop}", f"        values = formula({values})"]
    for i, target in enumerate(targets):
        lines.append(f"        {target}[c] = {f'within(values[{i}], {target})' if clamp else f'values[{i}]'}")
    return "\n".join(lines)
