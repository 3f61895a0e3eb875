import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, load

from .harness import COMPILED, DTYPES, Out, check, large, not_simulated, run, simulated

SIZES = [1, 7, *simulated(69), *large(1000, 70001)]
SGD = {
    "plain": (0.1, 0.0, False, 0.0),
    "momentum": (0.1, 0.9, False, 0.0),
    "nesterov": (0.1, 0.9, True, 0.0),
    "decay": (0.1, 0.9, True, 0.01),
}  # lr, momentum, nesterov, weight_decay
RMSPROP = {"plain": (0.01, 0.99, 1e-8, 0.0, 0.0), "momentum": (0.01, 0.9, 1e-3, 0.9, 0.01)}  # lr, rho, eps, momentum, weight_decay
ADAM = {
    "plain": (0.01, 0.9, 0.999, 1e-8, 0.0, False),
    "decay": (0.01, 0.8, 0.99, 1e-3, 0.1, False),
    "decoupled": (0.01, 0.9, 0.999, 1e-8, 0.1, True),
}  # lr, beta1, beta2, eps, weight_decay, decoupled
dtypes = pytest.mark.parametrize("dtype", DTYPES)
sizes = pytest.mark.parametrize("size", SIZES)


@not_simulated
def test_sizes_make_several_chunks():
    assert chunks.count(SIZES[-1], 1) == 2


def signed(rng, size):
    return Out(start=rng.normal(size=size))


def squares(rng, size):
    return Out(start=rng.normal(size=size) ** 2)


@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
@dtypes
@sizes
def test_sgd(rng, dtype, size, options):
    check("optimizer.sgd", dtype, "elementwise", [signed(rng, size), rng.normal(size=size), signed(rng, size), *options])


@pytest.mark.parametrize("options", RMSPROP.values(), ids=RMSPROP)
@dtypes
@sizes
def test_rmsprop(rng, dtype, size, options):
    args = [signed(rng, size), rng.normal(size=size), squares(rng, size), signed(rng, size), *options]
    check("optimizer.rmsprop", dtype, "elementwise", args)


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("options", ADAM.values(), ids=ADAM)
@dtypes
@sizes
def test_adam(rng, dtype, size, options, step):
    corrections = 1 - options[1] ** step, 1 - options[2] ** step
    args = [signed(rng, size), rng.normal(size=size), signed(rng, size), squares(rng, size), *options, *corrections]
    check("optimizer.adam", dtype, "elementwise", args)


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
def test_nan_gradient_stays_in_its_place(backend):
    grad = np.array([1, np.nan, 1.0])
    for op, states, options in (
        ("sgd", 1, SGD["nesterov"]),
        ("rmsprop", 2, RMSPROP["momentum"]),
        ("adam", 2, (*ADAM["plain"], 0.1, 0.001)),
    ):
        for result in run(
            f"optimizer.{op}", backend, "float32", [Out(start=np.ones(3)), grad, *[Out(start=np.ones(3))] * states, *options]
        ):
            assert np.isnan(result).tolist() == [False, True, False], op


TORCH = {
    "SGD": ("sgd", 1, {k: SGD[k] for k in SGD}, lambda lr, momentum, nesterov, decay: {"momentum": momentum, "nesterov": nesterov}),
    "RMSprop": ("rmsprop", 2, RMSPROP, lambda lr, rho, eps, momentum, decay: {"alpha": rho, "eps": eps, "momentum": momentum}),
    "Adam": ("adam", 2, {k: ADAM[k] for k in ("plain", "decay")}, lambda lr, b1, b2, eps, decay, _: {"betas": (b1, b2), "eps": eps}),
    "AdamW": ("adam", 2, {"decoupled": ADAM["decoupled"]}, lambda lr, b1, b2, eps, decay, _: {"betas": (b1, b2), "eps": eps}),
}


@pytest.mark.parametrize("name", TORCH)
def test_five_steps_against_torch(rng, name):
    torch = pytest.importorskip("torch")
    op, states, variants, keywords = TORCH[name]
    for options in variants.values():
        start, grads = rng.normal(size=20), rng.normal(size=(5, 20))
        theirs = torch.nn.Parameter(torch.tensor(start))
        decay = options[4] if op == "adam" else options[-1]
        optimizer = getattr(torch.optim, name)([theirs], lr=options[0], weight_decay=decay, **keywords(*options))
        ours, state = start.copy(), [np.zeros(20) for _ in range(states)]
        for step, grad in enumerate(grads, start=1):
            theirs.grad = torch.tensor(grad)
            optimizer.step()
            corrections = (1 - options[1] ** step, 1 - options[2] ** step) if op == "adam" else ()
            load(f"optimizer.{op}", "serial")(ours, grad.copy(), *state, *options, *corrections)
        assert_close(ours, theirs.detach().numpy(), "reduction")
