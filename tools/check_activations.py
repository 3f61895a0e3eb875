"""How precise the activations are: python tools/check_activations.py [--every N] [--between LOW HIGH] [--float64] [NAME ...]

Each activation and its derivative on the backend `parallel`, over all finite float32 numbers (an hour each; with --every 257 a few
seconds; with --between 2e-4 256 --every 97 all numbers where functions bend, and some elsewhere: minutes), or over a sample of float64,
against the definition in higher precision (nbnet.kernels.activation.reference in float64 or longdouble). Printed are the
largest errors in units in the last place, and the x where they are:

    y            where |y| > 1e-3 |x|
    tail         of y elsewhere
    derivative   in units of the derivative, or of 1 / 2 where it is smaller: it may have zeros
"""

import argparse
import math
import sys

import numpy as np
from numba import vectorize

from nbnet.kernels import load
from nbnet.kernels.activation import reference
from nbnet.kernels.activations import TABLE

OPTIONS = {"leaky_relu": (0.01,), "elu": (1.0, 1.0, 1.0), "softplus": (1.0, 20.0), "hardtanh": (-1.0, 1.0)}  # PyTorch's defaults
SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
SETTINGS = [*((name, OPTIONS.get(name, ())) for name in TABLE), ("elu", (*SELU, 1.0)), ("softplus", (0.3, 20.0)), ("hardtanh", (0.0, 6.0))]
LIMIT = 4  # units; tests/tolerances.py has it too
SMALL = 1 / 2
STEP = 1 << 22  # numbers at a time


@vectorize(["float64(float64)"])
def erfc(x):
    return math.erfc(x)


def normal(x):
    """Phi(x) in longdouble: the series about 0, or Laplace's continued fraction in the tails."""
    x = x.astype(np.longdouble)
    t = np.minimum(np.abs(x), 120)
    density = np.exp(-t * t / 2) / np.sqrt(2 * np.arctan(np.longdouble(1)) * 4)
    inner = np.where(t < 3, t, 0)
    term, series = inner, inner.copy()
    for k in range(3, 141, 2):
        term = term * inner * inner / k
        series += term
    outer = np.where(t < 3, 3, t)
    fraction = outer
    for k in range(150, 0, -1):
        fraction = outer + k / fraction
    tail = np.where(t < 3, 0.5 - density * series, density / fraction)
    return np.where(x > 0, 1 - tail, tail)


def errors(name, options, x, backend="parallel"):
    """The errors of y and of the derivative in units in the last place, and whether y is in its tail; finite x."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    y, dx, exact = np.empty_like(x), np.empty_like(x), np.empty(x.shape, wide)
    load(f"activation.{name}_forward", backend)(x, *options, y)
    load(f"activation.{name}_backward", backend)(np.ones_like(x), x if TABLE[name].saves == "x" else y, *options, dx)
    options = [x.dtype.type(option).astype(wide) for option in options]
    load(f"activation.{name}_forward", "numpy")(x.astype(wide), *options, exact)
    slope, ones = np.empty_like(exact), np.ones_like(exact)
    load(f"activation.{name}_backward", "numpy")(ones, x.astype(wide) if TABLE[name].saves == "x" else exact, *options, slope)
    tail = ~(np.abs(exact) > 1e-3 * np.abs(x.astype(wide)))
    return units(y, exact, np.finfo(x.dtype).tiny), tail, units(dx, slope, SMALL)


def units(actual, exact, least):
    """|actual - exact| in units in the last place of exact, or of `least` where exact is smaller; infinite where one is NaN."""
    dtype = actual.dtype
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = exact.astype(dtype)
        unit = np.spacing(np.maximum(np.abs(rounded), dtype.type(least))).astype(exact.dtype)
        error = np.abs(actual.astype(exact.dtype) - exact) / unit
    error[actual == rounded] = np.fmin(error[actual == rounded], 0.5)
    return np.where(np.isnan(error), np.inf, error)


def prepare(float64):
    """Let the definition use a compiled erfc, where a loop in Python takes an hour more, or Phi in longdouble."""
    reference._erfc = erfc
    if float64:
        reference._normal = normal


class Worst:
    def __init__(self):
        self.error, self.at = 0.0, 0.0

    def see(self, error, x):
        if error.size and error.max() > self.error:
            self.error, self.at = float(error.max()), float(x[error.argmax()])

    def __str__(self):
        return f"{self.error:9.2f} at {self.at:<15.9g}"


def numbers(every, float64, between=(0, 0)):
    """Blocks of finite numbers: every N-th, and all whose magnitude is between the two."""
    if float64:
        rng = np.random.Generator(np.random.Philox(1))
        for spread in (40.0, 1.0, 1e-3):
            yield rng.uniform(-spread, spread, STEP // every + 1)
        yield rng.choice([-1.0, 1.0], STEP // every + 1) * 2.0 ** rng.uniform(-1074, 1023, STEP // every + 1)
        return
    for start in range(0, 1 << 32, STEP * every):
        x = np.arange(start, min(start + STEP * every, 1 << 32), every, dtype=np.uint64).astype(np.uint32).view(np.float32)
        yield x[np.isfinite(x)]
    first, last = (int(np.float32(limit).view(np.uint32)) for limit in between)
    for start in range(first, last, STEP):
        x = np.arange(start, min(start + STEP, last), dtype=np.uint32).view(np.float32)
        yield x
        yield -x


def measure(name, options, every, float64, between=(0, 0)):
    """The worst errors of y, of y in its tail and of the derivative."""
    worst = Worst(), Worst(), Worst()
    for x in numbers(every, float64, between):
        of_y, tail, of_slope = errors(name, options, x)
        worst[0].see(of_y[~tail], x[~tail])
        worst[1].see(of_y[tail], x[tail])
        worst[2].see(of_slope, x)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(TABLE)} (default: all)")
    parser.add_argument("--every", type=int, default=1, help="look at every N-th number")
    parser.add_argument("--between", type=float, nargs=2, default=(0, 0), metavar=("LOW", "HIGH"), help="and at all of these magnitudes")
    parser.add_argument("--float64", action="store_true")
    options = parser.parse_args()
    prepare(options.float64)
    print(f"{'':32}{'y':26}{'tail':26}derivative")
    failed = False
    for name, of_kernel in SETTINGS:
        if not options.names or name in options.names:
            worst = measure(name, of_kernel, options.every, options.float64, options.between)
            print(f"{f'{name}{of_kernel or ()}':31}{worst[0]} {worst[1]} {worst[2]}", flush=True)
            failed |= worst[0].error > LIMIT or worst[2].error > LIMIT
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
