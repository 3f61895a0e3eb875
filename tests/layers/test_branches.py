"""Containers that branch, and layers that only change the shape."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, ShapeError
from nbnet.layers.containers import Container

IMAGE = (5, 4, 3)


class Scaled(nb.Layer):
    """y = factor * x; notes in `calls` when it runs."""

    replayable = True

    def __init__(self, factor, calls=None):
        super().__init__()
        self.factor, self.calls = factor, [] if calls is None else calls

    def forward(self, x, train=False):
        self.calls.append(("forward", self.factor))
        return self.check_input(x) * self.factor, ()

    def backward(self, dy, saved, need_dx=True):
        self.calls.append(("backward", self.factor))
        return dy * self.factor


def built(layer, shape=IMAGE, **options):
    layer.build(shape, **{"backend": "serial", "dtype": "float64", "seed": 3} | options)
    return layer


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, *IMAGE))


# ----------------------------------------------------------------------------------------------------- what they compute


def test_what_they_compute(x):
    branches = lambda: [Scaled(2.0), nb.Identity(), [Scaled(3.0), Scaled(0.5)]]  # noqa: E731
    assert_close(built(nb.Concat(branches())).forward(x)[0], np.concatenate([2 * x, x, 1.5 * x], axis=-1), "exact")
    assert_close(built(nb.Add(branches())).forward(x)[0], 2 * x + x + 1.5 * x, "exact")
    assert_close(built(nb.Multiply(branches())).forward(x)[0], 2 * x * x * (1.5 * x), "exact")
    for y, wanted in zip(built(nb.Parallel(branches())).forward(x)[0], (2 * x, x, 1.5 * x), strict=True):
        assert_close(y, wanted, "exact")


@pytest.mark.parametrize("gate", [nb.GlobalAvgPool2D, lambda: nb.GlobalAvgPool2D(keepdims=True)])
@pytest.mark.parametrize("first", [True, False])
def test_a_gate_of_the_channels(x, gate, first):
    branches = [gate(), nb.Identity()] if first else [nb.Identity(), gate()]
    layer = built(nb.Multiply(branches))
    y, saved = layer.forward(x, train=True)
    mean = x.mean(axis=(1, 2), keepdims=True)
    assert_close(y, x * mean, "elementwise")
    dx = layer.backward(x, saved)
    assert_close(dx, x * mean + (x * x).sum(axis=(1, 2), keepdims=True) / 20, "reduction")


JOINS = {
    "concat": (nb.Concat, lambda a, b: np.concatenate([a, b], axis=-1)),
    "add": (nb.Add, lambda a, b: a + b),
    "multiply": (nb.Multiply, lambda a, b: a * b),
}


@pytest.mark.parametrize("join", JOINS)
def test_several_inputs(rng, join):
    """The i-th branch gets the i-th input; without branches they are joined themselves."""
    make, wanted = JOINS[join]
    a, b = (rng.normal(size=(3, 4)) for _ in range(2))
    layer = built(make([Scaled(2.0), Scaled(3.0)]), ((4,), (4,)))
    assert_close(layer.forward((a, b))[0], wanted(2 * a, 3 * b), "elementwise")
    layer = built(make(), ((4,), (4,)))
    assert_close(layer.forward([a, b])[0], wanted(a, b), "exact")
    y, saved = layer.forward((a, b), train=True)
    assert len(layer.backward(y, saved)) == 2
    assert layer.backward(y, saved, need_dx=False) is None


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: nb.Concat(), ((2, 2, 3), (2, 2, 1), (2, 2, 2))),
        (lambda: nb.Multiply(), ((2, 2, 3), (3,), (1, 1, 3))),
        (lambda: nb.Add(), ((4,), (4,))),
        (lambda: nb.Parallel([nb.Dense(2), [nb.Flatten(), nb.Tanh()]]), ((3,), (2, 1))),
        (lambda: nb.Parallel([nb.Dense(2), [nb.Dense(3), nb.Tanh()]]), (4,)),
        (lambda: nb.Sequential([nb.Parallel([nb.Dense(4), nb.Dense(4)]), nb.Parallel([nb.Tanh(), nb.Dense(2)])]), ((3,), (5,))),
        (lambda: nb.Sequential([nb.Concat([nb.Dense(2), []]), nb.Dense(2)]), ((3,), (5,))),
    ],
)
def test_gradients_of_several_inputs_and_outputs(rng, make, shapes):
    several = isinstance(shapes[0], tuple)
    x = tuple(rng.normal(size=(3, *shape)) for shape in shapes) if several else rng.normal(size=(3, *shapes))
    layer = make()
    errors = nb.gradcheck(layer, x, tolerance=1e-7)
    assert errors.keys() == {*([f"x[{i}]" for i in range(len(x))] if several else ["x"]), *layer.params}


def test_backward_runs_in_reverse_order(x):
    calls = []
    layer = built(nb.Add([Scaled(1.0, calls), Scaled(2.0, calls), Scaled(3.0, calls)]))
    y, saved = layer.forward(x, train=True)
    dx = layer.backward(y, saved)
    assert calls == [("forward", 1.0), ("forward", 2.0), ("forward", 3.0), ("backward", 3.0), ("backward", 2.0), ("backward", 1.0)]
    assert_close(dx, 6.0 * y, "elementwise")


def test_a_branch_without_parameters_needs_no_backward_without_dx(x):
    calls = []
    model = built(nb.Sequential([nb.Concat([nb.Conv2D(2, 1), Scaled(2.0, calls)]), nb.Tanh()]))
    y, tape = model.forward(x, train=True)
    model.backward(y, tape)
    wanted = {name: param.grad.copy() for name, param in model.params.items()}
    assert calls.pop() == ("backward", 2.0)
    assert model.backward(y, tape, need_dx=False) is None
    assert calls == [("forward", 2.0)]
    for name, grad in wanted.items():
        assert_close(model.params[name].grad, grad, "exact")


def test_serial_and_parallel_have_the_same_bits_on_many_chunks(rng):
    x, results = rng.normal(size=(24, 24, 20, 16)).astype("float32"), []
    for backend in ("serial", "parallel"):
        gate = [nb.GlobalAvgPool2D(), nb.Dense(4), nb.ReLU(), nb.Dense(28), nb.Sigmoid()]
        layers = [nb.Concat([[], nb.Conv2D(12, 1)]), nb.Multiply([[], gate]), nb.Add([[], nb.Permute((1, 2, 3))]), nb.Permute((3, 2, 1))]
        model = built(nb.Sequential(layers), x.shape[1:], backend=backend, dtype="float32")
        y, tape = model.forward(x, train=True)
        dx = model.backward(y, tape)
        results.append([array.tobytes() for array in (y, dx, *(param.grad for param in model.params.values()))])
    assert results[0] == results[1]


# ------------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("order", [*itertools.permutations((1, 2, 3)), *itertools.permutations((1, 2, 3, 4)), (2, 1), (1,)], ids=str)
def test_permute_is_transpose(rng, order):
    x = rng.normal(size=(2, 3, 4, 5, 2)[: len(order) + 1])
    layer = built(nb.Permute(order), x.shape[1:])
    y, saved = layer.forward(x, train=True)
    assert_close(y, x.transpose(0, *order), "exact")
    assert y.shape[1:] == layer.output_shape
    assert_close(layer.backward(y, saved), x, "exact")


@pytest.mark.parametrize(
    ("order", "count"), [((1, 2, 3), 0), ((3, 1, 2), 1), ((2, 3, 1), 1), ((2, 1, 3), 1), ((1, 3, 2), 1), ((3, 2, 1), 2)]
)
def test_permute_moves_runs_of_axes_at_once(x, monkeypatch, order, count):
    layer, calls = built(nb.Permute(order)), []
    moved = nb.Permute._moved
    monkeypatch.setattr(nb.Permute, "_moved", lambda self, *args: calls.append(1) or moved(self, *args))
    layer.forward(x)
    assert len(calls) == count


def test_reshape_and_identity(x):
    for shape, wanted in (((10, 6), (10, 6)), ((-1, 6), (10, 6)), (60, (60,)), (-1, (60,)), ([2, -1, 3], (2, 10, 3))):
        layer = built(nb.Reshape(shape))
        y, saved = layer.forward(x, train=True)
        assert (y.shape, layer.output_shape) == ((2, *wanted), wanted)
        assert_close(layer.backward(y, saved), x, "exact")
    assert_close(built(nb.Identity()).forward(x)[0], x, "exact")


# ----------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: nb.Concat([nb.Conv2D(2, 3), nb.Conv2D(2, 3, stride=2)]),
            IMAGE,
            r"Concat: 0\.conv2d gives \(5, 4, 2\) and 1\.conv2d gives \(3, 2, 2\): expected the same sizes in all axes but the last, the",
        ),
        (
            lambda: nb.Sequential([nb.Add([nb.Conv2D(2, 3), []])]),
            IMAGE,
            r"0\.add does not fit the input.*Add: 0\.conv2d gives \(5, 4, 2\) and 1\.sequential gives \(5, 4, 3\): expected equal shapes",
        ),
        (
            lambda: nb.Multiply([[], [nb.GlobalAvgPool2D(), nb.Dense(2)]]),
            IMAGE,
            r"Multiply: 0\.sequential gives \(5, 4, 3\) and 1\.sequential gives \(2,\): expected equal shapes, or \(3,\), one number for",
        ),
        (lambda: nb.Concat(), IMAGE, r"Concat\(\) without branches joins several inputs, got one, of shape \(5, 4, 3\): write Concat\(\["),
        (
            lambda: nb.Concat([[], []]),
            (IMAGE,) * 3,
            r"Concat has 2 branches, got 3 inputs, of shapes .*: expected one for each branch, or on",
        ),
        (
            lambda: nb.Sequential([nb.Dense(2)]),
            ((3,), (3,)),
            r"Dense takes one input, got 2, of shapes \(\(3,\), \(3,\)\): join them before ",
        ),
        (
            lambda: nb.Sequential([nb.Parallel([[], []]), nb.Dense(2)]),
            (3,),
            r"layer 1\.dense does not fit layer 0\.parallel, which gives \(\(3,\), \(3,\)\): Dense takes one input, got 2",
        ),
        (
            lambda: nb.Concat([[], nb.Parallel([[], []])]),
            (3,),
            r"Concat: 1\.parallel gives 2 outputs, of shapes .*: expected one, so join them in the branch",
        ),
        (lambda: nb.Concat([[], []]), (IMAGE,), r"is a tuple of one shape: for one input write \(5, 4, 3\)"),
        (lambda: nb.Concat([[], []]), (IMAGE, (0, 2)), "expected the positive sizes of one example"),
        (lambda: nb.Concat([[], []]), (IMAGE, 3), "expected the positive sizes of one example"),
        (lambda: nb.Reshape((7, -1)), IMAGE, r"Reshape\(\(7, -1\)\) got inputs of shape \(5, 4, 3\): expected sizes whose product is 60"),
        (lambda: nb.Reshape(61), IMAGE, r"Reshape\(\(61,\)\) got inputs of shape \(5, 4, 3\): expected sizes whose product is 60"),
        (lambda: nb.Reshape((61, -1)), IMAGE, "expected sizes whose product is 60"),
        (lambda: nb.Permute((2, 1)), IMAGE, r"Permute\(\(2, 1\)\) got inputs of shape \(5, 4, 3\): expected 2 axes"),
    ],
)
def test_shapes_that_do_not_fit(make, shape, message):
    layer = make()
    with pytest.raises(ShapeError, match=message) as caught:
        layer.build(shape, backend="numpy")
    assert "\n" not in str(caught.value)
    assert all(each.input_shape is None and not each.params for each in layer.walk())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nb.Concat(nb.Dense(3)), r"Concat got nb\.Dense\(3\), expected a list: nb\.Concat\("),
        (lambda: nb.Add(3), r"Add got 3, expected a list"),
        (lambda: nb.Multiply([nb.Dense(3)]), "Multiply got a list of 1 branches, expected at least 2"),
        (lambda: nb.Parallel([]), "Parallel got a list of 0 branches, expected at least 2"),
        (lambda: nb.Concat([nb.Dense(3), ["dense"]]), "Sequential got 'dense', expected layers"),
        (lambda: nb.Reshape((2, -1, -1)), r"Reshape\(\(2, -1, -1\)\): expected the sizes of one example"),
        (lambda: nb.Reshape((2.5,)), "expected the sizes of one example"),
        (lambda: nb.Reshape((4, 2.5)), "expected the sizes of one example"),
        (lambda: nb.Reshape(0), r"Reshape\(0\): expected the sizes"),
        (lambda: nb.Reshape(()), r"Reshape\(\(\)\): expected the sizes"),
        (lambda: nb.Permute((0, 1, 2)), r"Permute\(\(0, 1, 2\)\): expected each axis of one example once, from 1, such as \(3, 1, 2\)"),
        (lambda: nb.Permute(2), "expected each axis"),
        (lambda: nb.Permute((1, 1)), "expected each axis"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_bad_inputs(rng):
    a, b = (rng.normal(size=(3, 4)) for _ in range(2))
    model = built(nb.Sequential([nb.Concat()]), ((4,), (4,)))
    single = built(nb.Sequential([nb.Dense(2)]), (4,))
    for forward in (model.forward, model.predict):
        with pytest.raises(
            ShapeError, match=r"layer sequential takes 2 inputs, got one: expected a tuple of arrays, of shapes \(\(4,\), \(4"
        ):
            forward(a)
        with pytest.raises(ShapeError, match="takes 2 inputs, got 3"):
            forward((a, b, a))
        with pytest.raises(ShapeError, match=r"layer sequential got x\[1\] of shape \(3, 3\), expected \(N, 4\)"):
            forward((a, b[:, :3]))
        with pytest.raises(ShapeError, match="the inputs have 3, 2 rows: expected one row of each input for every example"):
            forward((a, b[:2]))
    for forward in (single.forward, single.predict, single.layers[0].forward):
        with pytest.raises(ShapeError, match=r"takes one input, got 2: expected one array \(N, 4\)"):
            forward((a, b))
        with pytest.raises(ShapeError, match="takes one input, got 2"):
            forward([a, b[:2]])
    assert single.predict([tuple(row) for row in a]).shape == (3, 2)  # rows, not inputs
    with pytest.raises(BuildError, match="call build"):
        nb.Concat([[], []]).forward(a)


def test_bad_gradients(x):
    layer = built(nb.Concat([[], []]))
    y, saved = layer.forward(x, train=True)
    with pytest.raises(ShapeError, match=r"dy has shape \(2, 5, 4, 3\), expected \(2, 5, 4, 6\)"):
        layer.backward(x, saved)
    layer = built(nb.Parallel([[], []]))
    y, saved = layer.forward(x, train=True)
    with pytest.raises(ShapeError, match="layer parallel has 2 outputs: expected dy as a tuple of 2 gradients, got ndarray"):
        layer.backward(x, saved)
    with pytest.raises(ArgumentError, match="saved is None"):
        layer.backward(y, None)


# --------------------------------------------------------------------------------------------------------- inside of a model


def inception():
    return nb.Sequential(
        [
            nb.Concat([nb.Conv2D(2, 1), [nb.Conv2D(2, 3), nb.BatchNorm(), nb.ReLU()], [nb.AvgPool2D(3, stride=1, padding="same")]]),
            nb.Multiply([[], [nb.GlobalAvgPool2D(), nb.Dense(2), nb.ReLU(), nb.Dense(7), nb.Sigmoid()]]),
            nb.Residual([nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU()], nb.Conv2D(4, 1)),
            nb.Parallel(
                [[nb.MaxPool2D(2), nb.Flatten()], [nb.GlobalAvgPool2D(), nb.Dropout(0.3)], [nb.Permute((3, 1, 2)), nb.Reshape(-1)]]
            ),
            nb.Concat([nb.Identity(), nb.Dense(5), [nb.Dense(3), nb.Tanh()]]),
            nb.Dense(3),
        ]
    )


def test_names():
    model = built(inception())
    assert [name for name in model.params if name.endswith("weight")] == [
        "0.concat.0.conv2d.weight",
        "0.concat.1.sequential.0.conv2d.weight",
        "1.multiply.1.sequential.1.dense.weight",
        "1.multiply.1.sequential.3.dense.weight",
        "2.residual.body.0.conv2d.weight",
        "2.residual.shortcut.weight",
        "4.concat.1.dense.weight",
        "4.concat.2.sequential.0.dense.weight",
        "5.dense.weight",
    ]
    assert {layer.name for layer in model.walk()} >= {"0.concat.1.sequential.1.batchnorm", "3.parallel.2.sequential.1.reshape"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_has_the_same_bits_on_all_backends_with_and_without_replay(rng, dtype):
    batches = [(rng.normal(size=(6, *IMAGE)).astype(dtype), rng.integers(0, 3, 6)) for _ in range(5)]
    results = []
    for backend, replay in itertools.product(("serial", "parallel"), (True, False)):
        model = built(inception(), backend=backend, dtype=dtype)
        trainer = nb.Trainer(model, optimizer=nb.Adam(0.01), replay=replay)
        losses = [trainer.train_batch(*batch)["loss"] for batch in batches]
        results.append((losses, {name: array.tobytes() for name, array in model.state().items()}))
        if replay:
            (recording,) = [each for each in trainer._passes._recordings.values() if each]
            assert not recording.live
    assert all(result == results[0] for result in results)


def test_fusion_changes_nothing(rng):
    x, losses = rng.normal(size=(6, *IMAGE)), []
    for fuse in (True, False):
        trainer = nb.Trainer(built(inception(), fuse=fuse), optimizer=nb.SGD(0.1))
        losses.append([trainer.train_batch(x, np.arange(6) % 3)["loss"] for _ in range(4)])
    assert_close(*map(np.array, losses), "training")


def test_copies_and_files(x, tmp_path):
    model = built(inception())
    model.forward(x, train=True)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(twin.predict(x), model.predict(x), "exact")
        assert not any(array is other for array in twin.state().values() for other in model.state().values())
    model.save_weights(tmp_path / "w.safetensors")
    other = built(inception(), seed=8)
    other.load_weights(tmp_path / "w.safetensors")
    assert_close(other.predict(x), model.predict(x), "exact")


def test_repr_is_code():
    model = inception()
    again = eval(repr(model), {"nb": nb})
    assert repr(again) == repr(model)
    assert repr(nb.Concat()) == "nb.Concat()"
    assert repr(nb.Residual(nb.Dense(3))) == "nb.Residual(nb.Dense(3))"
    assert repr(nb.GlobalAvgPool2D(keepdims=True)) == "nb.GlobalAvgPool2D(keepdims=True)"


def test_folding_goes_into_branches(x):
    model = built(inception())
    for _ in range(3):
        model.forward(x, train=True)
    folded = nb.fold_batch_norm(model)
    assert not any(isinstance(layer, nb.BatchNorm) for layer in folded.walk())
    assert_close(folded.predict(x), model.predict(x), "reduction")
    assert folded.layers[0].branches[1].layers[0].name == "0.concat.1.sequential.0.conv2d"


def test_batch_norm_tools_go_into_branches(x):
    model = built(inception())
    nb.recalibrate(model, x)
    reports = nb.batch_norm_report(model, x, show=False)
    assert [report.name for report in reports] == ["0.concat.1.sequential.1.batchnorm", "2.residual.body.1.batchnorm"]
    assert all(report.mean_drift < 1e-9 for report in reports)


def test_there_is_no_copy_of_gradients_without_layers_in_several_places():
    assert all(layer._shared == [] for layer in built(inception()).walk() if isinstance(layer, Container))
