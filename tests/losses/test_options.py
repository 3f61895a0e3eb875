"""Options of losses, sample weights, rows that do not count, and triplets."""

import copy

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import losses
from nbnet.errors import ArgumentError, DataError, DTypeError, ShapeError

from .table import BACKENDS, TABLE, all_losses, differences_of, predictions, stacked

OPTIONS = {
    "smoothing": (losses.SoftmaxCrossEntropy(0.3), "softmax_cross_entropy"),
    "class weights": (losses.SoftmaxCrossEntropy(class_weight=[0.5, 0, 2, 1.5]), "softmax_cross_entropy"),
    "an ignored label": (losses.SoftmaxCrossEntropy(ignore_index=2), "softmax_cross_entropy"),
    "all of them": (losses.SoftmaxCrossEntropy(0.1, (1, 2, 3, 4), 0), "softmax_cross_entropy"),
    "smoothed probabilities": (losses.SoftmaxCrossEntropy(0.2, [1, 2, 0.5, 1]), "kl_divergence"),
    "pos_weight": (losses.BinaryCrossEntropy(pos_weight=2.5), "binary_cross_entropy"),
    "pos_weights": (losses.BinaryCrossEntropy(pos_weight=[2.5, 0, 0.5]), "binary_cross_entropy"),
    "delta": (losses.Huber(0.4), "huber"),
    "alpha": (losses.Focal(1.5, 0.25), "focal"),
    "gamma 0": (losses.Focal(0), "focal"),
    "margin": (losses.Triplet(0.2), "triplet"),
}


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_with_options(rng, kind, reduction, weighted):
    loss, name = OPTIONS[kind]
    loss = copy.deepcopy(loss)
    loss.reduction = reduction
    shape, targets, _ = TABLE[name]
    prediction, target = rng.normal(size=shape), targets(rng)
    rows = 1 if reduction == "sum" else 5 if loss.counted(target) is None else loss.counted(target).sum()
    weights = rng.uniform(size=5) if weighted else None
    results = [loss(predictions(name, prediction), target, sample_weight=weights, backend=backend) for backend in BACKENDS]
    wanted = differences_of(loss, name, prediction, target, sample_weight=weights, backend="numpy") / rows
    for result in results:
        assert_close(result.total, results[0].total, "reduction")
        assert_close(stacked(result.gradient), wanted, "differences")
    assert stacked(results[1].gradient).tobytes() == stacked(results[2].gradient).tobytes()


def test_rows_that_are_ignored(rng):
    logits, labels = rng.normal(size=(6, 3)), np.array([0, -1, 2, 1, -1, 0])
    loss = losses.SoftmaxCrossEntropy(ignore_index=-1)
    keep = labels >= 0
    found, wanted = loss(logits, labels, backend="serial"), losses.softmax_cross_entropy(logits[keep], labels[keep], backend="serial")
    assert_close(found.total, wanted.total, "reduction")
    assert found.correct == wanted.correct
    assert_close(found.gradient[keep], wanted.gradient, "reduction")
    assert not found.gradient[~keep].any()
    nothing = loss(logits, np.full(6, -1), backend="serial")
    assert (nothing.total, nothing.correct, nothing.gradient.any()) == (0, 0, False)


def test_one_hot_rows_are_labels(rng):
    logits, labels = rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    checked = losses.softmax_cross_entropy.check_targets(np.eye(3, dtype=bool)[labels].tolist(), (3,))
    a, b = (losses.softmax_cross_entropy(logits, target, backend="serial") for target in (labels, checked))
    assert_close(a.total, b.total, "reduction")
    assert a.correct == b.correct
    assert_close(a.gradient, b.gradient, "reduction")


def test_weights_of_0_and_1_choose_rows(rng):
    logits, labels, weights = rng.normal(size=(6, 3)), rng.integers(0, 3, 6), np.array([1, 0, 1, 1, 0, 1])
    some = losses.softmax_cross_entropy(logits, labels, sample_weight=weights, backend="serial")
    chosen = losses.softmax_cross_entropy(logits[weights > 0], labels[weights > 0], rows=6, backend="serial")
    assert_close(some.total, chosen.total, "reduction")
    assert_close(some.gradient[weights > 0], chosen.gradient, "reduction")


BAD_WEIGHTS = [
    (np.array([1.0, -1]), DataError, r"sample_weight\[1\] is -1.0, expected finite numbers of at least 0"),
    (np.array([np.nan, 1]), DataError, r"sample_weight\[0\] is nan"),
    (np.array([1, np.inf]), DataError, r"sample_weight\[1\] is inf"),
    (np.ones(3), ShapeError, r"sample_weight has shape \(3,\), expected \(2,\): one number for each row"),
    (np.ones((2, 1)), ShapeError, r"sample_weight has shape \(2, 1\)"),
    (["a", "b"], DTypeError, "sample_weight has dtype <U1, expected numbers"),
]


@all_losses
@pytest.mark.parametrize(("weights", "error", "message"), BAD_WEIGHTS)
def test_bad_sample_weights(name, weights, error, message):
    target = np.zeros(2, int) if name in ("softmax_cross_entropy", "triplet") else np.eye(2)
    with pytest.raises(error, match=message):
        losses.get(name)(predictions(name, np.zeros((3, 2, 2)) if name == "triplet" else np.zeros((2, 2))), target, sample_weight=weights)


BAD_OPTIONS = [
    (lambda: losses.SoftmaxCrossEntropy(1.5), "label_smoothing=1.5: expected a number from 0 to 1"),
    (lambda: losses.SoftmaxCrossEntropy(np.nan), "label_smoothing=nan"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight=[1, -1]), "expected one finite number of at least 0 for each class"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight=[1, np.nan]), "expected one finite number"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight=[0, 0]), "not all of them 0"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight={0: 1}), r"is a dict, .*: use \[weights.get\(c, 1\) for c in range\(classes\)\]"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight=[1, 1]).check_targets([0, 1], (3,)), "class_weight has 2 numbers, expected 3"),
    (lambda: losses.SoftmaxCrossEntropy(class_weight=[1, 1])(np.zeros((1, 3)), np.array([0])), "class_weight has 2 numbers, expected 3"),
    (lambda: losses.SoftmaxCrossEntropy(ignore_index=0.5), "ignore_index=0.5"),
    (lambda: losses.BinaryCrossEntropy(pos_weight=-1), "pos_weight=-1: expected a finite number of at least 0, or one for each output"),
    (lambda: losses.BinaryCrossEntropy(pos_weight=[1, 2]).check_targets(np.zeros((1, 3)), (3,)), "pos_weight has 2 numbers, expected 3"),
    (lambda: losses.Huber(0), "delta=0: expected a finite number above 0"),
    (lambda: losses.Focal(-1), "gamma=-1"),
    (lambda: losses.Focal(alpha=2), "alpha=2: expected a number from 0 to 1, or None"),
    (lambda: losses.Triplet(0), "margin=0"),
    (lambda: losses.MeanSquaredError("avg"), "reduction='avg': expected 'mean' or 'sum' over the rows"),
    (lambda: losses.get((losses.Huber(), losses.Huber(reduction="sum"))), "have reductions 'mean' and 'sum'"),
]


@pytest.mark.parametrize(("make", "message"), BAD_OPTIONS)
def test_bad_options(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_labels_out_of_range_with_options():
    loss = losses.SoftmaxCrossEntropy(0.1, ignore_index=-1)
    for labels in ([0, 3], [0, -2]):
        with pytest.raises(DataError, match=f"label {labels[1]} of row 1 is not a class"):
            loss.check_targets(labels, (3,))
        with pytest.raises(DataError, match="labels go from"):
            loss(np.zeros((2, 3)), np.array(labels), backend="serial")
    assert loss.check_targets([0, -1], (3,)).tolist() == [0, -1]


def test_triplets_need_three_outputs():
    with pytest.raises(ShapeError, match=r"got outputs of shape \(2, 3\), expected three of one shape: anchor, positive, negative"):
        losses.triplet(np.zeros((2, 3)), np.zeros(2))
    model = nb.Sequential([nb.Dense(3)])
    model.build((2,), backend="serial")
    with pytest.raises(ArgumentError, match=r"3 outputs, got 1: use nb.Parallel\(\[trunk, trunk, trunk\]\)"):
        nb.Trainer(model, "triplet", nb.SGD(0.1))


def test_equal_points_of_triplets():
    """A distance of 0 has no direction: its derivative is taken as 0."""
    a = np.ones((2, 3))
    result = losses.triplet((a, a, a), np.zeros(2), backend="serial")
    assert result.total == 2
    assert not np.array(result.gradient).any()
    assert np.isnan(losses.triplet((a, a * np.nan, a), np.zeros(2), backend="serial").total)


def test_triplets_train():
    """Features of the same class come together."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, 4))
    of = rng.integers(0, 2, 60)
    anchor, positive, negative = (centres[which] + rng.normal(0, 0.3, (60, 4)) for which in (of, of, 1 - of))
    trunk = nb.Sequential([nb.Dense(8), nb.Tanh(), nb.Dense(2)])
    model = nb.Sequential([nb.Parallel([trunk, trunk, trunk])])
    model.build(((4,),) * 3, backend="serial", dtype="float64")
    trainer = nb.Trainer(model, "triplet", nb.Adam(0.05))
    history = trainer.fit(((anchor, positive, negative), np.zeros(60)), 15, 20, progress=False)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert list(history) == ["loss", "lr", "seconds"]


def test_a_pos_weight_of_0():
    result = losses.BinaryCrossEntropy(pos_weight=0)(np.array([[3.0, 3.0]]), np.array([[1.0, 0.0]]), backend="serial")
    assert_close(result.total, np.log1p(np.exp(3)) / 2, "reduction")
    assert_close(result.gradient, np.array([[0, 0.5 / (1 + np.exp(-3))]]), "reduction")
