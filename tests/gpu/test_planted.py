"""Faults planted in nbnet's own kernels are found: each line below is changed in a copy of a module, whose kernel then runs."""

import importlib.util
import inspect
import re
import sys

import cuda_machine
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not cuda_machine.EXECUTED, reason="is about --cuda=executor")
if cuda_machine.EXECUTED:
    from nbnet.kernels.gpu import device

    from .executor import runtime
    from .executor.faults import KernelFault


def x(*shape, seed=0):
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def sums(module):
    module.multiply_sum(*map(device.to_device, (x(2, 9, 5), x(2, 9, 5))), device.pool().empty((2, 5), np.float32))


def squares(module):
    module.squares(device.to_device(x(20_000)), device.pool().empty((1,), np.float64))


def swap(module):
    module.swap(device.to_device(x(2, 3, 4, 5)), device.pool().empty((2, 4, 3, 5), np.float32))


def max_pool(channels):
    def call(module):
        y = device.pool().empty((2, 2, 2, channels), np.float32)
        module.max_forward(device.to_device(x(2, 4, 4, channels)), 2, 2, 2, 2, 0, 0, y)

    return call


def softmax_in_place(rows, classes):
    def call(module):
        array = device.to_device(x(rows, classes))
        module.softmax_forward(array, array)

    return call


def depthwise(module):
    y = device.pool().empty((1, 4, 4, 3), np.float32)
    module.forward(*map(device.to_device, (x(1, 4, 4, 3), x(3, 3, 3), x(3))), 1.0, *(1,) * 6, y, *(None,) * 3)


def product(module):
    one = (1, 1), (1, 1), (0, 0), (1, 1)
    module.convolve(device.to_device(x(40, 1, 1, 40)), device.to_device(x(40, 8)), None, 1.0, *one, device.to_device(x(40, 1, 1, 8)))


# name: module, line, what it becomes, call, message
FAULTS = {
    "beyond by one: pooling": (
        "pool.cuda", "for h in range(top, bottom):", "for h in range(top, bottom + 1):", max_pool(3),
        r"a read of 4 bytes \d+ bytes after the end of array x",
    ),
    "beyond by one: depthwise convolution": (
        "depthwise.cuda", "if h >= 0 and h < shape[1] and w", "if h >= 0 and h <= shape[1] and w", depthwise,
        r"a read of 4 bytes \d+ bytes after the end of array x",
    ),
    "missing barrier: sums over rows": (
        "array.cuda", "    cuda.syncthreads()\n", "", sums,
        "a read of shared array shared .*, (to which nothing|which thread .* wrote without a)",
    ),
    "missing barrier: tiles of a product": (
        "gpu.products", "            cuda.syncthreads()\n            half", "            half", product,
        "shared array [ab]_tile .*, (to which nothing|which thread .* (wrote|read) without a)",
    ),
    "race of threads: softmax in place": (
        "activation.cuda", "x[row * classes] if row < count else x.dtype.type(0)", "x[min(row, count - 1) * classes]",
        softmax_in_place(3, 5),
        "of array [xy] .*, which thread .* (wrote|read) without a barrier",
    ),
    "race of blocks: swap": (
        "array.cuda", "y[at] = x[", "y[at // 512] = x[", swap, "a write of array y .* at index 0, which thread .* wrote without a barrier",
    ),
    "misaligned vector: pooling": (
        "pool.cuda", "best = load4(x, offset(shape, n, top, left, c))", "best = load4(x, offset(shape, n, top, left, c) + 1)", max_pool(4),
        "a read of 16 bytes at byte 4 of array x .*, which is not aligned",
    ),
    "divergent barrier: sums over rows": (
        "array.cuda", "    cuda.syncthreads()\n", "    if c < channels:\n        cuda.syncthreads()\n", sums,
        r"a barrier that thread \(5, 0, 0\) does not reach: it (has ended|waits)",
    ),
    "divergent shuffle: softmax": (
        "activation.cuda", "    largest = x[row", "    if row >= count:\n        return\n    largest = x[row", softmax_in_place(3, 5),
        "a shuffle .* does not reach: it has ended",
    ),
    "divergent barrier: softmax of a long row": (
        "activation.cuda", "    for c in range(first, last, group):\n        largest",
        "    if first > 64:\n        return\n    for c in range(first, last, group):\n        largest",
        softmax_in_place(1, 2000), "does not reach: it has ended",
    ),
    "never written: sum of squares": (
        "array.cuda", "    if cuda.threadIdx.x == 0:\n        partials",
        "    if cuda.threadIdx.x == 0 and cuda.blockIdx.x > 0:\n        partials", squares,
        r"a read of array partials .* at index 0, to which nothing has been written",
    ),
}  # fmt: skip


def planted(stem, name, line, instead):
    """A copy of a module of kernels, in which one line is another one. It stays, as its machine code does."""
    text = inspect.getsource(importlib.import_module(f"nbnet.kernels.{name}"))
    assert line in text, "the kernel has changed: plant the fault in another line"
    path = runtime.FOLDER / "planted" / f"{stem}.py"
    runtime.keep(path, text.replace(line, instead, 1).encode())
    spec = importlib.util.spec_from_file_location(f"nbnet.kernels.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_kernel_is_found(name):
    module, line, instead, call, message = FAULTS[name]
    stem = re.sub(r"\W+", "_", name)
    call(planted(f"{stem}_not", module, line, line))
    with pytest.raises(KernelFault) as found:
        call(planted(stem, module, line, instead))
    assert re.search(message, str(found.value)), str(found.value)
    assert f"{stem}.py:" in str(found.value)
