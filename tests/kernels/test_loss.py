import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, load

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


@dtypes
@shapes
def test_squared_error(rng, dtype, shape):
    y, target = rng.normal(size=shape), rng.normal(size=shape)
    losses, _ = check("loss.squared_error", dtype, "reduction", [y, target, 0.5, SCALE, Out(shape[:1], np.float64), Out(shape)])
    assert_close(losses, 0.5 * ((y - target) ** 2).sum(axis=1), "reduction", dtype)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_squared_error_gradient(rng, backend):
    y, target = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    outputs = [Out((4,), np.float64), Out((4, 5))]

    def forward(y):
        return run("loss.squared_error", "numpy", "float64", [y, target, 0.2, SCALE, *outputs])[0]

    _, dy = run("loss.squared_error", backend, "float64", [y, target, 0.2, SCALE, *outputs])
    assert_close(dy, differences(forward, y, SCALE), "differences")


@pytest.mark.parametrize("backend", COMPILED)
def test_squared_error_sums_in_float64(rng, backend):
    y = rng.uniform(size=(2, 300 if SIMULATED else 100_000)).astype(np.float32).astype(np.float64)
    losses, _ = run("loss.squared_error", backend, "float32", [y, np.zeros(y.shape), 1.0, 1.0, Out((2,), np.float64), Out(y.shape)])
    assert_close(losses, (y**2).sum(axis=1), "reduction", "float32" if backend == "cuda" else "float64")


@not_simulated
@pytest.mark.parametrize("backend", ["serial", "parallel"])
def test_squared_error_is_the_same_wherever_the_arrays_lie(rng, backend):
    y, target = rng.normal(size=(1, 17)), rng.normal(size=(1, 17))
    found = set()
    for gap in (17, 18, 24, 25, 32, 1000):
        memory, losses = np.zeros(3 * gap), np.zeros(1)
        a, b, dy = (memory[i * gap :][:17].reshape(1, 17) for i in range(3))
        a[:], b[:] = y, target
        load("loss.squared_error", backend)(a, b, 0.5, SCALE, losses, dy)
        found.add((losses.tobytes(), dy.tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("backend", COMPILED)
def test_squared_error_of_nan(backend):
    y = np.array([[1, np.nan], [1, 2.0]])
    losses, dy = run("loss.squared_error", backend, "float32", [y, np.zeros((2, 2)), 1.0, 1.0, Out((2,), np.float64), Out((2, 2))])
    assert np.isnan(losses).tolist() == [True, False]
    assert np.isnan(dy).tolist() == [[False, True], [False, False]]


def test_against_torch(rng):
    torch = pytest.importorskip("torch")
    logits, labels = rng.normal(0, 3, (7, 5)), rng.integers(0, 5, 7)
    theirs = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), reduction="none")
    loss.sum().backward()
    losses, _, dlogits = run("loss.softmax_cross_entropy", "serial", "float64", cross_entropy_args(logits, labels))
    assert_close(losses, loss.detach().numpy(), "reduction")
    assert_close(dlogits / SCALE, theirs.grad.numpy(), "reduction")
