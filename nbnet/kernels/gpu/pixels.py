"""What kernels share that compute an NHWC array pixel by pixel: a thread has four channels of a pixel, or one if the channels are not a
multiple of four."""

from numba import cuda

from nbnet.kernels.gpu.compile import check_count, formula, function
from nbnet.kernels.gpu.launch import THREADS, divide, narrow, run


@function
def place(shape, width):
    """Image, row, column and first channel of the thread's element of an (N, H, W, C) array; image is N beyond the end."""
    rest, channel = divide(cuda.grid(1), shape[3] // width)
    rest, column = divide(rest, shape[2])
    image, row = divide(rest, shape[1])
    return narrow(image), narrow(row), narrow(column), narrow(channel * width)


def check_pixels(*shapes):
    """Refuse arrays whose pixels cannot be numbered in 32 bits.

    Raises:
        KernelError: one has more.
    """
    for images, height, width, _ in shapes:
        check_count(images * height * width, 2**31)


def launch(compiled, shape, *args):
    """Launch a thread for every four channels, or every channel, of an array of that shape."""
    check_pixels(shape, *[arg for arg in args if type(arg) is tuple and len(arg) == 4])
    width = 4 if shape[3] % 4 == 0 else 1
    threads = shape[0] * shape[1] * shape[2] * (shape[3] // width)
    if threads:
        run(compiled[width == 4], -(-threads // THREADS), THREADS, *args)


@formula
def offset(shape, image, row, column, channel):
    """The offset of an element of an (N, H, W, C) array, whose pixels are numbered in 32 bits."""
    pixel = narrow(narrow(narrow(narrow(image * shape[1]) + row) * shape[2]) + column)
    return pixel * narrow(shape[3]) + channel


@formula
def add_kahan(total, lost, value, zero):
    """total + value, and its rounding error (Kahan 1965): as precise as a sum in float64, but cheaper."""
    value -= lost
    following = total + value
    lost = (following - total) - value
    return following, lost if lost == lost else zero  # infinity stays infinity
