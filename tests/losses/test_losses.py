"""All losses in one table: values and gradients, targets, errors; and losses that users define."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import losses
from nbnet.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError

BACKENDS = ["numpy", "serial", "parallel"]


def cross_entropy_of_rows(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


# name: shape of the prediction, targets from a generator, losses of the rows in NumPy
TABLE = {
    "softmax_cross_entropy": ((5, 4), lambda rng: rng.integers(0, 4, 5), cross_entropy_of_rows),
    "mean_squared_error": ((5, 2, 3), lambda rng: rng.normal(size=(5, 2, 3)), lambda p, t: ((p - t) ** 2).reshape(5, -1).mean(axis=1)),
    "sum_squared_error": ((5, 2, 3), lambda rng: rng.normal(size=(5, 2, 3)), lambda p, t: ((p - t) ** 2).reshape(5, -1).sum(axis=1)),
}
all_losses = pytest.mark.parametrize("name", TABLE)


def test_the_table_has_every_loss():
    assert set(TABLE) == set(losses.LOSSES)
    for name, loss in losses.LOSSES.items():
        assert losses.get(name) is losses.get(loss) is getattr(nb.losses, name) is loss
        assert (loss.name, repr(loss)) == (name, f"nb.losses.{name}")


@all_losses
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_numpy(rng, name, backend, dtype):
    shape, targets, reference = TABLE[name]
    prediction, target = rng.normal(size=shape).astype(dtype), targets(rng)
    result = losses.get(name)(prediction, target, backend=backend)
    assert_close(result.total, reference(prediction.astype(float), target).sum(), "reduction", dtype)
    assert (result.gradient.shape, result.gradient.dtype) == (shape, dtype)
    hits = (prediction.argmax(axis=-1) == target).sum() if name == "softmax_cross_entropy" else None
    assert result.correct == hits


@all_losses
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [None, 12])
def test_gradients_are_central_differences(rng, name, backend, rows):
    shape, targets, _ = TABLE[name]
    loss, prediction, target = losses.get(name), rng.normal(size=shape), targets(rng)
    differences = np.empty(shape)
    for index in np.ndindex(shape):
        moved = [prediction.copy(), prediction.copy()]
        moved[0][index] += 1e-5
        moved[1][index] -= 1e-5
        up, down = (loss(p, target, backend=backend).total for p in moved)
        differences[index] = (up - down) / 2e-5 / (rows or len(prediction))
    assert_close(loss(prediction, target, rows=rows, backend=backend).gradient, differences, "differences")


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
    ("softmax_cross_entropy", np.eye(3, dtype=int), ShapeError, r"for one-hot rows use np.asarray\(y\).argmax\(axis=1\)"),
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
    class Halves(nb.losses.SquaredError):
        def check_targets(self, y, output_shape):
            return super().check_targets(y, output_shape) / 2

        def __call__(self, prediction, target, *, rows=None, backend="parallel"):
            seen.append(target.max())
            return super().__call__(prediction, target, rows=rows, backend=backend)

    seen = []
    trainer(Halves(mean=True)).fit((X, np.full((4, 3), 8.0)), epochs=1, validation=(X, np.full((4, 3), 2.0)), progress=False)
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
