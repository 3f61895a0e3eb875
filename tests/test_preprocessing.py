"""Checks of arrays, the order of an epoch, the split, uint8 to float."""

import numpy as np
import pytest

from nbnet import preprocessing
from nbnet.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError
from nbnet.preprocessing import check_arrays, permutation, stratified_split, to_float


def images(n=4, dtype=np.uint8):
    return np.arange(n * 12).reshape(n, 2, 2, 3).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_good_arrays_pass_without_a_copy(dtype):
    x, y = images(dtype=dtype), np.array([0, 1, 2, 0])
    checked, labels = check_arrays(x, y, 3)
    assert checked is x
    assert labels is y


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_become_int64(dtype):
    _, labels = check_arrays(images(3), np.array([2, 0, 1], dtype), 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1]


def test_regression_targets_keep_their_shape():
    y = np.ones((4, 5), np.float32)
    assert check_arrays(images(), y)[1] is y
    assert check_arrays([[1.0, 2.0], [3.0, 4.0]], [1, 2])[1].tolist() == [1, 2]


BAD = np.zeros((4, 3), np.float32)
BAD[2, 1] = np.nan
INF = np.zeros(4)
INF[3] = -np.inf


@pytest.mark.parametrize(
    ("x", "y", "classes", "error", "words"),
    [
        (np.zeros(4), np.zeros(4), None, ShapeError, r"x has shape \(4,\): expected at least 2 axes.*one number per row use x\[:, None\]"),
        (np.zeros(4), np.zeros(1), None, ShapeError, r"x has shape \(4,\): expected at least 2 axes.*one row alone is x\[None\]"),
        ([[1.0], [1.0, 2.0]], [0, 0], 1, ShapeError, r"x is not an array: .*; expected rows of equal shape"),
        (
            images(4),
            np.zeros(3, int),
            2,
            ShapeError,
            r"x has shape \(4, 2, 2, 3\) but y has shape \(3,\): expected one label or target per row",
        ),
        (images(4), np.int64(3), 2, ShapeError, r"y has shape \(\): expected one label or target per row"),
        (
            images(dtype=np.int64),
            np.zeros(4, int),
            2,
            DTypeError,
            r"x has dtype int64: .*; for pixels .* use x.astype\('uint8'\)",
        ),
        (images(dtype=np.float16), np.zeros(4, int), 2, DTypeError, "x has dtype float16: expected uint8"),
        (images(dtype=object), np.zeros(4, int), 2, DTypeError, "x has dtype object: expected uint8"),
        (np.zeros((0, 8, 8, 1)), np.zeros(0, int), 2, DataError, r"x has shape \(0, 8, 8, 1\): it is empty"),
        (np.zeros((2, 0), np.float32), np.zeros(2, int), 2, DataError, r"x has shape \(2, 0\): it is empty"),
        (BAD, np.zeros(4, int), 2, NonFiniteError, r"x\[2, 1\] is nan: expected finite numbers; remove that row"),
        (images(), INF, None, NonFiniteError, r"y\[3\] is -inf: expected finite numbers"),
        (
            images(),
            np.zeros(4),
            2,
            DTypeError,
            r"labels have dtype float64: .*, 0 to 1; use np.asarray\(y\).astype\('int64'\)",
        ),
        (images(), np.zeros(4, bool), 2, DTypeError, "labels have dtype bool"),
        (images(), np.array([0, 1, 3, 2]), 3, DataError, "label 3 of row 2 is not a class: expected 0 to 2, since there are 3 classes"),
        (images(), np.array([0, 1, 0, -1]), 3, DataError, "label -1 of row 3 is not a class: expected 0 to 2"),
        (
            images(),
            np.eye(4, dtype=int),
            4,
            ShapeError,
            r"labels have shape \(4, 4\): .*use np.asarray\(y\).argmax\(axis=1\)",
        ),
        (images(), np.zeros((4, 1), int), 4, ShapeError, r"labels have shape \(4, 1\): .*use np.asarray\(y\).reshape\(-1\)"),
        (images(), np.array(list("abcd")), None, DTypeError, "y has dtype <U1: expected numbers; 'a' is not a number"),
    ],
)
def test_bad_arrays(x, y, classes, error, words):
    with pytest.raises(error, match=words):
        check_arrays(x, y, classes)


def test_one_hot_of_one_class_is_a_column():
    with pytest.raises(ShapeError, match="argmax"):
        check_arrays(images(), np.ones((4, 1), int), 1)
    with pytest.raises(ShapeError, match="reshape"):
        check_arrays(images(), np.zeros((4, 1), int), 1)


def test_finite_check_finds_the_first_bad_value_in_a_later_block(monkeypatch):
    monkeypatch.setattr(preprocessing, "BLOCK", 6)  # two rows of three
    x = np.zeros((7, 3))
    check_arrays(x, np.zeros(7))
    x[5, 2] = x[6, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"x\[5, 2\] is inf"):
        check_arrays(x, np.zeros(7))


def test_permutation_is_a_pure_function_of_its_arguments():
    order = permutation(1000, seed=3, epoch=5)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(order, permutation(1000, 3, 5))
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    others = [permutation(1000, 3, 6), permutation(1000, 4, 5), permutation(1000, 5, 3)]
    for other in others:
        assert np.sum(order == other) < 20  # two unrelated orders share about one place


def test_permutation_stays_the_same_for_ever():
    """Known answers: a run resumed with another version of numpy must see the same order."""
    assert permutation(8, 0).tolist() == KNOWN_8
    assert permutation(5, 2**64 - 1, 7).tolist() == KNOWN_5


KNOWN_8 = [0, 2, 1, 5, 4, 3, 6, 7]
KNOWN_5 = [3, 0, 4, 1, 2]


def test_permutation_is_fair():
    """Each row is in each place about equally often: chi-squared with 36 degrees of freedom, below its 99.9 % point."""
    counts = np.zeros((7, 7))
    epochs = 2000
    for epoch in range(epochs):
        counts[np.arange(7), permutation(7, 1, epoch)] += 1
    assert np.sum((counts - epochs / 7) ** 2 / (epochs / 7)) < 67.99


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", None])
def test_permutation_refuses_a_bad_seed(seed):
    with pytest.raises(ArgumentError, match=r"seed=.*: expected a whole number from 0 to 2\^64 - 1"):
        permutation(4, seed)
    with pytest.raises(ArgumentError, match="epoch="):
        permutation(4, 0, seed)


def test_split_keeps_every_class_in_proportion():
    y = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    train, test = stratified_split(y, 0.2, seed=4)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
    assert np.bincount(y[test], minlength=4).tolist() == [10, 2, 1, 0]
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)
    assert np.array_equal(test, stratified_split(y, 0.2, seed=4)[1])
    assert not np.array_equal(test, stratified_split(y, 0.2, seed=5)[1])
    assert np.bincount(y[stratified_split(y, 0.99)[0]], minlength=4).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, float("nan")])
def test_split_refuses_a_bad_fraction(fraction):
    with pytest.raises(ArgumentError, match=r"test_fraction=.*: expected a number between 0 and 1, such as 0.2"):
        stratified_split(np.zeros(4, int), fraction)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_float_scales_uint8(dtype):
    batch = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    out = np.full(batch.shape, np.nan, dtype)
    assert to_float(batch, out) is out
    assert np.array_equal(out, batch.astype(dtype) / dtype(255))
    assert out.min() == 0
    assert out.max() == 1


@pytest.mark.parametrize("source", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_float_copies_floats(source, dtype):
    batch = np.array([[0.1, -300.0]], source)
    out = np.empty(batch.shape, dtype)
    assert np.array_equal(to_float(batch, out), batch.astype(dtype))


@pytest.mark.parametrize(
    ("batch", "out", "error", "words"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((1, 3)), ShapeError, r"out has shape \(1, 3\): expected the batch's shape, \(2, 3\)"),
        (np.zeros((2, 3), np.int32), np.zeros((2, 3)), DTypeError, "batch has dtype int32: expected uint8, float32 or float64"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8), DTypeError, "out has dtype uint8: expected float32 or float64"),
    ],
)
def test_to_float_refuses(batch, out, error, words):
    with pytest.raises(error, match=words):
        to_float(batch, out)


@pytest.mark.parametrize("kind", ["datetime64[D]", "timedelta64[s]", "complex128", "V4"])
def test_labels_of_kinds_without_a_hint(kind):
    with pytest.raises(DTypeError, match=r"expected whole numbers, 0 to 2$"):
        preprocessing.check_labels(np.zeros(3, kind), 3)
