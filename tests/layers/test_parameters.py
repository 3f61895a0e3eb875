"""The flat layout of parameters: where they are, and which of them an optimiser updates in one kernel call."""

import copy
import pickle

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.layers import Param
from nbnet.layers.parameters import ALIGNMENT, FlatParameters
from nbnet.optimizers import Optimizer
from nbnet.runtime.backend import get_backend

CUDA = ["cuda"] if SIMULATED or GPU else []
SHAPES = [(3, 5), (1,), (4, 4), (16,)]
MAKERS = [lambda: nb.SGD(0.1, momentum=0.9), lambda: nb.RMSProp(0.01), lambda: nb.Adam(0.01), lambda: nb.AdamW(0.01)]
MAKERS += [lambda: nb.Lion(0.01), lambda: nb.Adagrad(0.01, eps=0), lambda: nb.Adam(0.01, eps=0, amsgrad=True)]
backends = pytest.mark.parametrize("backend", ["serial", "parallel", *CUDA])
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def model(backend="serial", dtype="float32"):
    """Six parameters: weight and bias, gamma and beta, weight and bias."""
    net = nb.Sequential([nb.Conv2D(3, 3), nb.BatchNorm(), nb.Flatten(), nb.Dense(5)])
    net.build((4, 4, 2), backend=backend, dtype=dtype, seed=1)
    return net


def alone(params):
    """The same parameters, each in arrays of its own."""
    return {name: Param(param.value.copy()) for name, param in params.items()}


def fill(params, seed):
    rng = np.random.default_rng(seed)
    for param in params.values():
        param.grad[:] = rng.normal(size=param.grad.shape).astype(param.grad.dtype)


def sizes_of_calls(monkeypatch, optimizer, params, backend="serial"):
    """The number of elements in each kernel call of a step."""
    found = []
    update = type(optimizer)._update
    with monkeypatch.context() as patch:
        patch.setattr(type(optimizer), "_update", lambda self, be, value, *rest: (found.append(value.size), update(self, be, value, *rest)))
        optimizer.step(params, get_backend(backend))
    return found


# ------------------------------------------------------------------------------------------------------ layout


@backends
@dtypes
def test_layout(backend, dtype):
    be = get_backend(backend)
    params = [Param(be.place(np.full(shape, i + 1, dtype))) for i, shape in enumerate(SHAPES)]
    layout = FlatParameters([*params, params[1]], np.dtype(dtype), be)
    step = ALIGNMENT // np.dtype(dtype).itemsize
    assert len(layout.bounds) == len(SHAPES)
    assert all(start % step == 0 and stop - start == np.prod(shape) for (start, stop), shape in zip(layout.bounds, SHAPES, strict=True))
    for i, param in enumerate(params):
        assert layout.holds(param)
        assert (param.layout, param.index) == (layout, i)
        assert_close(param.value, np.full(SHAPES[i], i + 1), "exact")
        param.grad[:] = i + 1
        start, stop = layout.bounds[i]
        assert (np.asarray(layout.grads.flat)[start:stop] == i + 1).all()
    assert np.asarray(layout.values.flat).sum() == sum((i + 1) * np.prod(shape) for i, shape in enumerate(SHAPES))
    if backend != "cuda":
        assert all(array.ctypes.data % ALIGNMENT == 0 for param in params for array in (param.value, param.grad))
    params[0].value = params[0].value.copy()
    assert [layout.holds(param) for param in params] == [False, True, True, True]


@backends
@dtypes
@pytest.mark.parametrize("make", MAKERS)
def test_gaps_stay_zero(backend, dtype, make):
    net, optimizer = model(backend, dtype), make()
    layout = net.params["0.conv2d.weight"].layout
    gaps = np.ones(layout.bounds[-1][1], bool)
    for start, stop in layout.bounds:
        gaps[start:stop] = False
    assert gaps.any()
    for seed in range(2):
        fill(net.params, seed)
        optimizer.step(net.params, net.backend)
    for array in (layout.values, layout.grads, *optimizer._flat[layout]):
        assert not np.asarray(array.flat)[gaps].any()
        assert np.asarray(array.flat).any()


def test_a_copy_is_not_part_of_the_layout():
    param = model().params["3.dense.weight"]
    for twin in (copy.deepcopy(param), pickle.loads(pickle.dumps(param))):
        assert not twin.layout.holds(twin)
        assert_close(twin.value, param.value, "exact")


# ----------------------------------------------------------------------------------------------------- updates


@backends
@dtypes
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("frozen", [(), ("1.batchnorm.gamma", "0.conv2d.bias"), ("3.dense.bias",)], ids=len)
def test_the_bits_are_those_of_each_parameter_alone(backend, dtype, make, frozen):
    params = model(backend, dtype).params
    others = alone(params)
    # In float64 the compiler rounds differently in the vector loop of Adam's CPU kernel and in the loop over what is left of a chunk.
    kind = "elementwise" if dtype == "float64" and isinstance(make(), nb.Adam) else "exact"
    for name in frozen:
        params[name].trainable = others[name].trainable = False
    optimizers = make(), make()
    for seed in range(3):
        for optimizer, each in zip(optimizers, (params, others)):
            fill(each, seed)
            optimizer.step(each, get_backend(backend))
    for name, param in params.items():
        assert_close(param.value, others[name].value, kind, what=name)
    for name, array in optimizers[0].state.items():
        assert_close(array, optimizers[1].state[name], kind, what=name)


@backends
def test_one_call_per_run(monkeypatch, backend):
    net, optimizer = model(backend), nb.Adam()
    params = net.params
    bounds = params["0.conv2d.weight"].layout.bounds
    assert sizes_of_calls(monkeypatch, optimizer, params, backend) == [bounds[5][1]]
    params["1.batchnorm.gamma"].trainable = False
    assert sizes_of_calls(monkeypatch, optimizer, params, backend) == [bounds[1][1], bounds[5][1] - bounds[3][0]]
    params["0.conv2d.weight"].trainable = params["3.dense.bias"].trainable = False
    assert sizes_of_calls(monkeypatch, optimizer, params, backend) == [bounds[1][1] - bounds[1][0], bounds[4][1] - bounds[3][0]]
    for param in params.values():
        param.trainable = True
    assert sizes_of_calls(monkeypatch, optimizer, params, backend) == [bounds[5][1]]


@backends
@pytest.mark.parametrize("attribute", ["value", "grad"])
def test_a_replaced_array_is_a_call_of_its_own(monkeypatch, backend, attribute):
    net, optimizer = model(backend), nb.SGD(1.0)
    param = net.params["1.batchnorm.gamma"]
    optimizer.step(net.params, net.backend)
    setattr(param, attribute, getattr(param, attribute).copy())
    param.grad[:] = 2
    before = np.array(param.value)
    assert len(sizes_of_calls(monkeypatch, optimizer, net.params, backend)) == 3
    assert_close(param.value, before - 2, "exact")


def test_a_replaced_array_must_be_contiguous():
    net, optimizer = model(), nb.SGD(1.0)
    param = net.params["3.dense.weight"]
    param.value = np.asfortranarray(param.value)
    with pytest.raises(ArgumentError, match=r"the value of '3\.dense\.weight' is not C-contiguous: use np\.ascontiguousarray"):
        optimizer.step(net.params, net.backend)
    assert optimizer.steps == 0


def test_parameters_without_a_layout_are_calls_of_their_own(monkeypatch):
    assert len(sizes_of_calls(monkeypatch, nb.Adam(), alone(model().params))) == 6


def test_a_tied_parameter_is_updated_once_per_name(monkeypatch):
    net, optimizer = model(), nb.SGD(1.0)
    params = {**net.params, "tied": net.params["1.batchnorm.beta"]}
    params["tied"].grad[:] = 1
    before = params["tied"].value.copy()
    assert len(sizes_of_calls(monkeypatch, optimizer, params)) == 2
    assert_close(params["tied"].value, before - 2, "exact")
    assert "velocity.tied" in optimizer.state


def test_an_optimizer_without_state(monkeypatch):
    class Descent(Optimizer):
        def _update(self, backend, value, grad, slots, lr):
            assert slots == []
            value -= lr * grad

    params = model().params
    fill(params, 0)
    before = {name: param.value.copy() for name, param in params.items()}
    optimizer = Descent(0.5)
    assert len(sizes_of_calls(monkeypatch, optimizer, params)) == len(sizes_of_calls(monkeypatch, optimizer, params)) == 1
    for name, param in params.items():
        assert_close(param.value, before[name] - param.grad, "elementwise", what=name)


def test_a_layer_that_is_built_again(monkeypatch):
    """Its new parameters have a layout of their own, and an optimiser that knows the old ones is refused."""
    net, optimizer = model(), nb.SGD(1.0)
    optimizer.step(net.params, net.backend)
    net.layers[3].build(net.layers[3].input_shape, backend="serial", rebuild=True)
    net.refresh()
    with pytest.raises(ArgumentError, match="1 updates of another model's parameters"):
        optimizer.step(net.params, net.backend)
    assert len(sizes_of_calls(monkeypatch, nb.SGD(1.0), net.params)) == 2


def test_a_part_of_the_parameters(monkeypatch):
    params = model().params
    names = ["0.conv2d.weight", "0.conv2d.bias", "1.batchnorm.beta", "3.dense.weight"]
    assert len(sizes_of_calls(monkeypatch, nb.Adam(), {name: params[name] for name in names})) == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copied_optimizer_goes_on_alike(duplicate):
    net = model()
    optimizer = nb.Adam()
    fill(net.params, 0)
    optimizer.step(net.params, net.backend)
    params, twin = duplicate((net.params, optimizer))
    for each, one in ((net.params, optimizer), (params, twin)):
        fill(each, 1)
        one.step(each, net.backend)
    for name, param in net.params.items():
        assert_close(params[name].value, param.value, "exact", what=name)
    for name, array in optimizer.state.items():
        assert_close(twin.state[name], array, "exact", what=name)
