"""Packed calls: kernels get the arguments that Python gives them, also from another process's cache, and exceptions arrive."""

import subprocess
import sys

import numpy as np
import pytest

from nbnet.kernels.cpu.compile import serial
from nbnet.kernels.cpu.packed import Playback, play


@serial
def show(of_images, narrow, pair, number, single, whole, yes, no, nothing, out):
    """Everything that kernels take: a view, another dtype, a tuple of arrays, numbers, booleans, None."""
    out[0] = of_images[1, 0, 2]
    out[1] = narrow[1] + (nothing is None)
    out[2] = pair[0][0, 1] * pair[1][1, 0]
    out[3] = number
    out[4] = single
    out[5] = whole
    out[6] = 10.0 * yes + no
    out[7] = of_images.shape[0] + 10 * of_images.shape[1] + 100 * of_images.shape[2] + 1000 * narrow.size


@serial
def add(x, number):
    x[0] += number


@serial
def divide(x, y):
    if y[0] == 0:
        raise ValueError("y is 0")
    x[0] /= y[0]


def arguments():
    pair = np.arange(4.0).reshape(2, 2), 5 + np.arange(4.0).reshape(2, 2)
    images = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    return images[1:3], np.arange(3, dtype=np.uint8), pair, 0.1, np.float32(0.1), -(1 << 40), True, False, None


def test_arguments_arrive():
    directly, packed = np.zeros(8), np.zeros(8)
    show(*arguments(), directly)
    playback = Playback([(show, (*arguments(), packed))])
    assert not packed.any()
    playback()
    assert packed.tolist() == directly.tolist()
    assert directly.tolist() == [14, 2, 7, 0.1, np.float32(0.1), -(1 << 40), 10, 2 + 20 + 300 + 3000]


def test_calls_come_in_order_and_again():
    x, seen = np.zeros(1), []
    for number in (1.0, 2.0):
        add(x, number)
    calls = [(add, (x, 1.0)), (seen.append, (x,)), (add, (x, 2.0)), (add, (x, 0.5)), (np.ndarray.fill, (x[:0], 7.0)), (add, (x, 4.0))]
    playback = Playback(calls)
    assert len(playback) == 6
    for _ in range(3):
        playback()
    assert x[0] == 3 + 3 * 7.5
    assert len(seen) == 3


def test_nothing_to_call():
    playback = Playback([])
    playback()
    assert len(playback) == 0
    assert play(np.zeros((0, 2), np.intp)) == 0


def test_an_exception_of_a_kernel_arrives():
    x, y = np.ones(1), np.ones(1)
    add(x, 1.0)
    divide(x, y)
    playback = Playback([(add, (x, 1.0)), (divide, (x, y)), (add, (x, 1.0))])
    y[0] = 0
    with pytest.raises(ValueError, match="y is 0"):
        playback()
    assert x[0] == 3  # the last call was not made
    y[0] = 2
    playback()
    assert x[0] == 3


def test_machine_code_from_another_process(tmp_path):
    """It has the packed function too."""
    program = """
import numpy as np
from nbnet.kernels import load
from nbnet.kernels.cpu.packed import Playback
from nbnet.kernels.cpu.numba_private import overload
kernel, x = load("array.add", "serial"), np.arange(5.0)
kernel(x, x, np.empty(5))
y = np.empty(5)
Playback([(kernel, (x, x, y))])()
print(y.tolist(), sum(kernel.stats.cache_hits.values()))
"""
    for hits in (0, 1):
        environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[0] == f"[0.0, 2.0, 4.0, 6.0, 8.0] {hits}"
