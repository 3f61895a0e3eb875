"""Copies and pickles: they are objects of their own, which go on like the original, bit for bit."""

import copy
import io
import multiprocessing
import pickle

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED

import nbnet as nb
from nbnet.errors import ArgumentError, BackendError
from nbnet.layers import Layer
from nbnet.runtime.backend import NumpyBackend

CUDA = ["cuda"] if SIMULATED or GPU else []


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        return (thing.tobytes(), thing.dtype.str, thing.shape) if type(thing) is np.ndarray else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, key):
        return np.frombuffer(bytearray(key[0]), key[1]).reshape(key[2])


def array_by_array(thing):
    """A pickle in which each reference to an array is an array of its own, as joblib's."""
    file = io.BytesIO()
    _Pickler(file).dump(thing)
    file.seek(0)
    return _Unpickler(file).load()


COPIES = {
    "deepcopy": copy.deepcopy,
    "arrays": array_by_array,
    **{f"pickle{p}": lambda thing, p=p: pickle.loads(pickle.dumps(thing, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}
copies = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
backends = pytest.mark.parametrize("backend", ["numpy", "serial", "parallel", *CUDA])


def make(backend="serial", **options):
    model = nb.Sequential(
        [
            nb.Conv2D(4, 3, weight_initializer=nb.initializers.get("glorot_normal")),
            nb.BatchNorm(update="deferred", renorm=nb.Renorm.warm_up(1, 5, 5), gamma_regularizer=nb.regularizers.l2(0.01)),
            nb.ReLU(),
            nb.MaxPool2D(2),
            nb.Residual([nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU()]),
            nb.Flatten(),
            nb.Dropout(0.2),
            nb.Dense(3, weight_initializer=nb.initializers.normal(0.1)),
        ]
    )
    model.build((4, 4, 1), backend=backend, seed=5)
    model.params["4.residual.body.0.conv2d.bias"].trainable = False
    options.setdefault("optimizer", nb.Adam(1e-2))
    return nb.Trainer(model, schedule=nb.schedules.warm_up(0.2, then=nb.schedules.cosine(0.1)), seed=7, **options)


@pytest.fixture
def data(rng):
    return rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8), rng.integers(0, 3, 20)


def bits(trainer):
    arrays, run = trainer.state()
    history = {name: list(column) for name, column in run["history"].items() if name != "seconds"}
    return (
        {name: np.asarray(array).tobytes() for name, array in arrays.items()},
        run | {"history": history, "position": run["position"] | {"seconds": 0}},
    )


class StopAt(nb.callbacks.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop("test")


def go_on(trainer, data):
    trainer.fit(data, 3, 4, validation=data, progress=False)
    return bits(trainer), trainer.model.predict(data[0]).tobytes()


# ------------------------------------------------------------------------------------------------------- training


@backends
@copies
@pytest.mark.parametrize("step", [0, 7])
def test_a_copied_trainer_goes_on_alike(data, backend, duplicate, step):
    trainer = make(backend)
    if step:
        trainer.fit(data, 3, 4, validation=data, callbacks=[StopAt(step)], progress=False)
    twin = duplicate(trainer)
    assert twin.model.backend is trainer.model.backend
    assert repr(twin) == repr(trainer)
    before = bits(twin)
    wanted = go_on(trainer, data)
    assert bits(twin) == before  # they share nothing
    assert go_on(twin, data) == wanted


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_a_trainer_goes_on_in_another_process(data, backend):
    trainer = make(backend, optimizer=nb.SGD(0.05, momentum=0.9), clip_norm=1.0)
    trainer.fit(data, 3, 4, validation=data, callbacks=[StopAt(7)], progress=False)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply_async(go_on, (trainer, data)).get(300)
    assert elsewhere == go_on(trainer, data)


@copies
def test_models_and_optimizers_as_a_dict(data, duplicate):
    """As a user keeps them: objects that refer to each other stay together."""
    trainer = make()
    trainer.train_batch(*data)
    average = nb.ExponentialMovingAverage(0.9)
    average.apply({name: param.value for name, param in trainer.model.params.items()})
    twin = duplicate({"trainer": trainer, "model": trainer.model, "optimizer": trainer.optimizer, "average": average})
    assert twin["trainer"].model is twin["model"]
    assert twin["trainer"].optimizer is twin["optimizer"]
    assert all((array == average.average(name)).all() for name, array in twin["average"].averages().items())
    assert twin["trainer"].train_batch(*data) == trainer.train_batch(*data)


@copies
def test_a_deferred_update_is_copied(data, duplicate):
    model = make().model
    model.forward(data[0], train=True)
    twin = duplicate(model)
    for each in (model, twin):
        each.apply_updates()
    assert all(np.array_equal(twin.buffers[name], array) for name, array in model.buffers.items())


# --------------------------------------------------------------------------------------------------------- arrays


@copies
@pytest.mark.parametrize("backend", ["serial", *CUDA])
def test_the_parameters_of_a_copy_are_neighbours_again(backend, duplicate):
    trainer = make(backend)
    trainer.optimizer.prepare(trainer.model.params)
    model, optimizer = duplicate((trainer.model, trainer.optimizer))
    params = list(model.params.values())
    layout = params[0].layout
    assert layout is not next(iter(trainer.model.params.values())).layout
    assert all(param.layout is layout and layout.holds(param) for param in params)
    assert [param.index for param in params] == list(range(len(params)))
    assert all(
        layer.params[name] is model.params[f"{i}.{layer.name.split('.')[1]}.{name}"]
        for i in (0, 1)
        for layer in [model.layers[i]]
        for name in layer.params
    )
    optimizer.prepare(model.params)
    for slot, flat in zip(optimizer.slots, optimizer._flat[layout], strict=True):
        assert all(optimizer.state[f"{slot}.{name}"] is flat.views[param.index] for name, param in model.params.items())
    assert len(optimizer._find_runs(model.params)) == 2  # one parameter is frozen


@pytest.mark.parametrize("duplicate", [each for name, each in COPIES.items() if name != "arrays"])
def test_arrays_that_were_replaced_stay_so(duplicate):
    """Tied weights, and a parameter in an array of its own."""
    model = nb.Sequential([nb.Dense(4), nb.Dense(4), nb.Dense(4)])
    model.build((4,), backend="serial")
    first, second, third = (layer.params["weight"] for layer in model.layers)
    second.value = first.value
    third.value = third.value.copy()
    twin = duplicate(model)
    a, b, c = (layer.params["weight"] for layer in twin.layers)
    assert a.value is b.value
    assert np.array_equal(c.value, third.value)
    assert c.layout is None


@copies
@pytest.mark.parametrize("view", [lambda a: a[:], lambda a: a.T, lambda a: a[::-1]])
def test_parameters_that_are_two_views_of_one_memory(duplicate, view):
    """A copy would separate them."""
    model = nb.Sequential([nb.Dense(4), nb.Dense(4)])
    model.build((4,), backend="serial")
    first, second = (layer.params["weight"] for layer in model.layers)
    second.value = view(first.value)
    with pytest.raises(ArgumentError, match=r"1\.dense\.weight\.value and 0\.dense\.weight\.value are two views of one memory.*expected"):
        duplicate(model)
    second.value = first.value.copy()
    duplicate(model)


class Refers(nb.ReLU):
    """A layer of a user's that knows its model."""

    model = None


@copies
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_refers_to_its_model(data, duplicate, nested):
    layer = Refers()
    model = nb.Sequential([nb.Conv2D(2, 3), nb.Residual([layer]) if nested else layer, nb.Flatten(), nb.Dense(3)])
    model.build((4, 4, 1), backend="serial")
    layer.model = model
    twin = duplicate(model)
    inner = twin.layers[1].body.layers[0] if nested else twin.layers[1]
    assert inner.model is twin
    assert np.array_equal(twin.predict(data[0]), model.predict(data[0]))
    with pytest.raises(ArgumentError, match="the copy began at a Refers that refers to the Sequential around it, expected"):
        duplicate(layer)


@copies
def test_layers_alone(data, duplicate):
    model = make().model
    for layer, twin in zip(model.layers, duplicate(model.layers), strict=True):
        assert twin.buffers.keys() == layer.buffers.keys()
        assert all(np.array_equal(param.value, twin.params[name].value) for name, param in layer.params.items())
    one = duplicate(model.layers[0])
    assert not one.params["weight"].layout.holds(one.params["weight"])
    assert len(pickle.dumps(one.params)) < 2000  # without those of the whole model
    assert len(pickle.dumps(model.layers[2])) < 2000
    x = data[0] / np.float32(255)
    assert np.array_equal(one.forward(x)[0], model.layers[0].forward(x)[0])


def test_a_shallow_copy_of_a_layer_shares_its_arrays():
    model = make().model
    layout = model.params["0.conv2d.weight"].layout
    twin = copy.copy(model)
    assert twin.layers is model.layers
    assert twin.params["0.conv2d.weight"] is model.params["0.conv2d.weight"]
    assert layout.holds(model.params["0.conv2d.weight"])


def test_shallow_copies_of_what_trains_are_deep(data):
    trainer = make()
    trainer.train_batch(*data)
    before = bits(trainer)
    other, optimizer = copy.copy(trainer), copy.copy(trainer.optimizer)
    other.train_batch(*data)
    optimizer.step(other.model.params, other.model.backend)
    assert bits(trainer) == before


# ----------------------------------------------------------------------------------------------- everything else


def own_loss(prediction, target, *, rows, backend):
    return nb.losses.mean_squared_error(prediction, target, rows=rows, backend=backend)


SCHEDULES = [make() for make in nb.schedules.SCHEDULES.values()]
OBJECTS = [
    *SCHEDULES,
    nb.schedules.step(at=[0.5], factor=0.5),
    nb.regularizers.l1(0.1),
    nb.initializers.normal(0.5),
    *map(nb.initializers.get, nb.initializers.INITIALIZERS),
    *nb.losses.LOSSES.values(),
    nb.losses.get(own_loss),
    nb.Renorm.warm_up(),
    nb.callbacks.EarlyStopping(restore_best=True),
    nb.callbacks.ModelCheckpoint("best"),
    nb.callbacks.CSVLogger("log"),
    nb.callbacks.TimeLimit(60),
    nb.get_backend("parallel"),
    nb.RMSProp(),
    nb.errors.ShapeError("x has shape ()"),
]


@copies
@pytest.mark.parametrize("thing", OBJECTS, ids=[f"{i}-{type(thing).__name__}" for i, thing in enumerate(OBJECTS)])
def test_other_objects(thing, duplicate):
    twin = duplicate(thing)
    assert type(twin) is type(thing)
    if "at 0x" not in repr(thing):
        assert repr(twin) == repr(thing)


@copies
def test_schedules_and_bounds_give_the_same_numbers(duplicate):
    for schedule in SCHEDULES:
        assert all(duplicate(schedule)(p) == schedule(p) for p in (0, 0.1, 0.3, 0.77, 1))
    renorm = nb.Renorm.warm_up(2, 10, 8)
    assert all(duplicate(renorm).bounds(t) == renorm.bounds(t) for t in range(12))
    assert renorm.bounds(5) == (1 / 1.75, 1.75, 2.5)


@copies
def test_there_is_one_of_each_standard_object(duplicate):
    for thing in (*nb.losses.LOSSES.values(), nb.initializers.get("he_normal"), nb.get_backend("numpy"), nb.get_backend("serial")):
        assert duplicate(thing) is thing


def test_a_backend_of_ones_own_says_what_to_do():
    class Own(NumpyBackend):
        pass

    with pytest.raises(BackendError, match=r"Own is not a backend of nbnet, which pickle by name: define __reduce__ in it"):
        pickle.dumps(Own())


@copies
def test_a_layer_of_ones_own(duplicate):
    layer = Scaled(3)
    layer.build((2,), backend="serial")
    twin = duplicate(layer)
    assert (twin.factor, twin.own) == (3, {"kept": [1]})
    assert twin.params["scale"].layout.holds(twin.params["scale"])


class Scaled(Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.own = factor, {"kept": [1]}

    def create(self, input_shape):
        self.add_param("scale", input_shape, "ones")
        return input_shape
