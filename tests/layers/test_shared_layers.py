"""A layer in several places of a model: its parameters are shared, and the gradients of the places are added."""

import copy
import pickle

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BuildError, ShapeError


def built(layers, shape=(3,), **options):
    model = nb.Sequential(layers)
    model.build(shape, **{"backend": "serial", "dtype": "float64", "seed": 3} | options)
    return model


def twice():
    dense = nb.Dense(3)
    return [dense, nb.Tanh(), dense, nb.Tanh(), nb.Dense(2)]


def nested():
    dense = nb.Dense(3)
    return [dense, nb.Residual([nb.Tanh(), dense, nb.Dense(3)]), nb.Add([dense, [nb.Tanh(), dense]]), nb.Tanh(), nb.Dense(2)]


def siamese():
    trunk = nb.Sequential([nb.Dense(4), nb.Tanh(), nb.Dense(2)])
    return [nb.Parallel([trunk, trunk]), nb.Multiply(), nb.Dense(2)]


def trunk_with_a_layer_twice():
    dense = nb.Dense(3)
    trunk = nb.Sequential([dense, nb.Tanh(), dense, nb.Tanh()])
    return [trunk, dense, trunk, nb.Dense(2)]


MODELS = {
    "twice": (twice, (3,)),
    "nested": (nested, (3,)),
    "siamese": (siamese, ((3,), (3,))),
    "trunk": (trunk_with_a_layer_twice, (3,)),
}
everywhere = pytest.mark.parametrize("name", MODELS)


def made(name, **options):
    make, shape = MODELS[name]
    return built(make(), shape, **options)


def batch(rng, name, rows=4, dtype="float64"):
    shape = MODELS[name][1]
    x = [rng.normal(size=(rows, *each)).astype(dtype) for each in (shape if isinstance(shape[0], tuple) else [shape])]
    return tuple(x) if len(x) > 1 else x[0]


@everywhere
def test_gradients(rng, name):
    errors = nb.gradcheck(made(name), batch(rng, name), tolerance=1e-7)
    assert all(key in errors for key in made(name).params)


def test_one_entry_for_each_parameter():
    assert list(made("twice").params) == ["0.dense.weight", "0.dense.bias", "4.dense.weight", "4.dense.bias"]
    assert list(made("siamese").params) == [
        *(f"0.parallel.0.sequential.{i}.dense.{name}" for i in (0, 2) for name in ("weight", "bias")),
        "2.dense.weight",
        "2.dense.bias",
    ]
    assert [name for name in made("nested").params if "weight" in name] == [
        "0.dense.weight",
        "1.residual.body.2.dense.weight",
        "4.dense.weight",
    ]
    model = made("nested")
    assert model.layers[0].name == "0.dense"
    (layout,) = {param.layout for param in model.params.values()}
    assert len(layout.shapes) == 6
    assert len(list(model.walk())) == len({id(layer) for layer in model.walk()}) == 12


def test_the_gradient_is_the_sum_over_the_places(rng):
    """Those of a model with a layer of its own in each place."""
    shared, apart = made("twice"), built([nb.Dense(3), nb.Tanh(), nb.Dense(3), nb.Tanh(), nb.Dense(2)])
    for at, source in ((0, 0), (2, 0), (4, 4)):
        for name, param in apart.layers[at].params.items():
            param.value[:] = shared.layers[source].params[name].value
    x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    (y, tape), (z, of_apart) = shared.forward(x, train=True), apart.forward(x, train=True)
    assert_close(y, z, "exact")
    assert_close(shared.backward(dy, tape), apart.backward(dy, of_apart), "exact")
    for name in ("weight", "bias"):
        both = [apart.layers[at].params[name].grad for at in (0, 2)]
        assert_close(shared.layers[0].params[name].grad, both[0] + both[1], "exact")
    again = {name: param.grad.copy() for name, param in shared.params.items()}
    shared.backward(dy, shared.forward(x, train=True)[1], need_dx=False)
    assert all(np.array_equal(param.grad, again[name]) for name, param in shared.params.items()), "the gradients of before were kept"


def test_an_optimizer_steps_once(rng):
    model = made("nested")
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.SGD(0.1))
    before = {name: param.value.copy() for name, param in model.params.items()}
    trainer.train_batch(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))
    for name, param in model.params.items():
        assert_close(param.value, before[name] - 0.1 * param.grad, "elementwise")
        assert not np.array_equal(param.value, before[name])


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_has_the_same_bits_on_all_backends_with_and_without_replay(rng, name, dtype):
    x, y = batch(rng, name, 6, dtype), np.arange(6) % 2
    results = []
    for options in ({}, {"backend": "parallel"}, {"replay": False}):
        replay = options.pop("replay", True)
        trainer = nb.Trainer(made(name, dtype=dtype, **options), optimizer=nb.Adam(0.01), replay=replay)
        results.append(([trainer.train_batch(x, y)["loss"] for _ in range(5)], {k: v.tobytes() for k, v in trainer.model.state().items()}))
        assert not replay or [each.live for each in trainer._passes._recordings.values() if each] == [[]]
    assert results[0] == results[1] == results[2]
    assert results[0][0][-1] < results[0][0][0]


@everywhere
def test_parts_of_a_batch_are_added(rng, name):
    x, y = batch(rng, name, 6), np.arange(6) % 2
    whole, parts = (nb.Trainer(made(name), optimizer=nb.SGD(0.1), accumulate=n) for n in (1, 3))
    for trainer in (whole, parts):
        trainer.train_batch(x, y)
    for name_, array in whole.model.state().items():
        assert_close(parts.model.state()[name_], array, "reduction")


# ---------------------------------------------------------------------------------------------------------- kinds of layers


def blocks(shared):
    conv, norm, relu = nb.Conv2D(3, 3, use_bias=False), nb.BatchNorm(decay=0.8), nb.ReLU()
    block = [conv, norm, relu]
    return [*block, *(block if shared == "layers" else []), nb.Flatten(), nb.Dense(2)]


def test_fused_steps_share_layers(rng):
    x, y = rng.normal(size=(6, 4, 5, 3)), np.arange(6) % 2
    losses, states = [], []
    for fuse, replay in ((True, True), (True, False), (False, True)):
        model = built(blocks("layers"), (4, 5, 3), fuse=fuse)
        assert len(model.steps) == (4 if fuse else 8)
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1), replay=replay)
        losses.append([trainer.train_batch(x, y)["loss"] for _ in range(5)])
        states.append({name: array.tobytes() for name, array in model.state().items()})
    assert losses[0] == losses[1]
    assert states[0] == states[1]
    assert_close(np.array(losses[0]), np.array(losses[2]), "training")
    nb.gradcheck(built(blocks("layers"), (4, 5, 3)), x[:3], tolerance=1e-6)


def test_moving_statistics_follow_each_place(rng):
    norm = nb.BatchNorm(decay=0.7)
    model = built([norm, nb.Dense(3), norm])
    x, mean = rng.normal(2, 3, (5, 3)), np.zeros(3)
    model.forward(x, train=True)
    between = model.layers[1].forward((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5))[0]
    for seen in (x, between):
        mean = 0.7 * mean + 0.3 * seen.mean(axis=0)
    assert_close(norm.buffers["moving_mean"], mean, "reduction")
    assert norm.buffers["updates"] == [2]
    assert list(model.buffers) == ["0.batchnorm.moving_mean", "0.batchnorm.moving_var", "0.batchnorm.updates"]


def test_each_place_of_a_dropout_has_its_own_mask(rng):
    dropout = nb.Dropout(0.5)
    model = built([dropout, nb.Tanh(), dropout], (1000,))
    y, _ = model.forward(np.ones((1, 1000)), train=True)
    assert dropout.buffers["step"] == [2]
    assert 0.15 < np.mean(y != 0) < 0.35, "both masks are the same"
    nb.gradcheck(built([dropout := nb.Dropout(0.5), nb.Tanh(), dropout], (6,)), rng.normal(size=(3, 6)), tolerance=1e-7)


def test_frozen_parameters_stay(rng):
    model = made("twice")
    model.params["0.dense.weight"].trainable = False
    before = model.layers[0].params["weight"].value.copy()
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    for _ in range(3):
        trainer.train_batch(rng.normal(size=(4, 3)), np.arange(4) % 2)
    assert np.array_equal(model.layers[0].params["weight"].value, before)
    nb.gradcheck(model, rng.normal(size=(4, 3)), tolerance=1e-7)


class Doubled(nb.Layer):
    """A user's layer with a parameter, which is not replayable."""

    def create(self, input_shape):
        self.add_param("weight", input_shape, "ones")
        return input_shape

    def forward(self, x, train=False):
        return x * self.params["weight"].value, x

    def backward(self, dy, saved, need_dx=True):
        self.params["weight"].grad[:] = (dy * saved).sum(axis=0)
        return dy * self.params["weight"].value


def test_a_layer_of_the_users_is_shared_live(rng):
    def model():
        own = Doubled()
        return built([own, nb.Dense(3), own, nb.Tanh(), nb.Dense(2)])

    x, y, results = rng.normal(size=(4, 3)), np.arange(4) % 2, []
    nb.gradcheck(model(), x, tolerance=1e-7)
    for replay in (True, False):
        trainer = nb.Trainer(model(), optimizer=nb.SGD(0.1), replay=replay)
        results.append([trainer.train_batch(x, y)["loss"] for _ in range(5)])
    assert results[0] == results[1]


# ---------------------------------------------------------------------------------------------------- files, copies, errors


@everywhere
def test_copies_share_too(rng, name):
    model, x = made(name), batch(rng, name)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(twin.params) == list(model.params)
        assert_close(twin.predict(x), model.predict(x), "exact")
        y, tape = twin.forward(x, train=True)
        twin.backward(y, tape)
        model.backward(y, model.forward(x, train=True)[1])
        for key, param in twin.params.items():
            assert_close(param.grad, model.params[key].grad, "exact")
        assert not any(param is other for param in twin.params.values() for other in model.params.values())


@everywhere
def test_files_hold_a_shared_layer_once(rng, name, tmp_path):
    model, other, x = made(name), made(name, seed=9), batch(rng, name)
    model.save_weights(tmp_path / "w.safetensors")
    other.load_weights(tmp_path / "w.safetensors")
    assert_close(other.predict(x), model.predict(x), "exact")
    trainers = [nb.Trainer(each, optimizer=nb.Adam(0.01)) for each in (model, made(name, seed=5))]
    trainers[0].train_batch(x, np.arange(4) % 2)
    trainers[0].save(tmp_path / "run.safetensors")
    trainers[1].restore(tmp_path / "run.safetensors")
    assert trainers[0].train_batch(x, np.arange(4) % 2) == trainers[1].train_batch(x, np.arange(4) % 2)


@everywhere
def test_repr_is_code(name):
    model = made(name)
    again = eval(repr(model), {"nb": nb})
    again.build(model.input_shape, backend="serial", dtype="float64")
    assert list(again.params) == list(model.params)
    assert repr(again) == repr(model)
    scope = {"nb": nb}
    exec(repr(nb.Trainer(model, optimizer="adam")), scope)
    assert list(scope["model"].params) == list(model.params)


def test_repr_names_what_is_shared():
    dense = nb.Dense(3).named("both")
    trunk = nb.Sequential([dense, nb.Tanh()])
    assert repr(nb.Parallel([trunk, trunk])) == "nb.Parallel([(shared0 := nb.Sequential([nb.Dense(3).named('both'), nb.Tanh()])), shared0])"
    both = "nb.Sequential([(shared0 := nb.Sequential([(shared1 := nb.Dense(3).named('both')), nb.Tanh()])), shared1, shared0])"
    assert repr(nb.Sequential([trunk, dense, trunk])) == both
    assert repr(trunk) == "nb.Sequential([nb.Dense(3).named('both'), nb.Tanh()])"


def test_another_shape_is_refused():
    dense = nb.Dense(4)
    model = nb.Sequential([dense, nb.Tanh(), dense])
    message = r"2\.dense does not fit layer 1\.tanh, .*: layer 0\.dense is used again, for inputs of shape \(4,\) after \(3,\): expected "
    with pytest.raises(ShapeError, match=message + "the same shape in each place, or a new Dense here"):
        model.build((3,), backend="numpy")
    assert all(layer.input_shape is None for layer in model.walk())
    relu = nb.ReLU()
    with pytest.raises(ShapeError, match=r"layer 0\.relu is used again"):
        nb.Sequential([relu, nb.Dense(4), relu]).build((3,), backend="numpy")


def test_a_layer_that_another_model_builds_again(rng):
    """The model that shares it has its new parameters, and adds their gradients, after `refresh`."""
    model, x = made("twice"), rng.normal(size=(4, 3))
    shared = model.layers[0]
    nb.Sequential([shared]).build((3,), backend="serial", dtype="float64", seed=9, rebuild=True)
    model.refresh()
    assert model.params["0.dense.weight"] is shared.params["weight"]
    nb.gradcheck(model, x, tolerance=1e-7)


def test_rebuild_and_a_second_build(rng):
    model, x = made("nested"), rng.normal(size=(4, 3))
    before = model.predict(x)
    with pytest.warns(UserWarning, match="is built already and keeps its parameters") as said:
        model.build((3,), backend="serial", dtype="float64", seed=3)
    assert said[0].filename == __file__
    assert_close(model.predict(x), before, "exact")
    model.build((3,), backend="serial", dtype="float64", seed=4, rebuild=True)
    assert not np.allclose(model.predict(x), before)
    model.build((3,), backend="serial", dtype="float64", seed=3, rebuild=True)
    assert_close(model.predict(x), before, "exact")
    with pytest.raises(BuildError, match="was built for"):
        model.build((4,), backend="serial", dtype="float64")


def test_folding_leaves_shared_layers(rng):
    conv = nb.Conv2D(3, 3)
    model = built([conv, nb.BatchNorm(), conv, nb.BatchNorm(), nb.Conv2D(2, 1), nb.BatchNorm()], (4, 4, 3))
    trunk = nb.Sequential([nb.Conv2D(3, 3), nb.BatchNorm(activation="relu")])
    siamese = built([nb.Parallel([trunk, trunk]), nb.Concat()], ((4, 4, 3), (4, 4, 3)))
    images = rng.normal(size=(3, 4, 4, 3))
    for each, x, left in ((model, images, 2), (siamese, (images, images[::-1]), 0)):
        for _ in range(3):
            each.forward(x, train=True)
        folded = nb.fold_batch_norm(each)
        assert sum(isinstance(layer, nb.BatchNorm) for layer in folded.walk()) == left
        assert_close(folded.predict(x), each.predict(x), "reduction")
        assert all(type(layer.name) is str for layer in folded.walk())


def test_statistics_of_data_are_those_of_all_places(rng):
    norm = nb.BatchNorm()
    model = built([nb.Parallel([norm, norm]), nb.Add()], ((3,), (3,)))
    a, b = rng.normal(size=(6, 3)), rng.normal(5, 1, (6, 3))
    nb.recalibrate(model, (a, b))
    assert_close(norm.buffers["moving_mean"], np.concatenate([a, b]).mean(axis=0), "reduction")
