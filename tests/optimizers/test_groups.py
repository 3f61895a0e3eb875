"""Groups: parameters with options of their own, by patterns of their names."""

import copy
import re
import warnings

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.optimizers import OPTIMIZERS
from nbnet.optimizers.groups import fits

BACKENDS = ["numpy", "serial", "parallel", *(["cuda"] if SIMULATED or GPU else [])]


def model(backend="serial", layers=None):
    net = nb.Sequential(layers or [nb.Conv2D(3, 3).named("stem"), nb.BatchNorm().named("norm1"), nb.Flatten(), nb.Dense(5)])
    net.build((4, 4, 2), backend=backend, dtype="float64", seed=1)
    return net


def fill(params, seed):
    rng = np.random.default_rng(seed)
    for param in params.values():
        param.grad[...] = rng.normal(size=param.grad.shape)


def values(params):
    return {name: np.asarray(param.value).copy() for name, param in params.items()}


def stepped(optimizer, net, steps=3):
    for seed in range(steps):
        fill(net.params, seed)
        optimizer.step(net.params, net.backend)
    return values(net.params)


def test_the_whole_name_or_one_part():
    name = "2.residual.body.0.conv2d.weight"
    assert all(
        fits(pattern, name)
        for pattern in (
            name,
            "*.weight",
            "weight",
            "conv*",
            "conv2d",
            "residual",
            "2.*",
            "*body*",
            "2.residual",
            "2.residual.body.0.conv2d",
        )
    )
    assert not any(fits(pattern, name) for pattern in ("*.bias", "conv", "Conv2D", "body.0", "3.*", ""))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_parameter_moves_as_with_its_options(backend, name):
    """As with an optimiser that has these options for all parameters; the last pattern wins."""
    make = OPTIMIZERS[name]
    # The compiler rounds differently in the vector loop of Adam's kernels and in the loop over what is left of a chunk.
    kind = "reduction" if backend in ("serial", "parallel") and "v" in make().slots else "exact"
    groups = {
        "*": {"weight_decay": 0.3},
        "*.bias": {"lr_scale": 64},
        "norm*": {"weight_decay": 0, "lr_scale": 2},
        "norm1.beta": {"lr_scale": 0},
    }
    found = stepped(make(1e-3, weight_decay=0.1, groups=groups), model(backend))
    alone = {
        "stem.weight": (1e-3, 0.3),
        "stem.bias": (64e-3, 0.3),
        "norm1.gamma": (2e-3, 0.0),
        "norm1.beta": (0.0, 0.0),
        "3.dense.weight": (1e-3, 0.3),
        "3.dense.bias": (64e-3, 0.3),
    }
    assert set(found) == set(alone)
    for param, (lr, weight_decay) in alone.items():
        wanted = stepped(make(lr, weight_decay=weight_decay), model(backend))
        assert_close(found[param], wanted[param], kind, what=param)


def test_neighbours_of_one_group_share_a_call():
    net = model()
    assert len(nb.Adam(groups={})._found.runs) == 0
    for groups, calls in (
        (None, [["stem.weight", "3.dense.bias"]]),
        ({"*": {"eps": 1e-6}}, [["stem.weight", "3.dense.bias"]]),
        (
            {"norm*": {"weight_decay": 0.1}},
            [["stem.weight", "stem.bias"], ["norm1.gamma", "norm1.beta"], ["3.dense.weight", "3.dense.bias"]],
        ),
        ({"norm*": {"eps": 0}, "3.*": {"eps": 0}}, [["stem.weight", "stem.bias"], ["norm1.gamma", "3.dense.bias"]]),
    ):
        optimizer = nb.Adam(groups=groups)
        optimizer.step(net.params, net.backend)
        layout = net.params["stem.weight"].layout
        wanted = [layout.bounds[net.params[last].index][1] - layout.bounds[net.params[first].index][0] for first, last in calls]
        assert [run.value.size for run in optimizer._found.runs] == wanted


def test_frozen_and_shared_parameters():
    shared = nb.Dense(6).named("shared")
    net = nb.Sequential([shared, shared, nb.Dense(2)])
    net.build((6,), backend="serial")
    for name in ("2.dense.weight", "2.dense.bias"):
        net.params[name].trainable = False
    before = values(net.params)
    optimizer = nb.SGD(0.1, groups={"shared": {"lr_scale": 2}, "2.dense": {"lr_scale": 5}})
    for param in net.params.values():
        param.grad[:] = 1
    optimizer.step(net.params, net.backend)
    after = values(net.params)
    for name in net.params:
        wanted = before[name] if name.startswith("2.") else before[name] - np.float32(0.2)
        np.testing.assert_allclose(after[name], wanted, rtol=1e-6, err_msg=name)


def test_groups_that_change_between_steps():
    """Assigned, or changed in place; the state stays."""
    net, twin = model(), model()
    optimizer, other = nb.SGD(0.1, momentum=0.9), nb.SGD(0.1, momentum=0.9)
    stepped(optimizer, net, 1)
    stepped(other, twin, 1)
    optimizer.groups = {"*.bias": {"lr_scale": 0.0}}
    before = values(net.params)
    fill(net.params, 5)
    optimizer.step(net.params, net.backend)
    assert [name for name, value in values(net.params).items() if np.array_equal(value, before[name])] == ["stem.bias", "3.dense.bias"]
    optimizer.groups["*.bias"]["lr_scale"] = 1.0
    fill(twin.params, 5)
    other.step(twin.params, twin.backend)
    for name, param in net.params.items():
        param.value[...] = twin.params[name].value
    assert all(np.array_equal(value, after) for value, after in zip(stepped(optimizer, net).values(), stepped(other, twin).values()))


def test_a_run_with_groups_is_saved_and_restored(tmp_path):
    data = np.random.default_rng(0).random((12, 4, 4, 2)), np.arange(12) % 5
    groups = {"*.bias": {"lr_scale": 2.0}, "norm*": {"weight_decay": 0.0, "beta1": 0.5}}
    first = nb.Trainer(model(), optimizer=nb.AdamW(1e-3, groups=groups))
    first.fit(data, epochs=1, batch_size=4)
    first.save(tmp_path / "run")
    second, third = (nb.Trainer(model(), optimizer=nb.AdamW(1e-3, groups=each)) for each in (copy.deepcopy(groups), {"stem": {"eps": 1.0}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.restore(tmp_path / "run")
    with pytest.warns(
        UserWarning, match=r"settings differ: groups is \{'\*\.bias': \{'lr_scale': 2\.0\}, .*\} as in the file, not \{'stem'"
    ):
        third.restore(tmp_path / "run")
    found = []
    for trainer in (first, second, third):
        trainer.fit(data, epochs=3, batch_size=4)
        found.append(b"".join(array.tobytes() for array in trainer.model.state().values()))
    assert found[0] == found[1] == found[2]
    assert repr(first.optimizer) == f"nb.AdamW(0.001, groups={groups!r})"
    state = first.state()
    state.run["settings"]["optimizer"]["groups"] = {"*.bias": {"lr_scale": -1}}
    with pytest.raises(CheckpointError, match=r"the settings of the optimiser are damaged: lr_scale=-1"):
        second.load_state(state)


BAD = [
    (["*.bias"], 'groups=[\'*.bias\']: expected options by pattern, such as groups={"*.bias": {"lr_scale": 2.0}}'),
    ({"*.bias": 2}, 'groups has \'*.bias\': 2, expected options by pattern, such as groups={"*.bias": {"lr_scale": 2.0}}'),
    ({"*.bias": {"lr": 2}}, "groups['*.bias']: unknown option 'lr': choose one of lr_scale, momentum, "),
    ({"*.bias": {"weight_deacy": 2}}, "groups['*.bias']: unknown option 'weight_deacy': did you mean 'weight_decay'? choose one of "),
    ({"*.bias": {"lr_scale": -1}}, "lr_scale=-1: expected a number that is at least 0"),
    ({"*.bias": {"momentum": 1}}, "groups['*.bias']: momentum=1: expected a number that is at least 0 and below 1"),
    ({"*.bias": {"nesterov": True}}, "groups['*.bias']: nesterov=True with momentum=0.0: expected a momentum above 0"),
]


@pytest.mark.parametrize(("groups", "message"), BAD)
def test_bad_groups(groups, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        nb.SGD(0.1, groups=groups)


def test_options_that_change_the_state_are_for_all_parameters():
    for make, option in ((nb.Adam, "amsgrad"), (nb.RMSProp, "centered")):
        with pytest.raises(ArgumentError, match=rf"^groups\['\*'\] has {option}, which changes the state: set it for all parameters$"):
            make(groups={"*": {option: True}})


def test_a_pattern_that_fits_nothing():
    message = r"^groups: unknown parameter 'nrom1\.\*': did you mean 'norm1\.\w+'\? choose one of stem\.weight, stem\.bias, .*$"
    optimizer = nb.SGD(0.1, groups={"nrom1.*": {"weight_decay": 0}})
    with pytest.raises(ArgumentError, match=message):
        nb.Trainer(model(), optimizer=optimizer)
    net = model()
    before = values(net.params)
    with pytest.raises(ArgumentError, match=message):
        optimizer.step(net.params, net.backend)
    assert all(np.array_equal(value, before[name]) for name, value in values(net.params).items())
    assert optimizer.steps == 0


def test_a_failed_step_is_undone():
    """Also where an update in Python has the options of a group."""

    class Fails(nb.SGD):
        def _update(self, backend, value, grad, slots, lr):
            value -= lr * grad
            if self.momentum == 0.5 and self.steps == 2:
                raise ValueError("the update fails")

    net, optimizer = model(), Fails(0.1, groups={"3.dense": {"momentum": 0.5, "lr_scale": 3}})
    stepped(optimizer, net, 1)
    before = values(net.params)
    with pytest.raises(ValueError, match="fails"):
        optimizer.step(net.params, net.backend)
    assert all(np.array_equal(value, before[name]) for name, value in values(net.params).items())
    assert optimizer.steps == 1
