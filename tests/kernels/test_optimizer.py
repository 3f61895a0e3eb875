import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, functions
from nbnet.kernels.optimizers import TABLE

from .harness import COMPILED, DTYPES, Out, check, large, not_simulated, run, simulated

SIZES = [1, 7, *simulated(69), *large(1000, 70001)]
MOMENTS = {
    "plain": (0.01, 0.9, 0.999, 1e-8, 0.0, False),
    "decay": (0.01, 0.8, 0.99, 1e-3, 0.1, False),
    "decoupled": (0.01, 0.9, 0.999, 1e-8, 0.1, True),
}  # lr, beta1, beta2, eps, weight_decay, decoupled
RMSPROP = {
    "plain": (0.01, 0.99, 1e-8, 0.0, 0.0, False),
    "momentum": (0.01, 0.9, 1e-3, 0.9, 0.01, False),
    "decoupled": (0.01, 0.9, 1e-3, 0.9, 0.1, True),
}


def with_corrections(*more):
    """MOMENTS at step 1 and at step 1000, with the numbers that follow from the step."""
    found = {}
    for name, options in MOMENTS.items():
        for step in (1, 1000):
            found[f"{name}, step {step}"] = (*options, 1 - options[1] ** step, 1 - options[2] ** step, *more)
    return found


OPTIONS = {
    "sgd": {
        "plain": (0.1, 0.0, 0.0, False, 0.0, False),
        "momentum": (0.1, 0.9, 0.0, False, 0.0, False),
        "dampening": (0.1, 0.9, 0.3, False, 0.01, False),
        "nesterov": (0.1, 0.9, 0.0, True, 0.01, False),
        "decoupled": (0.1, 0.9, 0.0, True, 0.1, True),
    },  # lr, momentum, dampening, nesterov, weight_decay, decoupled
    "rmsprop": RMSPROP,
    "rmsprop_centered": RMSPROP,
    "adagrad": {"plain": (0.1, 0.0, 1e-8, 0.01, False), "initial": (0.1, 0.3, 1e-3, 0.1, True)},
    "adam": with_corrections(),
    "amsgrad": with_corrections(),
    "nadam": {name: (*options, 0.3, 0.8, 0.2) for name, options in MOMENTS.items()},
    "radam": with_corrections(0.0) | {f"{name}, rectified": options for name, options in with_corrections(0.7).items()},
    "lion": {"plain": (0.01, 0.9, 0.99, 0.0), "decay": (0.01, 0.8, 0.99, 0.1)},
}
CASES = [(name, case) for name, cases in OPTIONS.items() for case in cases]
AVERAGES_OF_SQUARES = ("square", "v", "largest")
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def test_every_row_is_tested():
    assert set(OPTIONS) == set(TABLE) == set(functions("optimizer"))


@not_simulated
def test_sizes_make_several_chunks():
    assert chunks.count(SIZES[-1], 1) == 2


def states(rng, name, size):
    """State arrays of a run that is under way. A mean of gradients is small beside the mean of their squares."""
    for slot in TABLE[name].slots:
        values = rng.normal(size=size)
        yield Out(start=values**2 + 0.1 if slot in AVERAGES_OF_SQUARES else 0.1 * np.tanh(values) if slot == "mean" else values)


@pytest.mark.parametrize(("name", "case"), CASES, ids=[", ".join(each) for each in CASES])
@dtypes
@pytest.mark.parametrize("size", SIZES)
def test_against_the_definition(rng, dtype, size, name, case):
    args = [Out(start=rng.normal(size=size)), rng.normal(size=size), *states(rng, name, size), *OPTIONS[name][case]]
    check(f"optimizer.{name}", dtype, "elementwise", args)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
def test_first_step_of_adam_by_hand(backend, dtype):
    """From zero state every parameter moves by lr against the sign of its gradient, for gradients of any size."""
    param, grad = np.array([1.0, 2, 3]), np.array([1e-3, -5, 1e4])
    args = [Out(start=param), grad, Out(start=np.zeros(3)), Out(start=np.zeros(3)), 0.1, 0.9, 0.999, 1e-30, 0.0, False, 0.1, 0.001]
    new, m, v = run("optimizer.adam", backend, dtype, args)
    assert_close(new, param - 0.1 * np.sign(grad), "elementwise", dtype)
    assert_close(m, 0.1 * grad, "elementwise", dtype)
    assert_close(v, 0.001 * grad**2, "elementwise", dtype)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", TABLE)
def test_nan_gradient_stays_in_its_place(backend, name):
    options = list(OPTIONS[name].values())[-1]
    args = [Out(start=np.ones(3)), np.array([1, np.nan, 1.0]), *[Out(start=np.ones(3)) for _ in TABLE[name].slots], *options]
    for result in run(f"optimizer.{name}", backend, "float32", args):
        assert np.isnan(result).tolist() == [False, True, False]


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_lion_does_not_move_where_there_is_no_direction(backend):
    new, m = run("optimizer.lion", backend, "float32", [Out(start=np.ones(2)), np.zeros(2), Out(start=np.zeros(2)), 0.1, 0.9, 0.99, 0.0])
    assert_close(new, np.ones(2), "exact")
    assert_close(m, np.zeros(2), "exact")
