"""Interpolation between four pixels. For the CPU and, since there is no fastmath, for CUDA kernels."""

from numba import njit


def _inside(place, size, border):
    """The pixel, of `size`, at a place that may be outside; -1 is black."""
    if 0 <= place < size:
        return place
    if border == 0:
        return -1
    if border == 1:
        return 0 if place < 0 else size - 1
    period = max(2 * size - 2, 1)
    place = place % period
    return place if place < size else period - place


def _weights(place, low, high):
    """The 8-bit weights of the pixels below and above a place with 24 bits after its point; 0 for one that is black."""
    above = (place >> 16) & 255
    return 256 - above if low >= 0 else 0, above if high >= 0 else 0


inside = njit(_inside)
weights = njit(_weights)
