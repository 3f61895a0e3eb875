"""Weights of rows, rows that do not count, and losses that are sums, through batches, parts, evaluation and checkpoints."""

import copy

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, DataError, DTypeError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = RNG.integers(0, 3, 30)
W = RNG.uniform(0, 2, 30) * (RNG.uniform(size=30) > 0.2)


def trainer_of(loss="softmax_cross_entropy", backend="serial", **options):
    model = nb.Sequential([nb.Dense(5), nb.Tanh(), nb.Dense(3)])
    model.build((4,), backend=backend, dtype="float64", seed=3)
    return nb.Trainer(model, loss, nb.SGD(0.1), **options)


def same_model(a, b):
    for left, right in zip(a.model.params.values(), b.model.params.values()):
        assert_close(left.value, right.value, "training")


@pytest.mark.parametrize("replay", [True, False])
def test_whole_weights_are_rows_that_are_there_more_often(replay):
    """The sum over the rows with their weights, divided by the rows."""
    times = RNG.integers(0, 4, 30)
    often = np.repeat(np.arange(30), times)
    weighted, repeated = trainer_of(replay=replay), trainer_of(replay=replay)
    repeated.optimizer.lr = 0.1 * len(often) / 30
    for _ in range(3):
        metrics = weighted.train_batch(X, Y, sample_weight=times)
        other = repeated.train_batch(X[often], Y[often])
        assert_close(metrics["loss"] * 30, other["loss"] * len(often), "training")
    same_model(weighted, repeated)


def test_weights_follow_their_rows_through_shuffled_batches():
    """Rows of weight 0 may hold any label; the last batch of a fit has another size."""
    zero = W == 0
    one, two = trainer_of(), trainer_of()
    history = one.fit((X, Y), 3, 8, validation=(X, Y, W), progress=False, sample_weight=W)
    other = two.fit((X, np.where(zero, 2 - Y, Y)), 3, 8, validation=(X, np.where(zero, 2 - Y, Y), W), progress=False, sample_weight=W)
    for key in ("loss", "val_loss"):
        assert_close(history[key], other[key], "training")
    same_model(one, two)
    assert trainer_of().fit((X, Y), 3, 8, progress=False)["loss"] != history["loss"]


def test_weights_of_1_are_no_weights():
    one, two = trainer_of(), trainer_of()
    a, b = (run.fit((X, Y), 2, 8, validation=(X, Y), progress=False, sample_weight=w) for run, w in ((one, np.ones(30)), (two, None)))
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert_close(a[key], b[key], "training")
    same_model(one, two)


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", nb.losses.SoftmaxCrossEntropy(0.1, ignore_index=1), nb.losses.Huber(reduction="sum")]
)
def test_parts_of_a_batch_are_the_batch(loss):
    y = np.eye(3)[Y] if isinstance(loss, nb.losses.Huber) else Y
    whole, parts = trainer_of(loss), trainer_of(loss, accumulate=4)
    a, b = (run.fit((X, y), 2, 15, progress=False, sample_weight=W) for run in (whole, parts))
    assert_close(a["loss"], b["loss"], "training")
    same_model(whole, parts)


def test_evaluate_with_weights():
    run = trainer_of()
    losses = [run.evaluate(X[i : i + 1], Y[i : i + 1])["loss"] for i in range(30)]
    assert_close(run.evaluate(X, Y, batch_size=7, sample_weight=W)["loss"], (W * losses).sum() / 30, "training")
    assert run.evaluate(X, Y, sample_weight=W)["accuracy"] == run.evaluate(X, Y)["accuracy"]


def test_ignored_rows_do_not_count():
    keep = Y != 1
    loss = nb.losses.SoftmaxCrossEntropy(ignore_index=1)
    some, chosen = trainer_of(loss), trainer_of()
    for _ in range(2):
        a, b = some.train_batch(X, Y), chosen.train_batch(X[keep], Y[keep])
        assert_close(a["loss"], b["loss"], "training")
        assert_close(a["accuracy"], b["accuracy"], "training")
    same_model(some, chosen)
    for key, value in some.evaluate(X, Y, batch_size=7).items():
        assert_close(value, chosen.evaluate(X[keep], Y[keep])[key], "training")


def test_a_batch_of_ignored_rows_changes_nothing():
    run = trainer_of(nb.losses.SoftmaxCrossEntropy(ignore_index=-1))
    before = copy.deepcopy(run)
    assert run.train_batch(X, np.full(30, -1)) == {"loss": 0, "accuracy": 0}
    same_model(run, before)


def test_a_sum_is_not_divided():
    mean, total = trainer_of(), trainer_of(nb.losses.SoftmaxCrossEntropy(reduction="sum"))
    total.optimizer.lr = 0.1 / 30
    assert_close(total.train_batch(X, Y)["loss"], 30 * mean.train_batch(X, Y)["loss"], "training")
    same_model(mean, total)
    assert_close(total.evaluate(X, Y, batch_size=8)["loss"], 30 * mean.evaluate(X, Y)["loss"], "training")


@pytest.mark.parametrize("ignore", [None, 1])
def test_a_run_that_stopped_within_an_epoch_continues(tmp_path, ignore):
    class Stop(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            trainer.stop("enough")

    loss = nb.losses.SoftmaxCrossEntropy(ignore_index=ignore)
    through, stopped = trainer_of(loss), trainer_of(loss)
    history = through.fit((X, Y), 2, 8, progress=False, sample_weight=W)
    stopped.fit((X, Y), 2, 8, callbacks=[Stop()], progress=False, sample_weight=W)
    stopped.save(tmp_path / "run")
    resumed = trainer_of(loss)
    resumed.restore(tmp_path / "run")
    assert resumed.position.counted == (8 if ignore is None else (Y[nb.preprocessing.permutation(30, 0)[:8]] != 1).sum())
    found = resumed.fit((X, Y), 2, 8, progress=False, sample_weight=W)
    for key in ("loss", "accuracy"):
        assert found[key] == history[key]


BAD = [
    (np.where(W > 1, -W, W), DataError, r"sample_weight\[\d+\] is -.*, expected finite numbers of at least 0"),
    (np.where(W > 1, np.nan, W), DataError, r"sample_weight\[\d+\] is nan"),
    (W[:-1], ShapeError, r"sample_weight has shape \(29,\), expected \(30,\)"),
    (["a"] * 30, DTypeError, "sample_weight has dtype <U1"),
]


@pytest.mark.parametrize(("weights", "error", "message"), BAD)
def test_bad_weights_change_nothing(weights, error, message):
    run = trainer_of()
    before = [param.value.copy() for param in run.model.params.values()]
    calls = {
        "data": lambda: run.fit((X, Y), 1, sample_weight=weights, progress=False),
        "validation": lambda: run.fit((X, Y), 1, validation=(X, Y, weights), progress=False),
        "batch": lambda: run.train_batch(X, Y, sample_weight=weights),
        "evaluation data": lambda: run.evaluate(X, Y, sample_weight=weights),
    }
    for name, call in calls.items():
        with pytest.raises(error, match=f"^{name}: {message}"):
            call()
    assert run.step == 0
    assert all(np.array_equal(param.value, old) for param, old in zip(run.model.params.values(), before))


def test_a_loss_of_the_users_without_weights():
    def plain(prediction, target, *, rows=None, backend="parallel"):
        return nb.losses.softmax_cross_entropy(prediction, target, rows=rows, backend=backend)

    def weighted(prediction, target, *, sample_weight=None, rows=None, backend="parallel"):
        return nb.losses.softmax_cross_entropy(prediction, target, sample_weight=sample_weight, rows=rows, backend=backend)

    run = trainer_of(plain)
    with pytest.raises(
        ArgumentError, match=r"^batch: the loss plain does not take .*: expected def loss\(.*, sample_weight, rows, backend\)"
    ):
        run.train_batch(X, Y, sample_weight=W)
    run.train_batch(X, Y)
    assert trainer_of(weighted).train_batch(X, Y, W) == trainer_of().train_batch(X, Y, W)


def test_several_outputs_share_the_weights():
    def run():
        model = nb.Sequential([nb.Parallel([[nb.Dense(3)], [nb.Dense(2)]])])
        model.build((4,), backend="serial", dtype="float64")
        return nb.Trainer(model, ("softmax_cross_entropy", "mean_absolute_error"), nb.SGD(0.1))

    y = Y, X[:, :2]
    often = np.repeat(np.arange(30), 2)
    a, b = run(), run()
    b.optimizer.lr = 0.2
    assert_close(a.train_batch(X, y, np.full(30, 2))["loss"], 2 * b.train_batch(X[often], tuple(t[often] for t in y))["loss"], "training")
    same_model(a, b)
