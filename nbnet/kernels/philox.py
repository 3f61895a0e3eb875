"""Philox4x32-10: counter-based random numbers (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").

A pure function of a counter and a key: any element of a stream can be computed anywhere, in any order, on any device, and nothing is
stored. nbnet uses key = the 64-bit seed and counter = (element // 4 as 64 bits, stream, step); the four words
belong to elements 4i to 4i + 3. The tests check the published known answers of Random123.
"""

import numpy as np
from numba import njit

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_SHIFT, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _philox(c0, c1, c2, c3, k0, k1):
    """Four random uint32 words from a counter of four uint32 words and a key of two. For scalars and arrays."""
    for _ in range(10):
        p0 = MULTIPLIER_0 * np.uint64(c0)
        p1 = MULTIPLIER_1 * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32(np.uint32(p1 >> _SHIFT) ^ c1 ^ k0),
            np.uint32(p1 & _LOW),
            np.uint32(np.uint32(p0 >> _SHIFT) ^ c3 ^ k1),
            np.uint32(p0 & _LOW),
        )
        k0 = np.uint32(k0 + WEYL_0)
        k1 = np.uint32(k1 + WEYL_1)
    return c0, c1, c2, c3


philox = njit(_philox)  # no fastmath: CUDA kernels call it too


def words(start: int, stop: int, seed: int, stream: int, step: int) -> np.ndarray:
    """The random words of elements start to stop, as (stop - start,) uint32: the same bits that the kernels use.

    Args:
        start, stop: a range of elements; seed: 64 bits; stream, step: 32 bits each.
    """
    counter = np.arange(start // 4, (stop + 3) // 4, dtype=np.uint64)
    first = start - start // 4 * 4
    return words_of(counter, seed, stream, step).reshape(-1)[first : first + stop - start]


def words_of(counter: np.ndarray, seed: int, stream: int | np.ndarray, step: int | np.ndarray) -> np.ndarray:
    """The four random words of each counter, (..., 4) uint32.

    Args:
        counter: (...) uint64. seed: 64 bits. stream, step: 32 bits each, or arrays of uint32 that broadcast to the shape of counter.
    """
    with np.errstate(over="ignore"):
        c0, c1 = (counter & _LOW).astype(np.uint32), (counter >> _SHIFT).astype(np.uint32)
        last = np.asarray(stream, np.uint32), np.asarray(step, np.uint32), np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)
        return np.stack(_philox(c0, c1, *last), axis=-1)
