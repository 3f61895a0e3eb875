"""An object that is given to a second owner works there as a new one would, keeps what it has learnt, or is refused: no state leaks."""

import copy

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError

from .small import bits, small_model, small_trainer

BACKENDS = ["numpy", "serial", "parallel"]


def trained(data, backend="serial", dtype="float32"):
    trainer = small_trainer(backend, dtype)
    trainer.fit(data, epochs=2)
    return trainer


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trained_trunk_keeps_its_weights(data, backend):
    trainer = trained(data, backend)
    old, before, scores = trainer.model, bits(trainer), trainer.evaluate(*data)
    new = nb.Sequential([*old.layers[:-1], nb.Dense(2)])
    new.build(old.input_shape, backend=backend, seed=5)
    assert bits(trainer) == before
    assert trainer.evaluate(*data) == scores
    shared = [name for name in new.state() if not name.startswith("7.")]
    assert len(shared) == len(new.state()) - 2
    for name in shared:
        assert new.state()[name] is old.state()[name]
    head = new.params["7.dense.weight"].value.copy()
    nb.Trainer(new, optimizer=nb.SGD(0.01)).fit((data[0], data[1] % 2), epochs=1)
    assert not np.array_equal(new.params["7.dense.weight"].value, head)
    assert trainer.evaluate(*data) != scores  # the trunk has learnt in both


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_goes_on_after_the_trunk_was_shared(data, backend):
    """With the bits of a run in which nothing was shared, though the parameters moved to another layout."""
    alone, shared = trained(data, backend), trained(data, backend)
    layers = shared.model.layers
    nb.Sequential([*layers[:-1], nb.Dense(2)]).build(shared.model.input_shape, backend=backend)
    for trainer in (alone, shared):
        trainer.fit(data, epochs=4)
    assert bits(shared) == bits(alone)


@pytest.mark.filterwarnings("ignore:sequential is built already")
def test_a_second_build_changes_nothing(data):
    trainer = trained(data)
    model, before = trainer.model, bits(trainer)
    arrays = {name: array.ctypes.data for name, array in model.state().items()}
    assert model.build(model.input_shape, backend="serial", seed=9) == (3,)
    assert {name: array.ctypes.data for name, array in model.state().items()} == arrays
    assert bits(trainer) == before
    again = trained(data)
    for each in (trainer, again):
        each.fit(data, epochs=3)
    assert bits(trainer) == bits(again)


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        ((6, 6, 1), {"dtype": "float64"}, r"\(6, 6, 1\) in float64 on 'serial'"),
        ((6, 6, 1), {"backend": "numpy"}, r"\(6, 6, 1\) in float32 on 'numpy'"),
        ((6, 6, 2), {}, r"\(6, 6, 2\) in float32 on 'serial'"),
    ],
)
def test_layers_that_were_built_otherwise_are_refused(data, shape, options, wanted):
    trainer = trained(data)
    before, scores = bits(trainer), trainer.evaluate(*data)
    with pytest.raises(
        BuildError, match=rf"layer 0\.conv2d was built for \(6, 6, 1\) in float32 on 'serial', got {wanted}: .*rebuild=True"
    ):
        trainer.model.build(shape, **({"backend": "serial"} | options))
    assert bits(trainer) == before
    assert trainer.evaluate(*data) == scores


def test_rebuild_starts_again(data):
    trainer, new = trained(data), small_model("serial", "float32")
    model = trainer.model
    model.build(model.input_shape, backend="serial", rebuild=True)
    assert all(np.array_equal(array, new.state()[name]) for name, array in model.state().items())
    for use in (
        lambda: trainer.fit(data, epochs=3),
        lambda: trainer.train_batch(*data),
        lambda: trainer.state(),
        lambda: nb.lr_range_test(trainer, data),
    ):
        with pytest.raises(BuildError, match=r"the model was built again, or replaced, since this Trainer was made: .* make a new Trainer"):
            use()
    assert all(np.array_equal(array, new.state()[name]) for name, array in model.state().items())
    nb.Trainer(model, optimizer=nb.SGD(0.1)).fit(data, epochs=1)


@pytest.mark.parametrize("nested", [False, True])
def test_a_shared_layer_that_is_built_again(data, nested):
    """The model that shares it has its new parameters, and its trainer says so."""
    trainer = trained(data)
    model = trainer.model
    layer = model.layers[4].body.layers[0] if nested else model.layers[0]
    name = "4.residual.body.0.conv2d.weight" if nested else "0.conv2d.weight"
    nb.Sequential([layer]).build(layer.input_shape, backend="serial", seed=9, rebuild=True)
    assert model.state()[name] is layer.params["weight"].value
    with pytest.raises(BuildError, match="the model was built again, or replaced, since"):
        trainer.fit(data, epochs=3)


def test_one_layer_in_two_places(data):
    """Its parameters are shared (tests/layers/test_shared_layers.py): the optimiser and the file have one state of them."""
    layer = nb.Dense(3)
    model = nb.Sequential([nb.Flatten(), nb.Dense(3), layer, nb.Residual([nb.ReLU(), layer])])
    model.build(data[0].shape[1:], backend="serial")
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3))
    trainer.fit(data, epochs=1)
    assert [name for name in trainer.state().arrays if name.endswith("weight")] == [
        *(f"{slot}{name}" for slot in ("", "optimizer.m.", "optimizer.v.") for name in ("1.dense.weight", "2.dense.weight"))
    ]


@pytest.mark.filterwarnings("ignore:sequential is built already")
def test_parameters_that_are_tied_stay_so():
    """In a second build, in a copy's too, and in a model that shares the layers."""
    model = nb.Sequential([nb.Dense(3), nb.Dense(3), nb.ReLU()])
    model.build((3,), backend="serial")
    first, second = (layer.params["weight"] for layer in model.layers[:2])
    second.value = first.value
    for each in (model, copy.deepcopy(model)):
        first, second = (layer.params["weight"] for layer in each.layers[:2])
        each.build((3,), backend="serial")
        assert second.value is first.value
        nb.Sequential(each.layers[:2]).build((3,), backend="serial")
        assert second.value is first.value
        assert second.grad is not first.grad


@pytest.mark.parametrize("optimizer", [nb.SGD(0.01), nb.Adam(1e-3)])
def test_an_optimizer_serves_one_model(data, optimizer):
    nb.Trainer(small_model(), optimizer=optimizer)  # as long as it was not used
    nb.Trainer(small_model(), optimizer=optimizer).fit(data, epochs=1)
    before = {name: array.tobytes() for name, array in optimizer.state.items()}
    with pytest.raises(
        ArgumentError, match=r"this optimiser has made 2 updates of another model's parameters: make a new one for this model"
    ):
        nb.Trainer(small_model(), optimizer=optimizer)
    assert {name: array.tobytes() for name, array in optimizer.state.items()} == before


def test_two_trainers_that_got_one_optimizer(data):
    optimizer = nb.Adam(1e-3)
    first, second = (nb.Trainer(small_model(), optimizer=optimizer) for _ in range(2))
    first.fit(data, epochs=1)
    before = bits(second)
    with pytest.raises(ArgumentError, match="2 updates of another model's parameters"):
        second.fit(data, epochs=1)
    assert bits(second) == before
    assert second.step == 0
    first.fit(data, epochs=2)


def test_another_trainer_of_the_same_model_continues_with_its_optimizer(data):
    trainer = trained(data)
    second = nb.Trainer(trainer.model, optimizer=trainer.optimizer)
    second.fit(data, epochs=1)
    assert trainer.optimizer.steps == trainer.step + second.step


def test_an_average_serves_one_run(data):
    average = nb.ExponentialMovingAverage(0.9)
    nb.Trainer(small_model(), optimizer=nb.SGD(0.01), average=average).fit(data, epochs=1)
    with pytest.raises(ArgumentError, match=r"average=nb\.ExponentialMovingAverage\(0\.9\) has averages of another run: make a new one"):
        nb.Trainer(small_model(), optimizer=nb.SGD(0.01), average=average)


def test_losses_schedules_and_callbacks_have_no_state(data, tmp_path):
    """Two runs that share them have the bits of runs that do not."""
    loss, schedule = nb.losses.get("softmax_cross_entropy"), nb.schedules.one_cycle()
    callbacks = [nb.callbacks.EarlyStopping("loss", patience=2, min_delta=0.05), nb.callbacks.CSVLogger(tmp_path / "log.csv")]

    def run(**options):
        trainer = small_trainer(loss=loss, **options)
        trainer.fit(data, epochs=4, callbacks=callbacks)
        return trainer

    first, second = run(schedule=schedule), run(schedule=schedule)
    callbacks = [nb.callbacks.EarlyStopping("loss", patience=2, min_delta=0.05)]
    alone = run(schedule=nb.schedules.one_cycle())
    assert bits(first) == bits(second) == bits(alone)
    assert first.epoch == second.epoch == alone.epoch
