"""Drivers of CPU kernels that are made from text."""

from nbnet.kernels import chunks
from nbnet.kernels.cpu.cache import folder_of
from nbnet.kernels.cpu.compile import serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.sources import define


def drivers(name, text, formula, **scope):
    """What a filled-in template of drivers defines, for a formula; scope: the other names in the template."""
    scope = {"chunks": chunks, "serial": serial, "parallel": parallel, "parallel_for": parallel_for, **scope}
    return define(name, text, formula, folder_of(formula), scope)
