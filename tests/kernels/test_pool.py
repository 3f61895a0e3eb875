import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks

from .harness import COMPILED, DTYPES, SIMULATED, Out, check, check_gradient, not_simulated, output_of, run

# (N, H, W, C), (OH, OW), (size_h, size_w, stride_h, stride_w, pad_top, pad_left)
CASES = {
    "2 by 2, 8 channels, odd image": ((2, 5, 7, 8), (2, 3), (2, 2, 2, 2, 0, 0)),
    "2 by 2, 4 channels, odd image, clipped": ((2, 5, 7, 4), (3, 4), (2, 2, 2, 2, 0, 0)),
    "2 by 2, 4 channels, one row": ((3, 1, 4, 4), (1, 2), (2, 2, 2, 2, 0, 0)),
    "one pixel": ((1, 1, 1, 1), (1, 1), (2, 2, 2, 2, 0, 0)),
    "2 by 2": ((2, 6, 4, 3), (3, 2), (2, 2, 2, 2, 0, 0)),
    "2 by 2 odd image": ((2, 5, 7, 17), (2, 3), (2, 2, 2, 2, 0, 0)),
    "2 by 2 odd image, clipped": ((2, 5, 7, 17), (3, 4), (2, 2, 2, 2, 0, 0)),
    "2 by 2 overlapping, padded": ((1, 4, 5, 1), (5, 6), (2, 2, 1, 1, 1, 1)),
    "3 by 3 stride 2, padded": ((2, 7, 6, 17), (4, 3), (3, 3, 2, 2, 1, 1)),
    "3 by 2 stride 1 by 3": ((2, 5, 8, 3), (5, 3), (3, 2, 1, 3, 1, 0)),
    "stride beyond the window": ((1, 8, 7, 3), (3, 2), (2, 1, 3, 4, 0, 0)),
    "whole image": ((3, 5, 4, 17), (1, 1), (5, 4, 5, 4, 0, 0)),
    "2 by 2, 12 channels": ((2, 5, 6, 12), (3, 3), (2, 2, 2, 2, 0, 0)),
    "3 by 3, 8 channels, overlapping": ((1, 5, 4, 8), (3, 2), (3, 3, 2, 2, 1, 1)),
    "chunks, 2 by 2": ((7, 41, 38, 17), (20, 19), (2, 2, 2, 2, 0, 0)),
    "chunks, 3 by 3": ((9, 30, 31, 9), (15, 16), (3, 3, 2, 2, 0, 1)),
    "chunks, whole image": ((9, 40, 41, 17), (1, 1), (40, 41, 40, 41, 0, 0)),
}
if SIMULATED:
    CASES = {name: case for name, case in CASES.items() if "chunks" not in name}
SMALL = [name for name in CASES if "chunks" not in name]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
cases = pytest.mark.parametrize("name", CASES)


NONE = (0, 0)  # where padding does not count
ends = pytest.mark.parametrize("bottom", [None, 0, 1], ids=["pixels", "padding", "padding below"])


def end(name, bottom):
    """Where the padded image ends: None is that padding does not count."""
    return NONE if bottom is None else (CASES[name][0][1] + bottom, CASES[name][0][2] + bottom)


def make(name, rng):
    """x with many ties, dy, geometry."""
    shape, (out_h, out_w), geometry = CASES[name]
    x = rng.integers(-2, 3, shape).astype(np.float64)
    return x, rng.normal(size=(shape[0], out_h, out_w, shape[3])), geometry


@not_simulated
def test_cases_make_several_chunks():
    for name in CASES:
        if name.startswith("chunks"):
            (images, height, width, channels), (out_h, out_w), (size_h, size_w, *_) = CASES[name]
            assert chunks.count(images * out_h, out_w * channels * size_h * size_w) > 2
            assert chunks.count(images, out_h * out_w * channels * size_h * size_w) > 2
            assert chunks.count(images * height, width * channels) > 1


@dtypes
@cases
def test_max_forward(rng, dtype, name):
    x, dy, geometry = make(name, rng)
    check("pool.max_forward", dtype, "exact", [x, *geometry, Out(dy.shape)])


@dtypes
@cases
def test_max_backward(rng, dtype, name):
    x, dy, geometry = make(name, rng)
    check("pool.max_backward", dtype, "elementwise", [dy, x, *geometry, Out(x.shape)])


@ends
@dtypes
@cases
def test_avg_forward(rng, dtype, name, bottom):
    x, dy, geometry = make(name, rng)
    check("pool.avg_forward", dtype, "elementwise", [x + rng.normal(size=x.shape), *geometry, *end(name, bottom), Out(dy.shape)])


@ends
@dtypes
@cases
def test_avg_backward(rng, dtype, name, bottom):
    x, dy, geometry = make(name, rng)
    check("pool.avg_backward", dtype, "elementwise", [dy, *geometry, *end(name, bottom), Out(x.shape)])


@pytest.mark.parametrize("name", SMALL)
def test_max_gradient(rng, name):
    x, dy, geometry = make(name, rng)
    x = rng.permutation(x.size).reshape(x.shape) / 8  # no ties: a tie has no gradient
    check_gradient(
        lambda x: output_of("pool.max_forward", [x, *geometry, Out(dy.shape)]), "pool.max_backward", [dy, x, *geometry, Out(x.shape)], x, dy
    )


@ends
@pytest.mark.parametrize("name", SMALL)
def test_avg_gradient(rng, name, bottom):
    x, dy, geometry = make(name, rng)
    geometry = *geometry, *end(name, bottom)
    check_gradient(
        lambda x: output_of("pool.avg_forward", [x, *geometry, Out(dy.shape)]), "pool.avg_backward", [dy, *geometry, Out(x.shape)], x, dy
    )


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_by_hand(backend):
    """A 3 x 3 image, windows of 2 x 2 with stride 1 and the top left padded: four windows of 1, 2, 2 and 4 pixels."""
    x = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    geometry, y, dy = (2, 2, 1, 1, 1, 1), Out((1, 2, 2, 1)), np.array([1.0, 10, 100, 1000]).reshape(1, 2, 2, 1)

    def image(values):
        return np.array(values, np.float64).reshape(1, -1, len(values[0]), 1)

    assert_close(run("pool.max_forward", backend, "float64", [x, *geometry, y])[0], image([[1, 2], [4, 5]]), "exact")
    assert_close(run("pool.avg_forward", backend, "float64", [x, *geometry, *NONE, y])[0], image([[1, 1.5], [2.5, 3]]), "exact")
    assert_close(run("pool.avg_forward", backend, "float64", [x, *geometry, 3, 3, y])[0], image([[0.25, 0.75], [1.25, 3]]), "exact")
    expected = image([[1, 10, 0], [100, 1000, 0], [0, 0, 0]])
    assert_close(run("pool.max_backward", backend, "float64", [dy, x, *geometry, Out(x.shape)])[0], expected, "exact")
    expected = image([[1 + 5 + 50 + 250, 5 + 250, 0], [50 + 250, 250, 0], [0, 0, 0]])
    assert_close(run("pool.avg_backward", backend, "float64", [dy, *geometry, *NONE, Out(x.shape)])[0], expected, "exact")
    expected = image([[0.25 + 2.5 + 25 + 250, 2.5 + 250, 0], [25 + 250, 250, 0], [0, 0, 0]])
    assert_close(run("pool.avg_backward", backend, "float64", [dy, *geometry, 3, 3, Out(x.shape)])[0], expected, "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("size", [2, 3])
def test_first_of_equals_wins(backend, size):
    x, dy = np.ones((1, size, size, 9)), np.arange(1.0, 10).reshape(1, 1, 1, 9)
    (dx,) = run("pool.max_backward", backend, "float32", [dy, x, size, size, size, size, 0, 0, Out(x.shape)])
    expected = np.zeros(x.shape)
    expected[:, 0, 0] = np.arange(1, 10)
    assert_close(dx, expected, "exact")


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("size", [2, 3])
@dtypes
def test_nan_is_the_maximum(rng, dtype, size, at):
    """At every position of the window; of two NaNs the first wins."""
    x = rng.normal(size=(1, size, size, 9))
    flat = x.reshape(size * size, 9)
    flat[at, 2:5] = np.nan
    flat[-1, 4] = np.nan
    geometry = (size, size, size, size, 0, 0)
    (y,) = check("pool.max_forward", dtype, "exact", [x, *geometry, Out((1, 1, 1, 9))])
    assert np.flatnonzero(np.isnan(y)).tolist() == [2, 3, 4]
    (dx,) = check("pool.max_backward", dtype, "exact", [np.ones((1, 1, 1, 9)), x, *geometry, Out(x.shape)])
    assert dx.reshape(-1, 9)[at, 2:5].tolist() == [1, 1, 1]
    (y,) = check("pool.avg_forward", dtype, "elementwise", [x, *geometry, *NONE, Out((1, 1, 1, 9))])
    assert np.flatnonzero(np.isnan(y)).tolist() == [2, 3, 4]


@pytest.mark.parametrize("geometry", [(2, 2, 2, 2, 1, 1), (3, 3, 3, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("backend", COMPILED)
def test_padding_never_wins(backend, geometry):
    """All pixels far below 0, which padding with zeros would beat; minus infinity too."""
    x = np.full((1, 5, 5, 3), -1e30)
    x[..., 2] = -np.inf
    (y,) = run("pool.max_forward", backend, "float32", [x, *geometry, Out((1, 2, 2, 3))])
    assert_close(y, np.broadcast_to(np.float32([-1e30, -1e30, -np.inf]), y.shape), "exact")


@pytest.mark.parametrize("backend", COMPILED)
def test_global_average_of_large_values_in_float32(rng, backend):
    """A float32 sum of 4,096 values near 1e4 would be wrong in the fifth digit."""
    side = 8 if SIMULATED else 64
    x = rng.normal(1e4, 1, (2, side, side, 11)).astype(np.float32).astype(np.float64)
    (y,) = run("pool.avg_forward", backend, "float32", [x, side, side, side, side, 0, 0, *NONE, Out((2, 1, 1, 11))])
    assert_close(y, x.mean(axis=(1, 2), keepdims=True).astype(np.float32), "elementwise" if backend == "cuda" else "exact")


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("size", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_against_torch(rng, size, stride, pad, ceil):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 9, 8, 3))
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    geometry = (size, size, stride, stride, pad, pad)
    call = torch.nn.functional.avg_pool2d
    for ours, extra, theirs in (
        ("max", (), torch.nn.functional.max_pool2d(image, size, stride, pad, ceil_mode=ceil)),
        ("avg", NONE, call(image, size, stride, pad, ceil_mode=ceil, count_include_pad=False)),
        ("avg", (9 + pad, 8 + pad), call(image, size, stride, pad, ceil_mode=ceil)),
    ):
        expected = theirs.detach().numpy().transpose(0, 2, 3, 1)
        dy = rng.normal(size=expected.shape)
        (gradient,) = torch.autograd.grad(theirs, image, torch.tensor(dy.transpose(0, 3, 1, 2)))
        (y,) = run(f"pool.{ours}_forward", "serial", "float64", [x, *geometry, *extra, Out(expected.shape)])
        (dx,) = run(f"pool.{ours}_backward", "serial", "float64", [dy, *([x] if ours == "max" else []), *geometry, *extra, Out(x.shape)])
        assert_close(y, expected, "elementwise")
        assert_close(dx, gradient.numpy().transpose(0, 2, 3, 1), "elementwise")
