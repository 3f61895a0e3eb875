"""Data before it reaches a model: checks, the order of an epoch, a stratified split, uint8 to float."""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError
from nbnet.functional import checks
from nbnet.functional.checks import as_array
from nbnet.runtime.arrays import FLOATS, X_DTYPES, to_float
from nbnet.runtime.lazy import Lazy

__all__ = [
    "check_arrays",
    "check_labels",
    "check_probabilities",
    "check_rows",
    "check_sample_weight",
    "check_targets",
    "permutation",
    "stratified_split",
    "to_float",
]

SMALL = 1 << 12  # elements for which looking at each takes less time than a sum whose warnings are off
SUM_OF_ROW = 1e-3  # how far the probabilities of a row may be from 1: they may have three digits
BLOCK = 1 << 20  # elements per block of the finite check, which keeps its mask small


def check_arrays(x: Any, y: Any, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Check a data set before training starts.

    Args:
        x: (N, ...) uint8, float32 or float64; floats must be finite.
        y: with num_classes: (N,) whole numbers from 0 to num_classes - 1. Without: (N, ...) numbers, finite.
        num_classes: the number of classes; None for regression.
    Returns:
        x and y as arrays (not copied if they are arrays); labels as int64.
    Raises:
        ShapeError: x has fewer than two axes, x and y have different lengths, labels have more than one axis.
        DTypeError: x is neither uint8 nor float32 nor float64, labels are not whole numbers, targets are not numbers.
        DataError: there are no rows, or a label is not a class. NonFiniteError: NaN or infinity; the message names the first.
    """
    x, y = check_rows(x, y)
    return x, check_targets(y) if num_classes is None else check_labels(y, num_classes)


def check_rows(x: Any, y: Any, name: str = "x") -> tuple[Any, np.ndarray]:
    """Check x, and that y has one row for each row of x: the part of check_arrays that does not depend on the loss.

    Args:
        name: what errors call x.
    Returns:
        x and y as arrays. A Lazy x stays one: what its rows hold is checked when they are read.
    Raises:
        as check_arrays.
    """
    given, y = x, as_array(y, "y")
    x = x if isinstance(x, Lazy) else as_array(x, name)
    code = checks.in_code(given, name)
    if x.ndim < 2:
        hint = f"for one number per row use {code}[:, None]" if x.shape == y.shape[:1] else f"one row alone is {code}[None]"
        raise ShapeError(f"{name} has shape {x.shape}: expected at least 2 axes, rows first; {hint}")
    if y.ndim < 1 or len(x) != len(y):
        hint = "" if y.ndim else "; one label or target alone is [y]"
        raise ShapeError(f"{name} has shape {x.shape} but y has shape {y.shape}: expected one label or target per row{hint}")
    if x.dtype not in X_DTYPES:
        hint = checks.dtype_hint(x, code, pixels=f"{code}.astype('uint8')")
        raise DTypeError(f"{name} has dtype {x.dtype}: expected uint8 (scaled to [0, 1]), float32 or float64{hint}")
    if x.size == 0:
        raise DataError(f"{name} has shape {x.shape}: it is empty, expected at least one row")
    if isinstance(x, Lazy):
        return x.checked(name, partial(_check_finite, name=name)), y
    _check_finite(x, name=name)
    return x, y


def check_targets(y: Any) -> np.ndarray:
    """y as an array (N, ...) of finite numbers: the targets of any loss.

    Raises:
        ShapeError: y is not an array. DTypeError: it holds other things than numbers. NonFiniteError: NaN or infinity.
    """
    y = as_array(y, "y")
    if y.dtype.kind not in "iuf":
        raise DTypeError(f"y has dtype {y.dtype}: expected numbers{checks.dtype_hint(y, 'np.asarray(y)')}")
    _check_finite(y, name="y")
    return y


def check_labels(y: Any, num_classes: int) -> np.ndarray:
    """y as int64 labels (N,), each from 0 to num_classes - 1.

    Raises:
        ShapeError: y has more than one axis. DTypeError: it holds other things than integers. DataError: a label is not a class.
    """
    y = as_array(y, "y")
    if y.ndim != 1:
        hint = ""
        if y.shape == (len(y), num_classes) and _is_one_hot(y):
            hint = "; for one-hot rows use np.asarray(y).argmax(axis=1)"
        elif y.size == len(y):
            hint = "; use np.asarray(y).reshape(-1)"
        raise ShapeError(f"labels have shape {y.shape}: expected ({len(y)},), one whole number per row{hint}")
    if y.dtype.kind not in "iu":
        raise DTypeError(f"labels have dtype {y.dtype}: expected whole numbers, 0 to {num_classes - 1}{_whole_hint(y)}")
    labels = y.astype(np.int64, copy=False)
    if labels.view(np.uint64).max(initial=0) >= num_classes:  # negative ones are then the largest
        row = int(((y < 0) | (y >= num_classes)).argmax())
        raise DataError(
            f"label {y[row]} of row {row} is not a class: expected 0 to {num_classes - 1}, since there "
            f"{'is 1 class' if num_classes == 1 else f'are {num_classes} classes'}{_range_hint(y, num_classes)}"
        )
    return labels


def check_probabilities(y: Any) -> np.ndarray:
    """y as probabilities (N, C) of classes, float32 or float64.

    Raises:
        DTypeError: it holds other things than numbers. NonFiniteError: NaN or infinity.
        DataError: a number is below 0, or a row does not sum to 1 within SUM_OF_ROW.
    """
    y = as_array(y, "y")
    if y.dtype.kind not in "biuf":
        raise DTypeError(f"y has dtype {y.dtype}: expected probabilities{checks.dtype_hint(y, 'np.asarray(y)')}")
    y = y if y.dtype in FLOATS else y.astype(np.float32)
    _check_finite(y, name="y")
    sums = y.sum(axis=1)
    wrong = (y.min(axis=1, initial=0) < 0) | (np.abs(sums - 1) > SUM_OF_ROW)
    if wrong.any():
        row = int(wrong.argmax())
        what = "are not all at least 0" if y[row].min(initial=0) < 0 else f"sum to {sums[row]:.6g}"
        raise DataError(
            f"the probabilities of row {row} {what}: expected numbers of at least 0 whose sum is 1; for several classes that are 0 or 1 "
            "on their own use loss='binary_cross_entropy'"
        )
    return y


def check_sample_weight(weights: Any, rows: int) -> np.ndarray:
    """Weights of rows as a float64 array (rows,).

    Raises:
        ShapeError: they are not one number for each row. DTypeError: they are not numbers. DataError: one is NaN, infinite or below 0.
    """
    weights = as_array(weights, "sample_weight")
    if weights.shape != (rows,):
        raise ShapeError(f"sample_weight has shape {weights.shape}, expected ({rows},): one number for each row")
    if weights.dtype.kind not in "biuf":
        hint = checks.dtype_hint(weights, "np.asarray(sample_weight)")
        raise DTypeError(f"sample_weight has dtype {weights.dtype}, expected numbers{hint}")
    weights = weights.astype(np.float64, copy=False)
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"sample_weight[{row}] is {weights[row]}, expected finite numbers of at least 0: a row with 0 does not count")
    return weights


def _is_one_hot(y: np.ndarray) -> bool:
    return bool((((y == 0) | (y == 1)).all(axis=1) & (y.astype(bool).sum(axis=1) == 1)).all())


def _whole_hint(y: np.ndarray) -> str:
    """How to make whole numbers of labels (N,) that are none."""
    kind, labels = y.dtype.kind, "np.asarray(y).astype(str)" if y.dtype.kind == "O" else "y"
    missing = [str(label) for label in y if str(label) in ("None", "nan", "<NA>", "NaT")] if kind == "O" else []
    if missing or (kind == "f" and np.isnan(y).any()):
        keep = f"{labels} != {missing[0]!r}" if missing else "~np.isnan(y)"
        return f"; where labels are missing use keep = {keep}; x, y = np.asarray(x)[keep], np.asarray(y)[keep]"
    if kind not in "bfOSU":
        return ""
    try:
        with np.errstate(invalid="ignore"):  # infinity
            whole = bool((y.astype(np.int64) == y.astype(np.float64)).all())
    except (TypeError, ValueError, OverflowError):
        return f"; for names use names, y = np.unique({labels}, return_inverse=True), and np.searchsorted(names, {labels}) for other data"
    if not whole:
        return "; for numbers that are no classes use nb.Dense(1) as the last layer, and loss='mean_squared_error'"
    return "; use np.asarray(y).astype('int64')"


def _range_hint(y: np.ndarray, num_classes: int) -> str:
    """What to do with whole numbers (N,) that are not all classes."""
    least, most = int(y.min()), int(y.max())
    if (least, most) == (1, num_classes):
        return "; for labels from 1 use np.asarray(y) - 1"
    if num_classes == 2 and set(np.unique(y)) == {-1, 1}:
        return "; for labels -1 and 1 use (np.asarray(y) + 1) // 2"
    if least < 0:
        return "; to leave out rows without a class use keep = np.asarray(y) >= 0; x, y = np.asarray(x)[keep], np.asarray(y)[keep]"
    return f"; for {most + 1} classes the last layer is nb.Dense({most + 1})"


def _check_finite(array: np.ndarray, numbers: np.ndarray | None = None, *, name: str) -> None:
    """numbers: of the rows of the array, where these are not 0, 1, ..."""
    if array.dtype.kind != "f" or (array.size <= SMALL and np.isfinite(array).all()):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum()):  # it never is if the array has NaN or infinity
            return
    rows = max(1, BLOCK // math.prod(array.shape[1:]))
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            first, *rest = (int(i) for i in np.unravel_index(finite.argmin(), finite.shape))
            index = (start + first, *rest)
            place = ", ".join(map(str, index if numbers is None else (numbers[index[0]], *rest)))
            raise NonFiniteError(f"{name}[{place}] is {array[index]}: expected finite numbers; remove that row or replace the value")


def permutation(n: int, seed: int, epoch: int = 0) -> np.ndarray:
    """The order of the rows in an epoch: (n,) int64, a pure function of (n, seed, epoch).

    Rows are sorted by words of Philox4x64 with the key (seed, epoch). NumPy guarantees that the raw words of a bit generator stay the
    same in every version (NEP 19), but not Generator.permutation: so a run resumes in the same order.

    Args:
        seed, epoch: whole numbers from 0 to 2^64 - 1.
    Raises:
        ArgumentError: seed or epoch is something else.
    """
    key = np.array([_word(seed, "seed"), _word(epoch, "epoch")], np.uint64)
    words = np.random.Philox(key=key).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def _word(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise ArgumentError(f"{name}={value!r}: expected a whole number from 0 to 2^64 - 1")
    return number


def stratified_split(y: np.ndarray, test_fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split rows so that every class has the same share in both parts; a pure function of (y, test_fraction, seed).

    Of a class with n rows, round(n * test_fraction) are for the test, at least 1 and at most n - 1; a single row is for training.

    Args:
        y: (N,) whole numbers. test_fraction: between 0 and 1, both excluded.
    Returns:
        train, test: indices into y, int64, ascending.
    Raises:
        ArgumentError: test_fraction or seed is out of range.
    """
    checks.number(test_fraction, "test_fraction", "a number between 0 and 1, such as 0.2", lambda fraction: 0 < fraction < 1)
    order = permutation(len(y), seed)
    is_test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = order[y[order] == label]
        count = min(max(round(len(members) * test_fraction), 1), len(members) - 1)
        is_test[members[:count]] = True
    return np.flatnonzero(~is_test).astype(np.int64, copy=False), np.flatnonzero(is_test).astype(np.int64, copy=False)
