import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks

from .harness import COMPILED, DTYPES, Out, check, check_gradient, large, not_simulated, output_of, run, simulated

# (N, H, W, C), (OH, A), (OW, B)
SHAPES = {
    "one": ((1, 1, 1, 1), (1, 1), (1, 1)),
    "one tap": ((2, 4, 3, 3), (7, 1), (5, 1)),
    "two by one": ((2, 3, 5, 17), (4, 2), (3, 1)),
    "three by four": ((1, 6, 5, 12), (5, 3), (7, 4)),
    "four by two": ((3, 2, 2, 8), (3, 4), (2, 2)),
    **dict(simulated(("several blocks", ((2, 3, 3, 2), (4, 2), (3, 2))))),
    **dict(large(("chunks, copies", ((5, 40, 30, 35), (61, 1), (50, 1))), ("chunks", ((4, 30, 31, 9), (33, 3), (40, 2))))),
}
dtypes = pytest.mark.parametrize("dtype", DTYPES)
names = pytest.mark.parametrize("name", SHAPES)
backends = pytest.mark.parametrize("backend", ["numpy", *COMPILED])


def table(rng, outputs, taps, inputs):
    """An index and a weight: outputs with any number of taps, some of them copies of their inputs, in runs, and the same input twice."""
    index, weight = rng.integers(0, inputs, (outputs, taps)), rng.integers(-8, 9, (outputs, taps)) / 8
    index[np.arange(taps) >= rng.integers(0, taps + 1, outputs)[:, None]] = -1
    index[0, 0] = 0
    copies = rng.random(outputs) < 0.5
    index[copies], weight[copies] = -1, 1
    index[copies, 0] = np.arange(outputs)[copies] % inputs
    return index, weight


def arguments(x, rows, columns):
    """Of a call. Weights are float64 whatever the dtype under test, and exact in float32."""
    weights = [Out(start=weight, dtype=np.float64) for _, weight in (rows, columns)]
    return [x, rows[0], weights[0], columns[0], weights[1], Out((x.shape[0], len(rows[0]), len(columns[0]), x.shape[3]))]


def make(name, rng):
    """x and the tables of rows and columns."""
    shape, (out_h, rows), (out_w, columns) = SHAPES[name]
    return rng.normal(size=shape), table(rng, out_h, rows, shape[1]), table(rng, out_w, columns, shape[2])


def dense(index, weight, inputs):
    """The table as a matrix (outputs, inputs)."""
    matrix = np.zeros((len(index), inputs))
    for (output, tap), source in np.ndenumerate(index):
        if source >= 0:
            matrix[output, source] += weight[output, tap]
    return matrix


def single(index):
    """The table of outputs that are copies."""
    return np.array(index)[:, None], np.ones((len(index), 1))


def transposed(index, weight, inputs):
    """The table of the gradient."""
    taps = [[(o, w) for (o, _), s, w in zip(np.ndindex(index.shape), index.flat, weight.flat) if s == i] for i in range(inputs)]
    most = max(map(len, taps))
    filled = np.array([[*each, *[(-1, 0)] * (most - len(each))] for each in taps], np.float64)
    return filled[..., 0].astype(np.int64), filled[..., 1]


def y_of(op, backend, dtype, args):
    return run(op, backend, dtype, args)[-1]


@not_simulated
def test_cases_make_several_chunks():
    for name, (shape, (out_h, rows), (out_w, columns)) in SHAPES.items():
        assert (chunks.count(shape[0] * out_h, out_w * shape[3] * rows * columns) > 1) == ("chunks" in name)


@dtypes
@names
def test_gather(rng, dtype, name):
    x, rows, columns = make(name, rng)
    check("resample.gather", dtype, "reduction", arguments(x, rows, columns))


@names
def test_the_definition_is_two_products(rng, name):
    x, rows, columns = make(name, rng)
    y = y_of("resample.gather", "numpy", "float64", arguments(x, rows, columns))
    wanted = np.einsum("oh,pw,nhwc->nopc", dense(*rows, x.shape[1]), dense(*columns, x.shape[2]), x, optimize=True)
    assert_close(y, wanted, "reduction")


@pytest.mark.parametrize("name", [name for name in SHAPES if "chunks" not in name])
def test_gradient(rng, name):
    """The transposed tables, through the same kernel."""
    x, rows, columns = make(name, rng)
    dy = rng.normal(size=(len(x), len(rows[0]), len(columns[0]), x.shape[3]))
    back = transposed(*rows, x.shape[1]), transposed(*columns, x.shape[2])
    forward = arguments(x, rows, columns)
    args = arguments(dy, *back)
    args[2], args[4] = back[0][1], back[1][1]
    forward[2], forward[4] = rows[1], columns[1]
    check_gradient(lambda x: output_of("resample.gather", [x, *forward[1:]]), "resample.gather", args, x, dy)


BITS = {"float32": (np.uint32, 0x7FA12345), "float64": (np.uint64, 0x7FF4123456789ABC)}  # a signalling NaN, which arithmetic makes quiet


@backends
@pytest.mark.parametrize("channels", [3, 8])
@dtypes
def test_copies_are_the_same_bits(rng, dtype, channels, backend):
    """One tap of weight 1: minus zero, subnormal numbers and NaNs too."""
    kind, nan = BITS[dtype]
    x = rng.normal(size=(2, 3, 4, channels)).astype(dtype)
    x[0, 0, 0, 0], x[0, 0, 1, 0], x[1, 2, 3, :2] = -0.0, 1e-310 if dtype == "float64" else 1e-40, [np.inf, -np.inf]
    if backend != "numpy":
        x.view(kind)[1, 1, 1, 2] = nan
    rows, columns = [0, 0, 1, 2, 2], [3, 0, 1, 2, 3, 3, 2]
    tables = [single(rows), single(columns)]
    y = y_of("resample.gather", backend, dtype, arguments(x, *tables))
    assert y.tobytes() == x[:, rows][:, :, columns].tobytes()


@backends
@dtypes
def test_where_there_is_no_tap_nothing_leaks(dtype, backend):
    x = np.full((1, 2, 2, 5), np.nan)
    x[0, 1, 1] = 3
    rows, columns = (np.array([[-1, -1], [1, -1], [1, 1]]), np.array([[5.0, 5], [1, 5], [0.5, 0.25]])), single([-1, 1, 0])
    y = y_of("resample.gather", backend, dtype, arguments(x, rows, columns))
    wanted = np.zeros((1, 3, 3, 5))
    wanted[0, 1, 1], wanted[0, 2, 1], wanted[0, 1:, 2] = 3, 2.25, np.nan
    assert_close(y, wanted, "exact")


@pytest.mark.parametrize("backend", COMPILED)
def test_long_sums_in_float32(rng, backend):
    """A float32 sum of 4,096 values near 1e4 would be wrong in the fifth digit."""
    side = 8 if backend == "cuda" else 64
    x = rng.normal(1e4, 1, (2, side, side, 11)).astype(np.float32).astype(np.float64)
    mean = np.arange(side)[None], np.full((1, side), 1 / side)
    y = y_of("resample.gather", backend, "float32", arguments(x, mean, mean))
    assert_close(y, x.mean(axis=(1, 2), keepdims=True).astype(np.float32), "elementwise" if backend == "cuda" else "exact")
