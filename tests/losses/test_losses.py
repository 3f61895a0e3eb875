"""Values and gradients of all losses, targets, errors; and losses that users define."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import losses
from nbnet.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError

from .table import BACKENDS, TABLE, all_losses, differences_of, predictions, stacked


def test_the_table_has_every_loss():
    assert set(TABLE) == set(losses.LOSSES)
    for name, loss in losses.LOSSES.items():
        assert losses.get(name) is losses.get(loss) is getattr(nb.losses, name) is loss
        assert (loss.name, repr(loss)) == (name, f"nb.losses.{name}")


@all_losses
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_those_of_numpy(rng, name, backend, dtype, weighted):
    shape, targets, reference = TABLE[name]
    prediction, target = rng.normal(size=shape).astype(dtype), targets(rng)
    weights = rng.uniform(size=5) if weighted else None
    result = losses.get(name)(predictions(name, prediction), target, sample_weight=weights, backend=backend)
    rows = reference(prediction.astype(float), target)
    assert_close(result.total, (rows * (1 if weights is None else weights)).sum(), "reduction", dtype)
    found = stacked(result.gradient)
    assert (found.shape, found.dtype) == (shape, dtype)
    hits = (prediction.argmax(axis=-1) == target).sum() if name == "softmax_cross_entropy" else None
    assert result.correct == hits


@all_losses
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [None, 12])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_central_differences(rng, name, backend, rows, weighted):
    shape, targets, _ = TABLE[name]
    loss, prediction, target = losses.get(name), rng.normal(size=shape), targets(rng)
    options = {"backend": backend, "sample_weight": rng.uniform(size=5) if weighted else None}
    wanted = differences_of(loss, name, prediction, target, **options) / (rows or 5)
    assert_close(stacked(loss(predictions(name, prediction), target, rows=rows, **options).gradient), wanted, "differences")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_large_predictions(backend, dtype):
    big = np.array([[1e4, -1e4]], dtype)
    wanted = {"binary_cross_entropy": 1e4, "focal": 1e4, "hinge": 1e4 + 1, "huber": 1e4, "mean_absolute_error": 1e4 + 0.5}
    for name, value in wanted.items():
        result = losses.get(name)(big, np.array([[0.0, 1]]), backend=backend)
        assert_close(result.total, value, "elementwise", dtype)
        assert np.isfinite(result.gradient).all()
        assert not losses.get(name)(big, big.clip(0, 1), backend=backend).total or name in ("huber", "mean_absolute_error")
    assert_close(losses.kl_divergence(big, np.array([[0.5, 0.5]]), backend=backend).total, 1e4 - np.log(2), "elementwise", dtype)


def test_probabilities_of_0_and_1():
    loss = losses.BinaryCrossEntropy(from_logits=False)
    result = loss(np.array([[0.0, 1, 0.5]]), np.array([[0.0, 1, 1]]), backend="serial")
    assert_close(result.total, np.log(2) / 3, "reduction")
    assert_close(result.gradient, np.array([[0, 0, -2 / 3]]), "reduction")


# --------------------------------------------------------------------------------------------------- targets


def test_labels_become_int64():
    labels = losses.softmax_cross_entropy.check_targets([0, 2, 1], (3,))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_one_output_takes_flat_targets(shape):
    target = losses.mean_squared_error.check_targets(np.ones(shape), (1,))
    assert losses.mean_squared_error(np.zeros((4, 1)), target, backend="serial").total == 4


BAD_TARGETS = [
    ("softmax_cross_entropy", [0, 1, 3], DataError, r"label 3 of row 2 is not a class: \w+ 0 to 2"),
    ("softmax_cross_entropy", [0, -1, 1], DataError, "label -1 of row 1 is not a class"),
    ("softmax_cross_entropy", [0.0, 1.0, 2.0], DTypeError, r"labels have dtype float64.*use np.asarray\(y\).astype\('int64'\)"),
    (
        "softmax_cross_entropy",
        np.eye(3) / 2,
        DataError,
        "probabilities of row 0 sum to 0.5: expected numbers .* use loss='binary_cross_entropy'",
    ),
    ("softmax_cross_entropy", np.eye(3) * 3 - 2 / 3, DataError, "the probabilities of row 0 are not all at least 0"),
    ("softmax_cross_entropy", np.full((3, 3), np.nan), NonFiniteError, r"y\[0, 0\] is nan"),
    ("softmax_cross_entropy", np.zeros((3, 2)), ShapeError, r"labels have shape \(3, 2\)"),
    ("kl_divergence", [0, 1, 2], ShapeError, r"shape \(3,\), expected \(3, 3\) probabilities; for labels use loss='softmax_cross_entropy'"),
    ("kl_divergence", np.eye(3) / 2, DataError, "row 0 sum to 0.5"),
    (
        "binary_cross_entropy",
        np.full((3, 3), 2),
        DataError,
        r"target 2 at \[0, 0\] does not fit the loss binary_cross_entropy: .* from 0 to 1",
    ),
    ("focal", np.full((3, 3), 0.5), DataError, r"target 0.5 at \[0, 0\] does not fit the loss focal: expected numbers 0 or 1"),
    ("hinge", np.full((3, 3), 2), DataError, r"target 2 at .*: expected numbers -1 or 1 \(or 0 or 1\)"),
    ("mean_squared_error", np.ones((3, 2)), ShapeError, r"targets have shape \(3, 2\), expected \(3, 3\): one value per output"),
    ("sum_squared_error", np.ones(3), ShapeError, r"targets have shape \(3,\), expected \(3, 3\)"),
    ("mean_squared_error", np.full((3, 3), np.nan), NonFiniteError, r"y\[0, 0\] is nan"),
    ("sum_squared_error", np.full((3, 3), "a"), DTypeError, r"y has dtype <U1"),
]


@pytest.mark.parametrize(("name", "y", "error", "message"), BAD_TARGETS)
def test_bad_targets_are_refused_before_training(name, y, error, message):
    with pytest.raises(error, match=message):
        losses.get(name).check_targets(y, (3,))


BAD_CALLS = [
    ("softmax_cross_entropy", np.zeros((2, 3)), np.zeros(3, int), ShapeError, r"labels have shape \(3,\) .* expected \(2,\) integers"),
    ("softmax_cross_entropy", np.zeros((2, 3)), np.array([0, 3]), DataError, r"labels go from 0 to 3, expected 0 to 2"),
    ("softmax_cross_entropy", np.zeros(2), np.zeros(2, int), ShapeError, r"logits has shape \(2,\)"),
    ("mean_squared_error", np.zeros((2, 3)), np.zeros((2, 2)), ShapeError, r"targets have shape \(2, 2\), expected \(2, 3\)"),
    ("sum_squared_error", np.zeros((2, 3), int), np.zeros((2, 3)), DTypeError, "prediction has dtype int64"),
]


@pytest.mark.parametrize(("name", "prediction", "target", "error", "message"), BAD_CALLS)
def test_bad_calls(name, prediction, target, error, message):
    with pytest.raises(error, match=message):
        losses.get(name)(prediction, target, backend="serial")


# -------------------------------------------------------------------------------------------- losses of users


def smoothed_cross_entropy(prediction, target, *, rows=None, backend="parallel"):
    """A function: its targets may be any finite numbers."""
    result = nb.losses.softmax_cross_entropy(prediction, target.astype(int), rows=rows, backend=backend)
    return result._replace(gradient=0.9 * result.gradient)


class Subclass(nb.losses.SoftmaxCrossEntropy):
    """A loss that changes the call of another one and has its checks."""

    name = "smoothed"

    def __init__(self, smoothing):
        self.smoothing = smoothing

    def __call__(self, prediction, target, *, rows=None, backend="parallel"):
        result = super().__call__(prediction, target, rows=rows, backend=backend)
        return result._replace(gradient=(1 - self.smoothing) * result.gradient)


class Wrapper:
    """A loss around another one, with nothing inherited."""

    def __init__(self, loss):
        self.loss = loss

    def check_targets(self, y, output_shape):
        return self.loss.check_targets(y, output_shape)

    def __call__(self, prediction, target, *, rows=None, backend="parallel"):
        return self.loss(prediction, target, rows=rows, backend=backend)


def trainer(loss):
    model = nb.Sequential([nb.Dense(3)])
    model.build((2,), backend="serial", dtype="float64")
    return nb.Trainer(model, loss, nb.SGD(0.1))


class Quantile(nb.losses.Loss):
    """A loss of two methods: the losses of rows with their derivative, and the check of targets."""

    name = "quantile"

    def check_targets(self, y, output_shape):
        y = super().check_targets(y, output_shape)
        if y.shape[1:] != output_shape:
            raise ShapeError(f"targets have shape {y.shape}, expected {output_shape} in each row")
        return y

    def of_rows(self, prediction, target):
        d = prediction - target
        return np.where(d > 0, 0.2 * d, -0.8 * d).sum(axis=1), np.where(d > 0, 0.2, -0.8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_of_two_methods(rng, backend, dtype):
    prediction, target, weights = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=(4, 3)), rng.uniform(size=4)
    result = Quantile()(prediction, target, sample_weight=weights, rows=8, backend=backend)
    rows, slopes = Quantile().of_rows(prediction, target)
    assert_close(result.total, (rows * weights).sum(), "reduction", dtype)
    assert_close(result.gradient, slopes * weights[:, None] / 8, "elementwise", dtype)
    assert result.gradient.dtype == dtype
    assert_close(Quantile("sum")(prediction, target, backend=backend).gradient, slopes, "elementwise", dtype)
    run = trainer(Quantile())
    history = run.fit((X, np.eye(4, 3)), epochs=3, progress=False)
    assert history["loss"][2] < history["loss"][0]
    with pytest.raises(ShapeError, match=r"^data: targets have shape \(4, 2\)"):
        run.fit((X, np.eye(4, 2)), epochs=4)


def test_a_loss_whose_rows_are_wrong():
    class Odd(nb.losses.Loss):
        def of_rows(self, prediction, target):
            return prediction, prediction

    with pytest.raises(ShapeError, match=r"of_rows of the loss Odd returned losses of shape \(2, 3\), expected \(2,\), one per row"):
        Odd()(np.zeros((2, 3)), None)
    with pytest.raises(NotImplementedError, match=r"Loss has no of_rows\(prediction, target\): define it, or __call__"):
        nb.losses.Loss()(np.zeros((2, 3)), None)


X, Y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 2, 1])


@pytest.mark.parametrize("loss", [smoothed_cross_entropy, Subclass(0.1), Wrapper(nb.losses.softmax_cross_entropy)])
def test_losses_of_users_train(loss):
    run, plain = trainer(loss), trainer("softmax_cross_entropy")
    assert run.train_batch(X, Y) == plain.train_batch(X, Y)
    history = run.fit((X, Y), epochs=2, validation=(X, Y), progress=False)
    assert len(history["val_accuracy"]) == 2


@pytest.mark.parametrize("loss", [Subclass(0.1), Wrapper(nb.losses.softmax_cross_entropy), Wrapper(Subclass(0.1))])
def test_objects_of_users_have_the_early_checks(loss):
    run = trainer(loss)
    with pytest.raises(DataError, match=r"^validation: label 3 of row 2 is not a class"):
        run.fit((X, Y), epochs=1, validation=(X, Y + 1), progress=False)
    assert run.step == 0


def test_functions_of_users_take_any_finite_numbers():
    run = trainer(smoothed_cross_entropy)
    with pytest.raises(NonFiniteError, match=r"^data: y\[1\] is nan"):
        run.fit((X, np.array([0, np.nan, 1, 1])), epochs=1)
    with pytest.raises(ShapeError, match=r"^data: .*y has shape \(3,\)"):
        run.fit((X, Y[:3]), epochs=1)
    with pytest.raises(DTypeError, match="y has dtype <U1"):
        run.fit((X, np.array(list("abcd"))), epochs=1)
    assert losses.get(smoothed_cross_entropy).name == "smoothed_cross_entropy"


def test_targets_are_checked_and_converted_once():
    class Halves(nb.losses.MeanSquaredError):
        def check_targets(self, y, output_shape):
            return super().check_targets(y, output_shape) / 2

        def __call__(self, prediction, target, **options):
            seen.append(target.max())
            return super().__call__(prediction, target, **options)

    seen = []
    trainer(Halves()).fit((X, np.full((4, 3), 8.0)), epochs=1, validation=(X, np.full((4, 3), 2.0)), progress=False)
    assert seen == [4, 1]


def test_unknown_losses():
    with pytest.raises(ArgumentError, match="did you mean 'softmax_cross_entropy'"):
        losses.get("softmax_crossentropy")
    with pytest.raises(ArgumentError, match=r"loss=Subclass: expected a loss object, got a class; use loss=Subclass\(\)"):
        losses.get(Subclass)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda y: list(y), "list, expected an array with 6 rows"),
        (lambda y: y[:2], "an array with 2 rows"),
        (lambda y: None, "NoneType"),
    ],
)
def test_targets_that_a_loss_returns_are_checked(returned, message):
    class Odd(nb.losses.Loss):
        def check_targets(self, y, output_shape):
            return returned(y)

    model = nb.Sequential([nb.Dense(2)])
    model.build((4,), backend="serial")
    trainer = nb.Trainer(model, loss=Odd(), optimizer=nb.SGD(0.1))
    with pytest.raises(nb.errors.ArgumentError, match=f"batch: check_targets of the loss returned (?:.* )?{message}"):
        trainer.train_batch(np.ones((6, 4), np.float32), np.arange(6) % 2)


def test_an_error_of_the_users_own_stays_what_it_is():
    class Mine(nb.NbnetError):
        def __init__(self, text, code):
            super().__init__(text)
            self.code = code

    class Odd(nb.losses.Loss):
        def check_targets(self, y, output_shape):
            raise Mine("no such target", 7)

    model = nb.Sequential([nb.Dense(2)])
    model.build((4,), backend="serial")
    with pytest.raises(Mine, match=r"^batch: no such target$") as caught:
        nb.Trainer(model, loss=Odd(), optimizer=nb.SGD(0.1)).train_batch(np.ones((6, 4), np.float32), np.arange(6) % 2)
    assert caught.value.code == 7


def test_a_loss_that_is_no_name():
    with pytest.raises(nb.errors.ArgumentError, match="unknown loss"):
        nb.losses.get([])
