"""Optimisers on CUDA: four elements per thread, one pass over parameter, gradient and state, made from the table."""

from nbnet.kernels.gpu.compile import formula, from_text
from nbnet.kernels.gpu.launch import elementwise, load, store
from nbnet.kernels.optimizers import TABLE, filled
from nbnet.kernels.tables import made_on_demand

KERNEL = """
@kernel
def _NAME(param, grad, SLOTS, size, NUMBERS):
    at = 4 * cuda.grid(1)
    p, g, LOCALS = load(param, at, size), load(grad, at, size), LOADED
    a = update(p[0], g[0], STATES0, NUMBERS)
    b = update(p[1], g[1], STATES1, NUMBERS)
    c = update(p[2], g[2], STATES2, NUMBERS)
    d = update(p[3], g[3], STATES3, NUMBERS)
    store(param, at, size, (a[0], b[0], c[0], d[0]))STORED


def NAME(param, grad, SLOTS, OPTIONS):
    T = param.dtype.type
    NUMBERS = numbers(OPTIONS)
    elementwise(_NAME, param.size, param, grad, SLOTS, param.size, TYPED)
"""


def _make(name):
    row = TABLE[name]
    slots = dict(enumerate(row.slots, start=1))
    words = {"LOCALS": ", ".join(f"s{i}" for i in slots), "LOADED": ", ".join(f"load({slot}, at, size)" for slot in row.slots)}
    words |= {f"STATES{k}": ", ".join(f"s{i}[{k}]" for i in slots) for k in range(4)}
    words["STORED"] = "".join(f"\n    store({slot}, at, size, (a[{i}], b[{i}], c[{i}], d[{i}]))" for i, slot in slots.items())
    text = KERNEL
    for word, code in words.items():
        text = text.replace(word, code)
    scope = {"load": load, "store": store, "elementwise": elementwise, "numbers": row.numbers, "update": formula(row.update)}
    return from_text(name, filled(text, row), row.update, scope)


__getattr__, __dir__ = made_on_demand(globals(), TABLE, _make)
