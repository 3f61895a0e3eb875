"""Optimisers on the CPU: one pass over parameter, gradient and state, made from the table.

The chunk is sliced first, so that the loop runs from 0 (see `activation.cpu`) and becomes vector code. Updates are compiled without
fastmath: with it, LLVM may sum their terms in another order where a driver calls them, and serial and parallel would differ.
"""

from nbnet.kernels.cpu.compile import body, precise
from nbnet.kernels.cpu.drivers import drivers
from nbnet.kernels.optimizers import TABLE, filled
from nbnet.kernels.tables import made_on_demand

KERNEL = """
@body
def run(part, parts, param, grad, SLOTS, OPTIONS):
    start, stop = chunks.bounds(part, parts, param.size)
    param, grad, SLOTS = param[start:stop], grad[start:stop], SLICES
    T = param.dtype.type
    NUMBERS = numbers(OPTIONS)
    NUMBERS = TYPED
    for i in range(param.size):
        param[i], STATES = update(param[i], grad[i], STATES, NUMBERS)


@serial
def NAME_serial(param, grad, SLOTS, OPTIONS):
    n = chunks.count(param.size, WORK)
    for k in range(n):
        run(k, n, param, grad, SLOTS, OPTIONS)


@parallel
def NAME_parallel(param, grad, SLOTS, OPTIONS):
    n = chunks.count(param.size, WORK)
    parallel_for(n, run, (n, param, grad, SLOTS, OPTIONS))
"""


def _make(name):
    row = TABLE[name]
    slices, states = (", ".join(f"{slot}[{index}]" for slot in row.slots) for index in ("start:stop", "i"))
    text = filled(KERNEL.replace("SLICES", slices).replace("STATES", states), row)
    return drivers(name, text, row.update, body=body, numbers=body(row.numbers), update=precise(row.update))


__getattr__, __dir__ = made_on_demand(globals(), TABLE, _make, ("_serial", "_parallel"))
