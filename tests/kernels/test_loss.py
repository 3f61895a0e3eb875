import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, load
from nbnet.kernels.loss import TABLE

from .harness import COMPILED, DTYPES, SIMULATED, Out, check, differences, large, not_simulated, run, simulated

SHAPES = [(1, 1), (1, 17), (5, 3), *simulated((9, 6)), *large((3001, 17), (9000, 10), (257, 1500))]
SCALE = 0.03125
dtypes = pytest.mark.parametrize("dtype", DTYPES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def cross_entropy_args(logits, labels):
    rows = (len(labels),)
    return [logits, labels, SCALE, Out(rows, np.float64), Out(rows, np.uint8), Out(logits.shape)]


@not_simulated
def test_shapes_make_several_chunks():
    assert chunks.count(9000, 10) == 2


@dtypes
@shapes
def test_softmax_cross_entropy(rng, dtype, shape):
    logits, labels = rng.normal(0, 3, shape), rng.integers(0, shape[1], shape[0])
    losses, hits, _ = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, labels))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_close(losses, -np.log(probabilities[np.arange(len(labels)), labels]), "reduction", dtype)
    assert_close(hits, logits.argmax(axis=1) == labels, "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_softmax_cross_entropy_gradient(rng, backend):
    logits, labels = rng.normal(size=(4, 5)), np.array([0, 4, 2, 2])

    def forward(logits):
        return run("loss.softmax_cross_entropy", "numpy", "float64", cross_entropy_args(logits, labels))[0]

    _, _, dlogits = run("loss.softmax_cross_entropy", backend, "float64", cross_entropy_args(logits, labels))
    assert_close(dlogits, differences(forward, logits, SCALE), "differences")


@dtypes
def test_large_logits(dtype):
    """Logits of 1e4 neither overflow nor lose the loss of the row."""
    logits = np.array([[1e4, 1e4 - 2, -1e4], [-1e4, 0, 1e4], [3, 3, 3]])
    losses, hits, dlogits = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, np.array([1, 0, 0])))
    assert_close(losses, np.array([2 + np.log1p(np.exp(-2)), 2e4, np.log(3)]), "reduction", dtype)
    assert hits.tolist() == [0, 0, 1]
    assert_close(dlogits[1], np.array([-SCALE, 0, SCALE]), "exact")


@dtypes
def test_a_tie_is_won_by_the_first(dtype):
    logits = np.array([[2.0, 2, 1], [2, 2, 1], [1, 2, 2], [1, 2, 2]])
    _, hits, _ = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, np.array([0, 1, 1, 2])))
    assert hits.tolist() == [1, 0, 1, 0]


@dtypes
def test_the_largest_of_many_classes(dtype):
    """Wherever it is: on cuda several warps share a row of 128 numbers or more. Without it, its exp would be infinite."""
    places = np.array([0, 3, 4, 7, 8, 77, 148])
    logits = np.full((len(places), 149), -1e4)
    logits[np.arange(len(places)), places] = 1e4
    for labels, hit in ((places, 1), (places - 1, 0)):
        _, hits, dlogits = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, labels % 149))
        assert hits.tolist() == [hit] * len(places)
        assert np.isfinite(dlogits).all()
    logits[:, [5, 9, 130]] = 1e4  # a tie between warps
    _, hits, _ = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, np.minimum(places, 5)))
    assert hits.tolist() == [1] * len(places)


@pytest.mark.parametrize("at", [0, 1, 2])
@dtypes
def test_nan_logit(dtype, at):
    """A row with NaN is no hit, whichever entry is the label, and does not affect other rows."""
    logits = np.array([[1.0, 3, 2]] * 4)
    logits[1:, at] = np.nan
    losses, hits, dlogits = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, np.array([1, 0, 1, 2])))
    assert np.isnan(losses).tolist() == [False, True, True, True]
    assert hits.tolist() == [1, 0, 0, 0]
    assert np.isnan(dlogits).all(axis=1).tolist() == [False, True, True, True]


# ------------------------------------------------------------------------------------------------ soft_cross_entropy


def soft_args(logits, shares, weights=None):
    weights = np.ones(len(logits)) if weights is None else weights
    return [logits, shares, weights, *cross_entropy_args(logits, np.zeros(len(logits), int))[2:]]


def shares_of(rng, shape):
    shares = rng.uniform(size=shape)
    shares[::3, 0] = 0
    shares[shape[0] // 2] = 0  # a row to ignore
    return shares


@dtypes
@shapes
def test_soft_cross_entropy(rng, dtype, shape):
    logits, shares, weights = rng.normal(0, 3, shape), shares_of(rng, shape), rng.uniform(size=shape[0])
    weights[::4] = 0
    losses, hits, _ = check("loss.soft_cross_entropy", dtype, "reduction", soft_args(logits, shares, weights))
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert_close(losses, -weights * (shares * log_softmax).sum(axis=1), "reduction", dtype)
    assert_close(hits, (logits.argmax(axis=1) == shares.argmax(axis=1)) & (shares.max(axis=1) > 0), "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_soft_cross_entropy_gradient(rng, backend):
    logits, shares, weights = rng.normal(size=(4, 5)), shares_of(rng, (4, 5)), rng.uniform(size=4)

    def forward(logits):
        return run("loss.soft_cross_entropy", "numpy", "float64", soft_args(logits, shares, weights))[0]

    _, _, dlogits = run("loss.soft_cross_entropy", backend, "float64", soft_args(logits, shares, weights))
    assert_close(dlogits, differences(forward, logits, SCALE), "differences")


@dtypes
def test_soft_cross_entropy_of_large_logits(dtype):
    logits = np.array([[1e4, 1e4 - 2, -1e4], [-1e4, 0, 1e4], [3, 3, -np.inf]])
    shares = np.array([[0, 2.0, 0], [0.5, 0, 0], [1, 3, 0]])
    losses, hits, dlogits = check("loss.soft_cross_entropy", dtype, "reduction", soft_args(logits, shares))
    assert_close(losses, np.array([4 + 2 * np.log1p(np.exp(-2)), 1e4, 4 * np.log(2)]), "reduction", dtype)
    assert hits.tolist() == [0, 0, 0]
    assert_close(dlogits[1] / SCALE, np.array([-0.5, 0, 0.5]), "exact")


@dtypes
def test_soft_cross_entropy_with_one_share_is_that_of_labels(rng, dtype):
    logits, labels = rng.normal(0, 3, (7, 5)), rng.integers(0, 5, 7)
    soft = check("loss.soft_cross_entropy", dtype, "reduction", soft_args(logits, np.eye(5)[labels]))
    hard = check("loss.softmax_cross_entropy", dtype, "reduction", cross_entropy_args(logits, labels))
    for a, b in zip(soft, hard, strict=True):
        assert_close(a, b, "reduction", dtype)


@dtypes
def test_soft_cross_entropy_of_nan(dtype):
    logits = np.array([[1.0, 3, 2], [1, np.nan, 2], [1, 3, 2]])
    shares = np.array([[0, 1.0, 0], [0, 1, 0], [0, 0, 0]])
    losses, hits, _ = check("loss.soft_cross_entropy", dtype, "reduction", soft_args(logits, shares))
    assert np.isnan(losses).tolist() == [False, True, False]
    assert hits.tolist() == [1, 0, 0]
    assert losses[2] == 0


# ------------------------------------------------------------------------------------------------ element by element

UNIT = ("binary_cross_entropy", "binary_cross_entropy_of_probabilities")  # whose targets are from 0 to 1
SIGNS = ("hinge", "focal")  # whose targets are two signs
OPTIONS = {"huber": (0.7,), "focal": (1.7,)}
forms = pytest.mark.parametrize("name", TABLE)


def numbers_for(rng, name, shape):
    """y and target."""
    y = rng.uniform(0.01, 0.99, shape) if name.endswith("probabilities") else rng.normal(0, 2, shape)
    return y, rng.uniform(size=shape) if name in UNIT else rng.choice([-1.0, 1], shape) if name in SIGNS else rng.normal(size=shape)


ONE = np.ones((1, 1))


def form_args(name, y, target, weights=ONE, weight=0.5):
    return [y, target, weights, *OPTIONS.get(name, ()), weight, SCALE, Out(y.shape[:1], np.float64), Out(y.shape)]


def one_element(name, y, t):
    """L by its first definition."""
    p = y if name.endswith("probabilities") else 1 / (1 + np.exp(-y))
    with np.errstate(divide="ignore", invalid="ignore"):
        bernoulli = -t * np.log(p) - (1 - t) * np.log(1 - p)
    p_t = np.where(t > 0, p, 1 - p)
    return {
        "squared_error": (y - t) ** 2,
        "absolute_error": abs(y - t),
        "huber": np.where(abs(y - t) <= 0.7, (y - t) ** 2 / 2, 0.7 * (abs(y - t) - 0.35)),
        "binary_cross_entropy": bernoulli,
        "binary_cross_entropy_of_probabilities": bernoulli,
        "hinge": np.maximum(0, 1 - t * y),
        "focal": -((1 - p_t) ** 1.7) * np.log(p_t),
    }[name]


@forms
@dtypes
@shapes
def test_forms(rng, name, dtype, shape):
    y, target = numbers_for(rng, name, shape)
    for weights in (ONE, rng.uniform(size=(shape[0], 1)), rng.uniform(size=shape), rng.uniform(size=(1, shape[1]))):
        losses, _ = check(f"loss.{name}", dtype, "reduction", form_args(name, y, target, weights))
        assert_close(losses, 0.5 * (weights * one_element(name, y, target)).sum(axis=1), "reduction", dtype)


@forms
@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_gradients_of_forms(rng, name, backend):
    y, target = numbers_for(rng, name, (4, 5))
    weights = rng.uniform(size=(4, 1))

    def forward(y):
        return run(f"loss.{name}", "numpy", "float64", form_args(name, y, target, weights))[0]

    _, dy = run(f"loss.{name}", backend, "float64", form_args(name, y, target, weights))
    assert_close(dy, differences(forward, y, SCALE), "differences")


# name: y, target, L, dL / dy
TAILS = {
    "squared_error": ([1e4, -1e4], [0.0, 0], [1e8, 1e8], [2e4, -2e4]),
    "absolute_error": ([1e4, -1e4, 3], [0.0, 0, 3], [1e4, 1e4, 0], [1, -1, 0]),
    "huber": ([1e4, -1e4, 0.7], [0.0, 0, 0], [0.7 * (1e4 - 0.35)] * 2 + [0.245], [0.7, -0.7, 0.7]),
    "binary_cross_entropy": (
        [1e4, -1e4, 1e4, -1e4, -60, 60, 0],
        [1.0, 1, 0, 0, 0, 1, 0.5],
        [0, 1e4, 1e4, 0, np.exp(-60), np.exp(-60), np.log(2)],
        [0, -1, 1, 0, np.exp(-60), -np.exp(-60), 0],
    ),
    "binary_cross_entropy_of_probabilities": (
        [0.0, 1, 0, 1, 1e-30],
        [0.0, 1, 1, 0, 0],
        [0, 0, 100, 100, 1e-30],
        [0, 0, -1e12, 1e12, 1e-18],
    ),
    "hinge": ([1e4, -1e4, 1], [1.0, 1, 1], [0, 1e4 + 1, 0], [0, -1, 0]),
    "focal": ([1e4, -1e4, 1e4, -1e4, -30], [1.0, 1, 0, 0, 0], [0, 1e4, 1e4, 0, np.exp(-30 * 2.7)], None),
}


@forms
@dtypes
def test_tails_of_forms(name, dtype):
    """Row by row, so that each number has its own relative error."""
    y, target, wanted, slopes = TAILS[name]
    y, target = np.array(y)[:, None], np.array(target)[:, None]
    for backend in ("numpy", *COMPILED):
        losses, dy = run(f"loss.{name}", backend, dtype, form_args(name, y, target, weight=1.0))
        for i in range(len(y)):
            assert_close(losses[i], wanted[i], "reduction", dtype, f"{backend}: ")
            if slopes is not None:
                assert_close(dy[i, 0] / SCALE, slopes[i], "reduction", dtype, f"{backend}: ")


@forms
@pytest.mark.parametrize("backend", COMPILED)
def test_nan_in_forms(name, backend):
    y = np.array([[0.5, np.nan], [0.5, 0.25]])
    losses, dy = run(f"loss.{name}", backend, "float32", form_args(name, y, np.ones((2, 2))))
    assert np.isnan(losses).tolist() == [True, False]
    assert np.isfinite(dy[:, 0]).all()
    assert np.isfinite(dy[1]).all()
    assert np.isnan(dy[0, 1]) or name == "hinge"


@pytest.mark.parametrize("backend", COMPILED)
def test_squared_error_sums_in_float64(rng, backend):
    y = rng.uniform(size=(2, 300 if SIMULATED else 100_000)).astype(np.float32).astype(np.float64)
    losses, _ = run("loss.squared_error", backend, "float32", form_args("squared_error", y, np.zeros(y.shape), weight=1.0))
    assert_close(losses, (y**2).sum(axis=1), "reduction", "float32" if backend == "cuda" else "float64")


@forms
@not_simulated
@pytest.mark.parametrize("backend", ["serial", "parallel"])
def test_forms_are_the_same_wherever_the_arrays_lie(rng, name, backend):
    y, target = numbers_for(rng, name, (1, 17))
    found = set()
    for gap in (17, 18, 24, 25, 32, 1000):
        memory, losses = np.zeros(3 * gap), np.zeros(1)
        a, b, dy = (memory[i * gap :][:17].reshape(1, 17) for i in range(3))
        a[:], b[:] = y, target
        load(f"loss.{name}", backend)(a, b, ONE, *OPTIONS.get(name, ()), 0.5, SCALE, losses, dy)
        found.add((losses.tobytes(), dy.tobytes()))
    assert len(found) == 1


def test_against_torch(rng):
    torch = pytest.importorskip("torch")
    logits, labels = rng.normal(0, 3, (7, 5)), rng.integers(0, 5, 7)
    theirs = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), reduction="none")
    loss.sum().backward()
    losses, _, dlogits = run("loss.softmax_cross_entropy", "serial", "float64", cross_entropy_args(logits, labels))
    assert_close(losses, loss.detach().numpy(), "reduction")
    assert_close(dlogits / SCALE, theirs.grad.numpy(), "reduction")
