"""Arithmetic on C numbers on the CPU (see nbnet.kernels.channelwise)."""

from functools import cache

from nbnet.kernels.channelwise import named, source, within
from nbnet.kernels.cpu.cache import folder_of
from nbnet.kernels.cpu.compile import precise, serial_precise
from nbnet.kernels.sources import define


@cache
def compiled(formula, outputs, arrays, clamp):
    """The kernel (out0, ..., in0, ...) of a formula."""
    name = named(formula, arrays, clamp)
    text = source(name, outputs, arrays, clamp, "for c in range(out0.size):")
    scope = {"formula": precise(formula), "within": precise(within)}
    return serial_precise(define(name, text, formula, folder_of(formula), scope)[name])
