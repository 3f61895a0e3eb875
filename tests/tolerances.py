"""The one table of tolerances: tests name a kind of computation, never a number."""

import numpy as np

# kind: {dtype: (relative to each wanted value, relative to the largest wanted value)}
TOLERANCES = {
    "exact": {"float32": (0, 0), "float64": (0, 0)},
    "elementwise": {"float32": (2e-6, 2e-7), "float64": (1e-13, 1e-14)},  # a few roundings a value
    "reduction": {"float32": (1e-5, 1e-6), "float64": (1e-11, 1e-12)},  # sums over rows, and what is computed from them
    "matmul": {"float32": (1e-5, 2e-6), "float64": (1e-12, 1e-13)},  # long sums of products in T, in any order
    "golden": {"float32": (2e-5, 5e-6), "float64": (1e-10, 1e-10)},  # beside other frameworks, whose float32 sums differ
    "trajectory": {"float64": (1e-12, 1e-12)},  # ten steps of an optimiser beside another framework's
    "differences": {"float64": (1e-6, 1e-7)},  # gradients against central differences
    "described": {"float64": (2e-4, 1e-9)},  # numbers written with five digits, or four
    "described training": {"float64": (2e-2, 4e-3)},  # the same of a few steps in float32; one image of 300 classified otherwise
    "training": {"float32": (2e-3, 2e-4), "float64": (1e-8, 1e-9)},  # several steps, whose roundings feed each other
}


def assert_close(actual, wanted, kind, dtype=None, what=""):
    """Assert that actual is wanted, up to the roundings of this kind; NaN and infinity must be in the same places.

    The precision is that of dtype, or of the coarser of the two arrays where none is given. what: the start of the message.
    """
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.shape == wanted.shape, f"{what}shape {actual.shape}, wanted {wanted.shape}"
    if dtype is None:
        dtype = "float32" if np.float32 in (actual.dtype, wanted.dtype) else "float64"
    relative, of_largest = TOLERANCES[kind][np.dtype(dtype).name]
    actual, wanted = actual.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite], err_msg=f"{what}NaN or infinity where it should not be, or missing")
    size = np.abs(wanted[finite])
    largest = size.max(initial=0)
    limit = relative * size + of_largest * (largest if largest > 0 else 1)
    error = np.abs(actual[finite] - wanted[finite])
    wrong = ~(error <= limit)  # a NaN is wrong too
    if wrong.any():
        worst = np.argmax(np.where(np.isnan(error), np.inf, error - limit))
        index = tuple(int(i) for i in np.argwhere(finite)[worst])
        raise AssertionError(
            f"{what}{wrong.sum()} of {actual.size} values are not {kind} equal in {np.dtype(dtype).name}; worst at {index}: "
            f"{actual[index]!r}, wanted {wanted[index]!r}, difference {error[worst]:.3g}, allowed {limit[worst]:.3g}"
        )


ULP = {"vecmath": 2, "activations": 4}  # units in the last place, by kind of computation


def assert_ulp(actual, wanted, kind):
    """Assert that actual is within so many units in the last place of wanted, which is more precise; NaN and infinity in their places."""
    dtype = actual.dtype
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = wanted.astype(dtype)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
    limited = np.isfinite(rounded)
    np.testing.assert_array_equal(actual[~limited & ~np.isnan(rounded)], rounded[~limited & ~np.isnan(rounded)])
    unit = np.spacing(np.maximum(np.abs(rounded[limited]), np.finfo(dtype).tiny)).astype(wanted.dtype)
    error = np.abs(actual[limited].astype(wanted.dtype) - wanted[limited]) / unit
    if error.size and not error.max() <= ULP[kind]:
        worst = np.argmax(error)
        raise AssertionError(f"{error.max():.2f} units: {actual[limited][worst]!r}, wanted {wanted[limited][worst]!r}")
