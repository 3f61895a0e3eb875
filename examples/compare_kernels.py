"""Compare two kernels for one operation: correctness, agreement, speed.

python compare_kernels.py --kernels serial parallel --size 64 compares two of nbnet; numpy is one too, and so is your own function
with the same parameters, such as `mine` below (the default compares it with serial).
"""

import argparse
import time

import numpy as np
from numba import njit

import nbnet as nb


@njit(fastmath={"contract", "reassoc", "nsz", "arcp"})
def mine(x, y):
    """Another ReLU: the maximum instead of a branch. For numbers only: it does not pass NaN on."""
    for i in range(x.size):
        y[i] = max(x[i], x.dtype.type(0))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--kernels", nargs=2, default=["serial", "mine"], metavar="NAME", help="numpy, serial, parallel or mine")
parser.add_argument("--size", type=int, default=32, help="images of size x size pixels, 64 channels, 32 of them")
options = parser.parse_args()


def kernel(name):
    """ReLU's forward kernel: arrays in and out, nothing allocated."""
    return mine if name == "mine" else nb.get_backend(name).kernel("activation.relu_forward")


x = np.random.default_rng(0).standard_normal(32 * options.size**2 * 64).astype(np.float32)
expected = np.maximum(x, 0)
copy = np.zeros_like(x)
outputs = {name: np.empty_like(x) for name in options.kernels}
times = {name: [] for name in options.kernels}
copies = []
for _ in range(16):  # in turns, so that a busy moment affects all; the first turn compiles and is discarded
    for name in options.kernels:
        began = time.perf_counter()
        kernel(name)(x, outputs[name])
        times[name].append(time.perf_counter() - began)
    began = time.perf_counter()
    np.copyto(copy, expected)
    copies.append(time.perf_counter() - began)

print(f"ReLU of {x.size:,} float32 numbers, {x.nbytes / 1e6:.1f} MB")
for name, output in outputs.items():
    error = abs(output - expected).max()
    assert error == 0, f"{name} is wrong by {error}"  # a wrong kernel is not timed
    low, middle, high = np.percentile(times[name][1:], [0, 50, 100])
    rate = 2 * x.nbytes / middle / 1e9
    print(f"{name:>9}: {1e3 * middle:6.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f}), {rate:.1f} GB/s")
print(f"{'a copy':>9}: {1e3 * np.median(copies[1:]):6.2f} ms, the least that reading and writing costs")
first, second = (np.median(times[name][1:]) for name in options.kernels)
print(f"{options.kernels[1]} takes {second / first:.2f} times as long as {options.kernels[0]}")
