"""One pass over the data: how it is cut into batches and parts, and what is counted."""

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError
from nbnet.training import epoch
from nbnet.training.epoch import Position

from .small import small_model

# rows, batch size: sizes of the batches. A last one of one row joins the one before it.
BATCHES = {
    (1, 1): [1],
    (1, 64): [1],
    (2, 1): [2],
    (3, 1): [1, 2],
    (2, 2): [2],
    (3, 2): [3],
    (4, 2): [2, 2],
    (5, 2): [2, 3],
    (64, 64): [64],
    (65, 64): [65],
    (66, 64): [64, 2],
    (10, 4): [4, 4, 2],
    (9, 4): [4, 5],
    (9, 100): [9],
}


@pytest.mark.parametrize(("rows", "size"), BATCHES)
def test_batches(rows, size):
    found = epoch.batches(rows, size, 3, 0)
    assert [len(batch) for batch in found] == BATCHES[rows, size]
    assert epoch.count_batches(rows, size) == len(found)
    assert sorted(np.concatenate(found).tolist()) == list(range(rows))


# rows, parts that are asked for: sizes of the parts. None has one row, unless the batch has one.
PARTS = {
    (1, 1): [1],
    (1, 3): [1],
    (2, 2): [2],
    (3, 2): [3],
    (3, 3): [3],
    (4, 2): [2, 2],
    (4, 4): [2, 2],
    (5, 2): [2, 3],
    (5, 3): [2, 3],
    (6, 3): [2, 2, 2],
    (7, 3): [2, 2, 3],
    (8, 3): [2, 3, 3],
    (67, 1): [67],
}


@pytest.mark.parametrize(("rows", "count"), PARTS)
def test_parts(rows, count):
    """They follow each other from the first row to the last."""
    found = epoch.parts(rows, count)
    assert sorted(stop - start for start, stop in found) == PARTS[rows, count]
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == rows


def test_counts_and_means():
    sums = epoch.Sums(1.0, 2, 4).plus(np.float32(2), np.int64(3), 5)
    assert sums == (3, 5, 9)
    assert [type(value) for value in sums] == [float, int, int]
    assert epoch.Sums(1.0, None, 4).plus(1, 3).correct is epoch.Sums().plus(1, None).correct is None
    assert epoch.Sums(6.0, 3, 4).means(4) == {"loss": 1.5, "accuracy": 0.75}
    assert epoch.Sums(6.0, 0, 5).means(1) == {"loss": 6, "accuracy": 0.0}
    assert epoch.Sums(6.0, None, 4).means(4) == {"loss": 1.5}
    assert epoch.Sums().means(1) == {"loss": 0, "accuracy": 0}


def test_a_position_adds_up():
    at = Position().after(4, epoch.Sums(2.0, 3, 4), 0.1, 1, 0.0, 9, 4).after(5, epoch.Sums(1.0, 2, 3), 0.2, 2, 0.0, 9, 4)
    assert at._replace(seconds=0) == Position(2, 9, 3.0, 5, 0.2, 0, 9, 4, 7)
    assert at.seconds > 0


def test_where_an_epoch_may_continue():
    Position().check_continues(7, 3)  # it has not begun
    at = Position(1, 4, 0.0, 0, 0.1, 0.0, 9, 4)
    at.check_continues(9, 4)
    for rows, size in ((8, 4), (9, 3), (4, 9)):
        message = f"of 9 rows in batches of 4: it cannot continue with {rows} rows in batches of {size}"
        with pytest.raises(ArgumentError, match=message):
            at.check_continues(rows, size)


def test_gathered_rows():
    x = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    found = epoch.gather(x, np.array([5, 0, 0]), small_model("numpy"))
    assert (found == x[[5, 0, 0]]).all()
    assert found.dtype == np.uint8


class Targets(nb.losses.Loss):
    """A loss whose check returns what a test wants."""

    def __init__(self, found):
        self.found = found

    def check_targets(self, y, output_shape):
        return self.found


@pytest.mark.parametrize(("found", "got"), [(np.zeros(3), "an array with 3 rows"), ([0] * 4, "list"), (None, "NoneType")])
def test_targets_of_a_loss_of_ones_own(found, got):
    x = np.zeros((4, 6, 6, 1), np.uint8)
    with pytest.raises(ArgumentError, match=f"^data: check_targets of the loss returned {got}, expected an array with 4 rows"):
        epoch.check_data((x, np.zeros(4, int)), "data", small_model(), Targets(found))
    kept, y = epoch.check_data((x, np.zeros(4, int)), "data", small_model(), Targets(np.zeros((4, 2))))
    assert kept is x
    assert y.shape == (4, 2)


def test_floats_become_the_models_batch_by_batch(rng):
    model, loss = small_model(dtype="float64"), nb.losses.softmax_cross_entropy
    x, y = rng.random((4, 6, 6, 1), dtype=np.float32), np.zeros(4, int)
    assert epoch.check_data([x, y], "data", model, loss)[0] is x
    found = epoch.gather(x, np.array([3, 1]), model)
    assert found.dtype == np.float64
    assert np.array_equal(found, x[[3, 1]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 3)), r"got ndarray: write fit\(\(x, y\), epochs=10\)"),
        (iter([]), r"got list_iterator: write fit"),
        ((1, 2, 3), "got 3 parts: for weights of rows write .x, y, sample_weight"),
        ((), "got 0 parts: for weights of rows"),
        (((1, 2), (3, 4), ["a"]), r"got 3 parts: write \(x, y\), \(x_test, y_test\), names = data"),
        (((1, 2, 3), 4, 5), "got 3 parts: for weights of rows"),
    ],
)
def test_what_is_no_pair(data, message):
    with pytest.raises(ArgumentError, match=f"^train: expected a pair .x, y. of arrays, {message}"):
        epoch.check_data(data, "train", small_model(), nb.losses.softmax_cross_entropy)


def test_images_of_another_shape():
    with pytest.raises(ShapeError, match=r"^data: layer sequential got x of shape \(4, 6, 6, 2\), expected \(N, 6, 6, 1\)"):
        epoch.check_data((np.zeros((4, 6, 6, 2), np.uint8), np.zeros(4, int)), "data", small_model(), nb.losses.softmax_cross_entropy)
