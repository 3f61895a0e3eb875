"""Models with several inputs or outputs, through everything that a user touches."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, NonFiniteError, ShapeError
from nbnet.losses import LossResult
from nbnet.runtime import compile_ahead

SHAPES = ((4, 4, 1), (5,))


def two_inputs(**options):
    """An image and a vector, and two classes."""
    image = [nb.Conv2D(3, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten()]
    model = nb.Sequential([nb.Concat([image, [nb.Dense(4), nb.Tanh()]]), nb.Dropout(0.2), nb.Dense(2)])
    model.build(SHAPES, **{"backend": "serial", "dtype": "float64", "seed": 3} | options)
    return model


def two_outputs(**options):
    """A class and two numbers for each row."""
    model = nb.Sequential([nb.Dense(6), nb.Tanh(), nb.Parallel([nb.Dense(3), [nb.Dense(4), nb.Tanh(), nb.Dense(2)]])])
    model.build((5,), **{"backend": "serial", "dtype": "float64", "seed": 3} | options)
    return model


LOSSES = ("softmax_cross_entropy", "mean_squared_error")


def of_two_inputs(rng, rows=20):
    images, vectors = rng.integers(0, 256, (rows, 4, 4, 1)).astype(np.uint8), rng.normal(size=(rows, 5))
    return (images, vectors), (vectors[:, 0] + images[:, 0, 0, 0] / 255 > 0.5).astype(np.int64)


def of_two_outputs(rng, rows=20):
    x = rng.normal(size=(rows, 5))
    return x, (x[:, :3].argmax(axis=1), x[:, :2] * x[:, 2:4])


def bits(model):
    return {name: array.tobytes() for name, array in model.state().items()}


# ------------------------------------------------------------------------------------------------------------------- inputs


def test_two_inputs_train_like_one(rng):
    """Two halves of the rows, joined first, have the bits of whole rows."""
    x, y = rng.normal(size=(30, 7)), rng.integers(0, 2, 30)
    halves = x[:, :4].copy(), x[:, 4:].copy()
    results = []
    for data, shape, first in ((x, (7,), nb.Identity()), (halves, ((4,), (3,)), nb.Concat())):
        model = nb.Sequential([first, nb.Dense(6), nb.ReLU(), nb.Dense(2)])
        model.build(shape, backend="serial", dtype="float64", seed=3)
        trainer = nb.Trainer(model, optimizer=nb.Adam(0.01), seed=4)
        history = trainer.fit((data, y), epochs=3, batch_size=8, validation=(data, y), progress=False)
        history.pop("seconds")
        results.append((history, bits(model), trainer.evaluate(data, y), model.predict(data, batch_size=7).tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_that_takes_x(rng, dtype, tmp_path):
    """uint8 is scaled, in each input; memory maps are read batch by batch; replay and parallel change no bit."""
    x, y = of_two_inputs(rng)
    scaled = (x[0].astype(dtype) / np.asarray(255, dtype), x[1])
    maps = []
    for i, array in enumerate(x):
        np.save(tmp_path / f"{i}.npy", array)
        maps.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    results = []
    for data, options in ((x, {}), (scaled, {}), (maps, {}), (x, {"backend": "parallel"}), (x, {"replay": False})):
        replay = options.pop("replay", True)
        trainer = nb.Trainer(two_inputs(dtype=dtype, **options), optimizer=nb.Adam(0.01), replay=replay)
        history = trainer.fit((data, y), epochs=4, batch_size=6, validation=(data, y), progress=False)
        trainer.train_batch(data, y)
        results.append((history["loss"], history["val_accuracy"], bits(trainer.model), trainer.model.predict(data).tobytes()))
        recordings = [each for each in trainer._passes._recordings.values() if each]
        assert not any(each.live for each in recordings)
    assert all(result == results[0] for result in results)
    assert results[0][0][-1] < results[0][0][0]


def test_a_batch_in_parts_and_copies_of_a_run(rng, tmp_path):
    x, y = of_two_inputs(rng)
    trainer, other = (nb.Trainer(two_inputs(), optimizer=nb.Adam(0.01), accumulate=2) for _ in range(2))
    trainer.fit((x, y), epochs=1, progress=False)
    trainer.save(tmp_path / "run.safetensors")
    other.restore(tmp_path / "run.safetensors")
    for each in (trainer, other):
        each.fit((x, y), epochs=2, progress=False)
    assert bits(trainer.model) == bits(other.model)


def test_gradcheck_of_two_inputs(rng):
    errors = nb.gradcheck(two_inputs(), (rng.normal(size=(3, 4, 4, 1)), rng.normal(size=(3, 5))), tolerance=1e-6)
    assert {"x[0]", "x[1]"} < errors.keys()


def test_kernels_are_found_ahead(rng):
    for model in (two_inputs(), two_outputs()):
        names = {op for op, _ in compile_ahead.calls(model, 6)}
        assert {"dense.forward", "dense.backward_weights"} < names


BAD_INPUTS = [
    (lambda x, y: (x[0], y), ShapeError, "layer sequential takes 2 inputs, got one: expected a tuple of arrays, of shapes"),
    (lambda x, y: ((*x, x[0]), y), ShapeError, "takes 2 inputs, got 3"),
    (lambda x, y: (x[::-1], y), ShapeError, r"got x\[0\] of shape \(20, 5\), expected \(N, 4, 4, 1\)"),
    (lambda x, y: ((x[0], x[1][:9]), y), ShapeError, "the inputs have 20, 9 rows"),
    (lambda x, y: (x, y[:9]), ShapeError, r"x\[0\] has shape \(20, 4, 4, 1\) but y has shape \(9,\)"),
    (lambda x, y: ((x[0], np.where(x[1] > 1, np.nan, x[1])), y), NonFiniteError, r"x\[1\]\[\d+, \d\] is nan"),
    (lambda x, y: (x, y + 2), nb.errors.DataError, "is not a class"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), BAD_INPUTS, ids=range(len(BAD_INPUTS)))
def test_bad_inputs_change_nothing(rng, spoil, error, message):
    trainer = nb.Trainer(two_inputs(), optimizer=nb.Adam(0.01))
    before, data = bits(trainer.model), spoil(*of_two_inputs(rng))
    for use in (lambda: trainer.fit(data, epochs=1), lambda: trainer.train_batch(*data), lambda: trainer.evaluate(*data)):
        with pytest.raises(error, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert bits(trainer.model) == before


def test_two_inputs_where_one_is_expected(rng):
    model = nb.Sequential([nb.Dense(2)])
    model.build((5,), backend="serial", dtype="float64")
    x, y = rng.normal(size=(6, 5)), np.arange(6) % 2
    trainer = nb.Trainer(model, optimizer="adam")
    for use in (lambda: trainer.fit(((x, x), y), epochs=1), lambda: trainer.evaluate((x, x), y), lambda: model.predict((x, x))):
        with pytest.raises(ShapeError, match=r"takes one input, got 2: expected one array \(N, 5\)"):
            use()


def test_where_a_number_that_is_not_finite_comes_from(rng):
    (images, vectors), y = of_two_inputs(rng)
    trainer = nb.Trainer(two_inputs(), optimizer=nb.SGD(0.1))
    trainer.model.params["2.dense.bias"].value[0] = np.inf
    with pytest.raises(NonFiniteError, match=r"the parameters of layer 2\.dense are not finite"):
        trainer.train_batch((images, vectors), y)
    trainer = nb.Trainer(two_outputs(), LOSSES, optimizer="adam")
    x, targets = of_two_outputs(rng)
    trainer.model.layers[2].branches[1].layers[2].params["weight"].value[:] = 1e308
    with pytest.raises(NonFiniteError, match=r"layer 2\.parallel gives NaN or infinity"):
        trainer.train_batch(x, targets)


# ------------------------------------------------------------------------------------------------------------------ outputs


def test_two_outputs_have_a_loss_each(rng):
    x, (labels, numbers) = of_two_outputs(rng)
    model = two_outputs()
    trainer = nb.Trainer(model, LOSSES, optimizer=nb.SGD(0.1))
    a, b = model.predict(x)
    first = nb.losses.softmax_cross_entropy(a, labels, backend="serial")
    second = nb.losses.mean_squared_error(b, numbers, backend="serial")
    metrics = trainer.evaluate(x, (labels, numbers))
    assert_close(metrics["loss"], (first.total + second.total) / 20, "reduction")
    assert metrics["accuracy"] == first.correct / 20
    before = {name: param.value.copy() for name, param in model.params.items()}
    model.backward((first.gradient, second.gradient), model.forward(x, train=True)[1])
    wanted = {name: before[name] - 0.1 * param.grad for name, param in model.params.items()}
    trainer.train_batch(x, (labels, numbers))
    for name, param in model.params.items():
        assert_close(param.value, wanted[name], "reduction")


def test_accuracy_needs_one_classification(rng):
    x, (labels, numbers) = of_two_outputs(rng)
    model = nb.Sequential([nb.Parallel([nb.Dense(3), nb.Dense(3)])])
    model.build((5,), backend="serial", dtype="float64")
    assert nb.Trainer(model, ["softmax_cross_entropy"] * 2, optimizer="adam").evaluate(x, (labels, labels)).keys() == {"loss"}
    assert nb.Trainer(two_outputs(), LOSSES, optimizer="adam").evaluate(x, (labels, numbers)).keys() == {"loss", "accuracy"}


def test_outputs_are_the_same_with_and_without_replay(rng, tmp_path):
    x, y = of_two_outputs(rng)
    results = []
    for options in ({}, {"backend": "parallel"}, {"replay": False}, {"accumulate": 2}):
        chosen = {name: options.pop(name) for name in ("replay", "accumulate") if name in options}
        trainer = nb.Trainer(two_outputs(**options), LOSSES, optimizer=nb.Adam(0.01), **chosen)
        history = trainer.fit((x, y), epochs=5, batch_size=8, validation=(x, y), progress=False)
        results.append((history["loss"], history["val_loss"], bits(trainer.model)))
    assert results[0] == results[1] == results[2]
    assert_close(np.array(results[3][0]), np.array(results[0][0]), "training")
    assert results[0][0][-1] < results[0][0][0]
    trainer.save(tmp_path / "run.safetensors")
    other = nb.Trainer(two_outputs(seed=9), LOSSES, optimizer=nb.Adam(0.01), accumulate=2)
    other.restore(tmp_path / "run.safetensors")
    assert bits(other.model) == bits(trainer.model)


def test_layers_with_tuples_run_live_too(rng):
    """A container with a method of its own on the object."""
    x, y = of_two_outputs(rng)
    results = []
    for replay in (True, False):
        model = two_outputs()
        parallel = model.layers[2]
        forward = parallel.forward
        parallel.forward = lambda x, train=False, forward=forward: forward(x, train)
        trainer = nb.Trainer(model, LOSSES, optimizer=nb.Adam(0.01), replay=replay)
        results.append([trainer.train_batch(x, y)["loss"] for _ in range(5)])
        if replay:
            assert [[each.name for each in one.live] for one in trainer._passes._recordings.values() if one] == [["2.parallel"]]
    assert results[0] == results[1]


def test_a_live_layer_with_other_outputs_is_refused(rng):
    x, y = of_two_outputs(rng)
    model = two_outputs()
    parallel = model.layers[2]
    forward, calls = parallel.forward, []

    def shorter(x, train=False):
        calls.append(train)
        y, saved = forward(x, train)
        return (y if len(calls) < 3 else list(y)), saved

    parallel.forward = shorter
    trainer = nb.Trainer(model, LOSSES, optimizer="adam")
    for _ in range(2):
        trainer.train_batch(x, y)
    with pytest.raises(ShapeError, match=r"layer 2\.parallel: forward returned list, expected 2 arrays as before"):
        trainer.train_batch(x, y)


def contrastive(prediction, target, *, rows, backend):
    """A loss of the user's that takes both outputs: the squared distance of pairs of one class, in one loss."""
    a, b = prediction
    difference = (a - b) * target[:, None]
    gradient = 2 * difference / (rows or len(a))
    return LossResult(float((difference**2).sum()), None, (gradient, -gradient))


def test_a_loss_of_the_users_may_take_all_outputs(rng):
    trunk = nb.Sequential([nb.Dense(4), nb.Tanh()])
    model = nb.Sequential([nb.Parallel([trunk, trunk])])
    model.build(((5,), (5,)), backend="serial", dtype="float64")
    x = rng.normal(size=(8, 5)), rng.normal(size=(8, 5))
    trainer = nb.Trainer(model, contrastive, optimizer=nb.SGD(0.1))
    losses = [trainer.train_batch(x, np.arange(8) % 2)["loss"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    bad = nb.Trainer(model, lambda p, t, *, rows, backend: LossResult(0.0, None, p[0]), optimizer="adam")
    with pytest.raises(ShapeError, match="returned a gradient that is not a tuple of 2 arrays, one for each output"):
        bad.train_batch(x, np.arange(8))


def test_losses_that_do_not_fit_the_outputs():
    for loss in ("softmax_cross_entropy", "mean_squared_error"):
        with pytest.raises(
            ArgumentError, match=f"the model has 2 outputs: expected a loss for each, such as loss=\\('{loss}', '{loss}'\\)"
        ):
            nb.Trainer(two_outputs(), loss)
    with pytest.raises(ArgumentError, match="got 3 losses for 2 outputs: expected 2 losses"):
        nb.Trainer(two_outputs(), (*LOSSES, "mean_squared_error"))
    with pytest.raises(ArgumentError, match="got 2 losses for 1 output: expected one loss, not a list"):
        nb.Trainer(two_inputs(), LOSSES, optimizer="adam")
    with pytest.raises(ArgumentError, match="unknown loss 'mean_squared_eror': did you mean"):
        nb.Trainer(two_outputs(), ("mean_squared_eror", "mean_squared_error"), optimizer="adam")
    with pytest.raises(ArgumentError, match="unknown loss"):
        nb.losses.get([])


BAD_TARGETS = [
    (lambda y: y[0], ShapeError, "y has the targets of 2 outputs: expected a tuple of 2 arrays, got ndarray"),
    (lambda y: (*y, y[0]), ShapeError, "expected a tuple of 2 arrays, got 3"),
    (lambda y: (y[0], y[1][:9]), ShapeError, "the targets have 20, 9 rows: expected one of each output for every row of x"),
    (lambda y: (y[0][:9], y[1][:9]), ShapeError, r"x has shape \(20, 5\) but y has shape \(9,\)"),
    (lambda y: y[::-1], ShapeError, "labels have shape"),
    (lambda y: (y[0], y[1] * np.nan), NonFiniteError, "y"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), BAD_TARGETS, ids=range(len(BAD_TARGETS)))
def test_bad_targets_change_nothing(rng, spoil, error, message):
    x, y = of_two_outputs(rng)
    trainer = nb.Trainer(two_outputs(), LOSSES, optimizer="adam")
    before, wrong = bits(trainer.model), spoil(y)
    for use in (lambda: trainer.fit((x, wrong), epochs=1), lambda: trainer.train_batch(x, wrong), lambda: trainer.evaluate(x, wrong)):
        with pytest.raises(error, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert bits(trainer.model) == before


def test_what_is_for_one_output(rng):
    x, _ = of_two_outputs(rng)
    with pytest.raises(ShapeError, match=r"predict_proba is for one output, the model has 2: use predict\(x\)"):
        two_outputs().predict_proba(x)
    ends = nb.Sequential([nb.Parallel([nb.Dense(3), [nb.Dense(2), nb.Softmax()]])])
    ends.build((5,), backend="serial")
    with pytest.warns(UserWarning, match="the model ends with Softmax"):
        nb.Trainer(ends, ("softmax_cross_entropy", "softmax_cross_entropy"), optimizer="adam")
    nb.Trainer(ends, ("softmax_cross_entropy", "mean_squared_error"), optimizer="adam")


def test_repr_of_a_trainer_is_code():
    trainer = nb.Trainer(two_outputs(), LOSSES, optimizer="adam")
    scope = {"nb": nb}
    exec(repr(trainer), scope)
    assert repr(scope["trainer"]) == repr(trainer)
    assert repr(nb.losses.get(list(LOSSES))) == "(nb.losses.softmax_cross_entropy, nb.losses.mean_squared_error)"
    exec(repr(nb.Trainer(two_inputs(), optimizer="adam")), scope)
    assert scope["model"].input_shape == SHAPES
