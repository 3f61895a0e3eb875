"""What kernels over pooling windows share."""

from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.prefetch import prefetch

# The least distance of prefetching, in numbers: the next two rows of an image, since loads alternate between two rows and hardware
# prefetching finds no stream to follow. A shorter distance is worse than none (batch norm with a max-pool, 128 x 32 x 32 x 64, forward:
# 1.1 ms; 512 numbers ahead 1.7, 1,536 ahead 2.7).
PREFETCH_DISTANCE = 4096


@body
def fetch_window(x, at, width, channels):
    """Prefetch the pixels of the window two rows below the one whose first number is at `at`."""
    at += max(PREFETCH_DISTANCE, 2 * width * channels)
    for pixel in (at, at + channels, at + width * channels, at + (width + 1) * channels):
        prefetch(x, pixel)


@body
def first_wins(a, b):
    """The mask of lanes where a is the maximum of a and b: NaN is the largest, and of equals the first wins."""
    return (a >= b) | (a != a)
