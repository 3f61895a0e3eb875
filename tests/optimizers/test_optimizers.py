"""Optimisers: state, options, errors. Which parameters share a kernel call is in tests/layers/test_parameters.py."""

import copy
import re

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.optimizers import OPTIMIZERS
from nbnet.optimizers.matrices import orthogonalized


def model(backend="serial"):
    net = nb.Sequential([nb.Conv2D(3, 3), nb.BatchNorm(), nb.Flatten(), nb.Dense(5)])
    net.build((4, 4, 2), backend=backend, seed=1)
    return net


def test_state_names_are_slot_and_parameter():
    params = model().params
    for name, make in OPTIMIZERS.items():
        optimizer = make(0.1)
        assert isinstance(optimizer, nb.optimizers.Optimizer), name
        optimizer.prepare(params)
        assert list(optimizer.state) == [f"{slot}.{param}" for slot in optimizer.slots for param in params]
        assert all(array.shape == params[key.partition(".")[2]].value.shape for key, array in optimizer.state.items())


BAD_OPTIONS = [
    (lambda: nb.SGD(-1), "lr=-1: expected a number that is at least 0"),
    (lambda: nb.Adam(float("nan")), "lr=nan: expected a number that is at least 0"),
    (lambda: nb.SGD(momentum=1), "momentum=1: expected a number that is at least 0 and below 1"),
    (lambda: nb.RMSProp(rho=-0.1), "rho=-0.1: expected a number that is at least 0 and below 1"),
    (lambda: nb.AdamW(weight_decay=-1), "weight_decay=-1: expected a number that is at least 0"),
    (lambda: nb.Adam(eps=-1e-8), "eps=-1e-08: expected a number that is at least 0"),
    (lambda: nb.Adagrad(initial=-1), "initial=-1: expected a number that is at least 0"),
    (lambda: nb.NAdam(momentum_decay=-1), "momentum_decay=-1: expected a number that is at least 0"),
    (lambda: nb.SGD(nesterov=True), "nesterov=True with momentum=0.0: expected a momentum above 0, such as momentum=0.9"),
    (
        lambda: nb.SGD(momentum=0.9, nesterov=True, dampening=0.1),
        "nesterov=True with dampening=0.1: expected dampening=0, as Nesterov's step has none",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD_OPTIONS)
def test_bad_options(make, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        make()


def test_freezing_between_steps_is_noticed(rng):
    net, optimizer = model(), nb.SGD(1.0)
    for param in net.params.values():
        param.grad[:] = 1
    optimizer.step(net.params, net.backend)
    net.layers[1].trainable = False
    before = net.params["1.batchnorm.beta"].value.copy(), net.params["3.dense.bias"].value.copy()
    optimizer.step(net.params, net.backend)
    assert_close(net.params["1.batchnorm.beta"].value, before[0], "exact")
    assert_close(net.params["3.dense.bias"].value, before[1] - 1, "exact")


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("inputs", [16, 8000])
def test_the_state_of_another_model_is_refused(backend, inputs):
    def trainer(inputs, units, optimizer):
        model = nb.Sequential([nb.Dense(units)])
        model.build((inputs,), backend=backend)
        return nb.Trainer(model, optimizer=optimizer)

    used = nb.Adam(1e-3)
    trainer(8, 4, used).train_batch(np.ones((4, 8), np.float32), np.arange(4))
    for size in (8, inputs):
        with pytest.raises(ArgumentError, match=r"has made 1 updates of another model's parameters: make a new one .* nb\.Adam\(0\.001\)$"):
            trainer(size, 4, used)
    adam = copy.deepcopy(used)  # a copy belongs to no model yet
    other = trainer(inputs, 4, adam)
    before = {name: array.copy() for name, array in other.model.state().items()}
    with pytest.raises(ArgumentError, match=r"state of shape \(8, 4\) for '0.dense.weight', expected shape \(\d+, 4\): .* make a new Adam"):
        other.train_batch(np.ones((4, inputs), np.float32), np.arange(4))
    assert adam.steps == 1
    assert all(np.array_equal(before[name], array) for name, array in other.model.state().items())
    model = nb.Sequential([nb.Dense(4), nb.Dense(4)])
    model.build((8,), backend=backend)
    other = nb.Trainer(model, optimizer=adam)
    with pytest.raises(ArgumentError, match=r"no state for '1.dense.weight'"):
        other.train_batch(np.ones((4, 8), np.float32), np.arange(4))


@pytest.mark.filterwarnings("ignore:sequential is built already")
def test_a_state_that_is_cleared_starts_again(tmp_path):
    """From zeros, and with a checkpoint that can be restored."""

    def made():
        model = nb.Sequential([nb.Dense(3), nb.Dense(2)])
        model.build((4,), backend="serial", seed=1)
        return nb.Trainer(model, optimizer=nb.Adam(0.1))

    x, y = np.random.default_rng(0).random((6, 4), dtype=np.float32), np.arange(6) % 2
    trainer, fresh = made(), made()
    start = {name: array.copy() for name, array in trainer.model.state().items()}
    trainer.train_batch(x, y)
    trainer.optimizer.state = {}
    trainer.optimizer.steps = 0
    for name, array in trainer.model.state().items():
        array[...] = start[name]
    assert trainer.train_batch(x, y) == fresh.train_batch(x, y)
    for name, array in trainer.model.state().items():
        np.testing.assert_array_equal(array, fresh.model.state()[name])
    trainer.save(tmp_path / "run.safetensors")
    made().restore(tmp_path / "run.safetensors")
    trainer.model.build((4,), backend="serial")
    trainer.optimizer.state = {}
    trainer.train_batch(x, y)


def test_a_frozen_parameter_may_lie_as_it_likes():
    model = nb.Sequential([nb.Dense(3), nb.Dense(2)])
    model.build((4,), backend="serial")
    param = model.params["0.dense.weight"]
    param.trainable, param.value = False, np.asfortranarray(param.value)
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    trainer.train_batch(np.ones((5, 4), np.float32), np.arange(5) % 2)
    param.trainable = True
    with pytest.raises(ArgumentError, match=r"the value of '0\.dense\.weight' is not C-contiguous"):
        trainer.train_batch(np.ones((5, 4), np.float32), np.arange(5) % 2)


class ById(nb.SGD):
    """A user's update that keeps state of its own by array, and fails at one step."""

    fails = None

    def _update(self, backend, value, grad, slots, lr):
        self.seen = [*getattr(self, "seen", []), (id(value), id(slots[0]))]
        value -= lr * grad
        slots[0][:] = grad
        if self.steps == self.fails:
            raise ValueError("the update fails")


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("views", [False, True])
def test_an_update_in_python(backend, views):
    """It gets the same arrays in each step, and a failed step is undone: also of two parameters that share their values."""
    net = nb.Sequential([nb.Dense(4), nb.Dense(4)])
    net.build((4,), backend=backend)
    params = net.params
    if views:
        params["1.dense.weight"].value = params["0.dense.weight"].value[:]
    optimizer = ById(0.1)
    for param in params.values():
        param.grad[:] = 1
    optimizer.step(params, net.backend)
    optimizer.step(params, net.backend)
    half = len(optimizer.seen) // 2
    assert optimizer.seen[:half] == optimizer.seen[half:]
    before = [array.tobytes() for array in (*(param.value for param in params.values()), *optimizer.state.values())]
    optimizer.fails = 3
    for param in params.values():
        param.grad[:] = 2
    with pytest.raises(ValueError, match="fails"):
        optimizer.step(params, net.backend)
    assert optimizer.steps == 2
    assert before == [array.tobytes() for array in (*(param.value for param in params.values()), *optimizer.state.values())]
    optimizer.fails = None
    optimizer.step(params, net.backend)
    assert optimizer.steps == 3


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("name", [name for name, make in OPTIMIZERS.items() if hasattr(make(), "eps")])
def test_eps_of_0(backend, name):
    """Where the gradient has always been 0, nothing moves; elsewhere a step is that of a tiny eps."""
    results = []
    for eps in (0.0, 1e-30):
        net = nb.Sequential([nb.Dense(3), nb.Dense(2)])
        net.build((4,), backend=backend, seed=1)
        optimizer = OPTIMIZERS[name](0.1, eps=eps, weight_decay=0.0)
        start = net.params["0.dense.weight"].value.copy()
        for param in net.params.values():
            param.grad[...] = np.arange(param.grad.size, dtype=np.float32).reshape(param.grad.shape) % 3
        for _ in range(3):
            optimizer.step(net.params, net.backend)
        weight = net.params["0.dense.weight"]
        if name != "muon":  # which mixes the elements of a matrix
            assert_close(weight.value[weight.grad == 0], start[weight.grad == 0], "exact")
            assert (weight.value[weight.grad != 0] != start[weight.grad != 0]).all()
        assert_close(net.params["0.dense.bias"].value[0], np.float32(0), "exact")
        results.append([param.value.tobytes() for param in net.params.values()])
    assert results[0] == results[1]


def test_a_learning_rate_of_0_changes_no_parameter():
    for make in OPTIMIZERS.values():
        net, optimizer = model(), make(0, weight_decay=0.1)
        before = {name: param.value.copy() for name, param in net.params.items()}
        for param in net.params.values():
            param.grad[:] = 1
        optimizer.step(net.params, net.backend)
        assert all(np.array_equal(param.value, before[name]) for name, param in net.params.items())
        assert optimizer.steps == 1


def test_the_momenta_of_nadam_do_not_depend_on_how_a_run_came_to_its_step():
    straight, restored = nb.NAdam(), nb.NAdam()
    products = [straight._product_until(step) for step in range(1, 30)]
    assert restored._product_until(29) == products[-1]
    assert [restored._product_until(step) for step in (29, 7, 8, 7)] == [products[28], products[6], products[7], products[6]]
    restored.beta1 = 0.5
    assert restored._product_until(8) == nb.NAdam(beta1=0.5)._product_until(8)
    assert nb.NAdam()._product_until(10**9) < 1e-20


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5), (1, 4), (4, 1), (200, 64)])
@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_a_step_of_muon_is_about_orthogonal(rng, shape, backend):
    matrix = rng.normal(size=shape)
    step = orthogonalized(nb.get_backend(backend), matrix, 5)
    singular = np.linalg.svd(step)[1]
    assert (singular > 0.3).all()
    assert (singular < 1.3).all()
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    assert np.abs(u.T @ step @ v.T - np.diag(np.diag(u.T @ step @ v.T))).max() < 1e-9  # the same singular vectors
    assert not orthogonalized(nb.get_backend(backend), np.zeros(shape), 5).any()


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("make", OPTIMIZERS.values())
def test_gradients_of_0_change_nothing(backend, make):
    net, optimizer = model(backend), make(0.1, weight_decay=0.0)
    before = {name: param.value.copy() for name, param in net.params.items()}
    optimizer.step(net.params, net.backend)
    assert all(np.array_equal(param.value, before[name]) for name, param in net.params.items())


VARIANTS = {name: (make, {}) for name, make in OPTIMIZERS.items()} | {
    "amsgrad": (nb.Adam, {"amsgrad": True}),
    "centered": (nb.RMSProp, {"centered": True, "momentum": 0.5}),
    "dampening": (nb.SGD, {"momentum": 0.9, "dampening": 0.5}),
}
variants = pytest.mark.parametrize("name", VARIANTS)


def wide(backend, optimizer):
    """A model whose parameters are several chunks of work, and matrices of both shapes."""
    net = nb.Sequential([nb.Dense(300), nb.ReLU(), nb.Dense(3)])
    net.build((250,), backend=backend, seed=1)
    return nb.Trainer(net, optimizer=optimizer)


def arrays_of(trainer):
    return {name: array.tobytes() for name, array in (trainer.model.state() | trainer.optimizer.state).items()}


@variants
def test_serial_and_parallel_have_the_same_bits(rng, name):
    make, options = VARIANTS[name]
    pair = [wide(backend, make(1e-3, **options)) for backend in ("serial", "parallel")]
    for _ in range(3):
        x, y = rng.normal(size=(20, 250)).astype(np.float32), rng.integers(0, 3, 20)
        for trainer in pair:
            trainer.train_batch(x, y)
    assert arrays_of(pair[0]) == arrays_of(pair[1])


@variants
def test_a_restored_run_has_the_same_bits(rng, tmp_path, name):
    make, options = VARIANTS[name]
    whole, second = (wide("serial", make(1e-3, weight_decay=0.1, groups={"bias": {"lr_scale": 2.0}}, **options)) for _ in range(2))
    data = rng.normal(size=(40, 250)).astype(np.float32), rng.integers(0, 3, 40)
    whole.fit(data, 2, 10)
    whole.save(tmp_path / "run")
    second.restore(tmp_path / "run")
    for trainer in (whole, second):
        trainer.fit(data, 4, 10)
    assert arrays_of(whole) == arrays_of(second)


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("make", [nb.LAMB, nb.Muon])
def test_an_interrupted_step_of_several_kernels_is_undone(rng, monkeypatch, backend, make):
    """LAMB and Muon have changed some parameters and states by then."""
    trainer = wide(backend, make(1e-3))
    data = rng.normal(size=(20, 250)).astype(np.float32), rng.integers(0, 3, 20)
    trainer.train_batch(*data)
    before = arrays_of(trainer), trainer.optimizer.steps
    kernel, calls = type(trainer.model.backend).kernel, []

    def interrupted(self, op):
        calls.append(op)
        if calls.count("array.squares") == 2:
            raise KeyboardInterrupt
        return kernel(self, op)

    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.model.backend), "kernel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train_batch(*data)
    assert {"optimizer.adam", "optimizer.sgd"} & set(calls)
    assert (arrays_of(trainer), trainer.optimizer.steps) == before
    twin = copy.deepcopy(trainer)
    for each in (trainer, twin):
        each.train_batch(*data)
    assert arrays_of(trainer) == arrays_of(twin) != before[0]
