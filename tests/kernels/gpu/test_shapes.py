"""Only on a GPU: real and odd shapes, compared with NumPy in float64 and run twice for the same bits."""

import numpy as np
import pytest
from cuda_machine import EXECUTED, GPU
from tolerances import assert_close

from kernels.harness import Out, check, rounded, run, same_bits

pytestmark = pytest.mark.skipif(not GPU, reason="there is no GPU")
ROWS = [1, 2, 31, *(() if EXECUTED else (1_000_003,))]
CHANNELS = [1, 3, 17, 130]
matrices = pytest.mark.parametrize("shape", [(m, c) for m in ROWS for c in CHANNELS if m * c < 2e7], ids=str)


def check_matmul(op, args):
    """Compare cuda, which takes no scratch, with the definition; twice."""
    expected = run(op, "numpy", "float64", rounded(args, "float32"))
    results = [run(op, "cuda", "float32", args) for _ in range(2)]
    for first, second, right in zip(*results, expected, strict=True):
        assert_close(first, right, "matmul", "float32", f"{op}: ")
        same_bits(first, second, op)


def per_channel(rng, channels, count):
    return [rng.normal(size=channels) for _ in range(count)]


def sums(channels):
    return [Out((channels,), np.float64), Out((channels,), np.float64)]


def decided(x, center, scale, shift):
    """x, with outputs that are not so near 0 that ReLU lets one through in float32 and not in float64."""
    return np.where(np.abs((x - center) * scale + shift) < 1e-4, center + (1 - shift) / scale, x)


@matrices
@pytest.mark.parametrize("weighted", [False, True])
def test_batchnorm(rng, shape, weighted):
    x, dy, c = rng.normal(3, 2, shape), rng.normal(size=shape), shape[1]
    w = rng.uniform(0.1, 2, (shape[0], 1)) if weighted else None
    affine, coefficients = per_channel(rng, c, 3), per_channel(rng, c, 3)
    x = decided(x, *affine)
    scratch = Out((64, 3, c), np.float64, scratch=True)
    check("batchnorm.moments", "float32", "reduction", [x, w, scratch, *sums(c)])
    check("batchnorm.apply", "float32", "elementwise", [x, *affine, 0.0, Out(shape)])
    check("batchnorm.backward_reduce", "float32", "reduction", [dy, x, w, *affine, 0.0, scratch, *sums(c)])
    check("batchnorm.backward_apply", "float32", "elementwise", [dy, x, w, *affine, 0.0, *coefficients, Out(shape)])


@pytest.mark.parametrize("shape", [(2, 1, 5, 3), (9, 33, 30, 17), (3, 57, 56, 130), (64, 56, 56, 64)], ids=str)
def test_batchnorm_with_a_max_pool(rng, shape):
    c = shape[3]
    x, dy = rng.normal(3, 2, shape), rng.normal(size=(shape[0], shape[1] // 2, shape[2] // 2, c))
    affine, coefficients = per_channel(rng, c, 3), per_channel(rng, c, 3)
    x = np.round(x, 2)
    x[:, 1::2] += 0.0025
    x[:, :, 1::2] += 0.005  # no two in a window are so near that rounding decides which one is larger
    x = decided(x, *affine)
    scratch = Out((64, 3, c), np.float64, scratch=True)
    check("batchnorm.apply_max_pool", "float32", "elementwise", [x, *affine, 0.0, Out(dy.shape)])
    check("batchnorm.backward_reduce_max_pool", "float32", "reduction", [dy, x, *affine, 0.0, scratch, *sums(c)])
    check("batchnorm.backward_apply_max_pool", "float32", "elementwise", [dy, x, *affine, 0.0, *coefficients, Out(shape)])


@pytest.mark.parametrize("channels", [1000, 4096])
def test_moments_of_many_channels(rng, channels):
    shape = (1003, channels)
    check(
        "batchnorm.moments",
        "float32",
        "reduction",
        [rng.normal(1e4, 1, shape), None, Out((64, 3, channels), np.float64, scratch=True), *sums(channels)],
    )


@matrices
def test_softmax_cross_entropy(rng, shape):
    labels, rows = rng.integers(0, shape[1], shape[0]), shape[:1]
    args = [rng.normal(0, 3, shape), labels, 0.5, Out(rows, np.float64), Out(rows, np.uint8), Out(shape)]
    check("loss.softmax_cross_entropy", "float32", "reduction", args)


@pytest.mark.parametrize("size", [*ROWS, 33_554_433])
def test_flat_arrays(rng, size):
    x = rng.normal(size=size)
    check("dropout.apply", "float32", "elementwise", [x, np.array([7, 1, 2], np.uint64), 1 << 30, 1.25, 0.0, 0.0, Out((size,))])
    check("dropout.relu_backward", "float32", "elementwise", [x, np.maximum(x, 0), 1.25, Out((size,))])
    check("activation.tanh_forward", "float32", "elementwise", [x, Out((size,))])
    check("array.squares", "float32", "reduction", [x, Out((1,), np.float64)])


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (17, 130), (64, 10), (130, 17), (128, 128)])
@pytest.mark.parametrize(("side", "stride", "pad"), [(5, 1, 1), (31, 2, 0), (28, 1, 1)])
def test_conv2d(rng, inputs, outputs, side, stride, pad):
    out = (side + 2 * pad - 3) // stride + 1
    x, dy = rng.normal(size=(7, side, side, inputs)), rng.normal(size=(7, out, out, outputs))
    weight, bias, geometry = rng.normal(size=(3, 3, inputs, outputs)), rng.normal(size=outputs), (stride, stride, pad, pad, 1, 1)
    scratch = None, False, None
    check_matmul(
        "conv2d.forward", [x, weight, bias, 1.0, *geometry, *scratch, Out(dy.shape), np.empty((1, 3, outputs), np.int64), *sums(outputs)]
    )
    check_matmul("conv2d.backward_data", [dy, weight, *geometry, None, None, None, Out(x.shape)])
    check_matmul("conv2d.backward_weights", [x, dy, *geometry, None, None, Out(weight.shape), Out(bias.shape)])


@pytest.mark.parametrize("shape", [(1, 3136, 128), (31, 17, 130), (1003, 784, 10), (4097, 130, 257)], ids=str)
def test_dense(rng, shape):
    rows, inputs, outputs = shape
    x, dy, weight = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs)), rng.normal(size=(inputs, outputs))
    bias = rng.normal(size=outputs)
    check_matmul("dense.forward", [x, weight, bias, 0.0, Out(dy.shape), None, None, None])
    check_matmul("dense.forward", [x, weight, bias, 1.0, Out(dy.shape), None, *sums(outputs)])
    check_matmul("dense.backward_data", [dy, weight, None, Out(x.shape)])
    check_matmul("dense.backward_weights", [x, dy, Out(weight.shape), Out((outputs,))])
