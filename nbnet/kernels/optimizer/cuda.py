"""Optimisers on CUDA: four elements per thread, one pass over parameter, gradient and state, made from the table.

What changes from step to step, such as the learning rate, is read from an array, so that a launch has the same arguments in every step.
Nothing is written if the gate of the step is closed (nbnet.kernels.gpu.gate).
"""

import numpy as np

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import formula, from_text
from nbnet.kernels.gpu.gate import of_updates
from nbnet.kernels.gpu.launch import elementwise, load, store
from nbnet.kernels.optimizers import TABLE, TRUTHS, filled, numbers_of
from nbnet.kernels.tables import made_on_demand

KERNEL = """
@kernel
def _NAME(param, grad, SLOTS, size, gate, numbers):
    if gate[0] == 0:
        return
    at = 4 * cuda.grid(1)
    NUMBERS = READ
    p, g, LOCALS = load(param, at, size), load(grad, at, size), LOADED
    a = update(p[0], g[0], STATES0, NUMBERS)
    b = update(p[1], g[1], STATES1, NUMBERS)
    c = update(p[2], g[2], STATES2, NUMBERS)
    d = update(p[3], g[3], STATES3, NUMBERS)
    store(param, at, size, (a[0], b[0], c[0], d[0]))STORED


def NAME(param, grad, SLOTS, OPTIONS):
    values = device.numbers(np.array(numbers(OPTIONS), param.dtype))
    elementwise(_NAME, param.size, param, grad, SLOTS, param.size, of_updates(), values)
"""


def _make(name):
    row = TABLE[name]
    slots = dict(enumerate(row.slots, start=1))
    words = {"LOCALS": ", ".join(f"s{i}" for i in slots), "LOADED": ", ".join(f"load({slot}, at, size)" for slot in row.slots)}
    words |= {f"STATES{k}": ", ".join(f"s{i}[{k}]" for i in slots) for k in range(4)}
    words["STORED"] = "".join(f"\n    store({slot}, at, size, (a[{i}], b[{i}], c[{i}], d[{i}]))" for i, slot in slots.items())
    numbers = numbers_of(row)
    words["READ"] = ", ".join(f"numbers[{i}] != 0" if name in TRUTHS else f"numbers[{i}]" for i, name in enumerate(numbers))
    text = KERNEL
    for word, code in words.items():
        text = text.replace(word, code)
    scope = {"load": load, "store": store, "elementwise": elementwise, "numbers": row.numbers, "update": formula(row.update)}
    scope |= {"np": np, "device": device, "of_updates": of_updates}
    return from_text(name, filled(text, row), row.update, scope)


__getattr__, __dir__ = made_on_demand(globals(), TABLE, _make)
