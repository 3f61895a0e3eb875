"""Padding, cropping, upsampling and adaptive pooling on plain arrays, and the tables of taps under them."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError

from .differences import BACKENDS, differences

F = nb.functional
backends = pytest.mark.parametrize("backend", BACKENDS)
NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def check(rng, forward, backward, x, wanted=None, kind="exact"):
    """One call: the result, and the gradient by differences."""
    y, saved = forward(x)
    if wanted is not None:
        assert_close(y, wanted, kind)
    dy = rng.standard_normal(y.shape)
    (numeric,) = differences(lambda a: forward(a)[0], [x], dy)
    assert_close(backward(dy, saved), numeric, "differences")
    return y


@backends
@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("padding", [0, 2, (1, 3), ((0, 2), (3, 1))])
def test_pad2d(rng, backend, mode, padding):
    x = rng.standard_normal((2, 3, 4, 3))
    (top, bottom), (left, right) = {0: ((0, 0), (0, 0)), 2: ((2, 2), (2, 2)), (1, 3): ((1, 1), (3, 3))}.get(padding, padding)
    wanted = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), NUMPY_MODES[mode])
    check(rng, lambda a: F.pad2d_forward(a, padding, mode, backend=backend), F.pad2d_backward, x, wanted)


@backends
@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_negative_padding_crops(rng, backend, mode):
    x = rng.standard_normal((2, 5, 4, 3))
    wanted = np.pad(x, ((0, 0), (0, 2), (1, 0), (0, 0)), NUMPY_MODES[mode])[:, 1:, :-2]
    check(rng, lambda a: F.pad2d_forward(a, ((-1, 2), (1, -2)), mode, backend=backend), F.pad2d_backward, x, wanted)


@backends
@pytest.mark.parametrize("factor", [1, 2, (3, 1)])
def test_nearest(rng, backend, factor):
    x = rng.standard_normal((2, 3, 4, 3))
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    wanted = x.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
    check(rng, lambda a: F.upsample2d_forward(a, factor, backend=backend), F.upsample2d_backward, x, wanted)


def line(values, outputs, scale):
    """Linear interpolation at the centres of the outputs' pixels, the edge repeated."""
    at = (np.arange(outputs) + 0.5) / scale - 0.5
    return np.apply_along_axis(lambda row: np.interp(at, np.arange(len(row)), row), 0, values)


@backends
@pytest.mark.parametrize("factor", [1, 2, (3, 4), (1, 5)])
def test_bilinear(rng, backend, factor):
    x = rng.standard_normal((2, 3, 4, 3))
    height, width = factor if isinstance(factor, tuple) else (factor, factor)
    wanted = np.moveaxis(line(np.moveaxis(x, 1, 0), 3 * height, height), 0, 1)
    wanted = np.moveaxis(line(np.moveaxis(wanted, 2, 0), 4 * width, width), 0, 2)
    y = check(rng, lambda a: F.upsample2d_forward(a, factor, "bilinear", backend=backend), F.upsample2d_backward, x, wanted, "elementwise")
    assert_close(y[:, [0, 0, -1, -1], [0, -1, 0, -1]], x[:, [0, 0, -1, -1], [0, -1, 0, -1]], "exact")


@backends
@pytest.mark.parametrize("size", [1, (2, 3), (3, 5), (5, 7), (11, 2)])
def test_adaptive_average(rng, backend, size):
    x = rng.standard_normal((2, 5, 7, 3))
    out_h, out_w = size if isinstance(size, tuple) else (size, size)
    wanted = np.empty((2, out_h, out_w, 3))
    for i, j in np.ndindex(out_h, out_w):
        rows = slice(i * 5 // out_h, -(-(i + 1) * 5 // out_h))
        wanted[:, i, j] = x[:, rows, j * 7 // out_w : -(-(j + 1) * 7 // out_w)].mean(axis=(1, 2))
    check(rng, lambda a: F.adaptive_avg_pool2d_forward(a, size, backend=backend), F.adaptive_avg_pool2d_backward, x, wanted, "elementwise")


@backends
def test_taps_in_any_order(rng, backend):
    """Of three inputs: the last, nothing, a mean of two, and one twice; -1 may stand anywhere."""
    x = rng.standard_normal((2, 3, 3, 2))
    index, weight = [[-1, 2], [-1, -1], [0, 1], [1, 1]], [[9, 1], [9, 9], [0.5, 0.5], [1, -3]]
    matrix = np.array([[0, 0, 1], [0, 0, 0], [0.5, 0.5, 0], [0, -2, 0]])
    rows, columns = F.Taps(index, weight, 3), F.Taps([[2], [-1]], [[2], [1]], 3)
    wanted = np.einsum("oh,pw,nhwc->nopc", matrix, np.array([[0, 0, 2], [0, 0, 0]]), x)
    check(rng, lambda a: F.resample_forward(a, rows, columns, backend=backend), F.resample_backward, x, wanted, "elementwise")
    assert len(rows) == 4
    assert len(rows.transposed) == 3


@backends
def test_nan_does_not_leak(rng, backend):
    """Zeros around NaN are zeros; a pixel of weight 0 is no tap; and the gradient of a cropped pixel is 0 whatever dy holds."""
    x = np.full((1, 2, 2, 1), np.nan)
    y, _ = F.pad2d_forward(x, 1, backend=backend)
    assert np.array_equal(np.isnan(y[0, :, :, 0]), np.pad(np.ones((2, 2), bool), 1))
    x = np.array([1.0, 2, np.nan]).reshape(1, 1, 3, 1)
    y, _ = F.upsample2d_forward(x, (1, 3), "bilinear", backend=backend)
    assert np.flatnonzero(np.isnan(y)).tolist() == [5, 6, 7, 8]
    y, saved = F.pad2d_forward(x, ((0, 0), (0, -1)), backend=backend)
    assert F.pad2d_backward(np.full(y.shape, np.nan), saved)[0, 0, 2, 0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.pad2d_forward(x, 4, "reflect"), "an image of height 3 reflects up to 2 pixels, got 4: use mode='edge'"),
        (lambda x: F.pad2d_forward(x, ((0, 0), (-2, -2))), "an image of width 4 with -2 and -2 more pixels has none left"),
        (lambda x: F.pad2d_forward(x, 1, "mirror"), "unknown padding mode 'mirror'"),
        (lambda x: F.pad2d_forward(x, 1.0), r"padding=1\.0: expected a number of pixels, \(height, width\) or "),
        (lambda x: F.pad2d_forward(x, True), "padding=True"),
        (lambda x: F.pad2d_forward(x, (1, 2, 3)), r"padding=\(1, 2, 3\)"),
        (lambda x: F.pad2d_forward(x, ((1, 2), (3,))), r"padding=\(\(1, 2\), \(3,\)\)"),
        (lambda x: F.pad2d_forward(x[0], 1), "expected 4 axes"),
        (lambda x: F.upsample2d_forward(x, 0), "factor=0"),
        (lambda x: F.upsample2d_forward(x, 2, "cubic"), "unknown upsampling mode 'cubic'"),
        (lambda x: F.adaptive_avg_pool2d_forward(x, (2, 0)), "output_size="),
        (lambda x: F.resample_forward(x, F.Taps([[0]], [[1]], 3), F.Taps([[0]], [[1]], 3)), r"expected \(N, 3, 3, C\), which the taps"),
        (lambda x: F.Taps([[3]], [[1]], 3), "index holds int64 from 3 to 3, expected whole numbers from -1 to 2"),
        (lambda x: F.Taps([[-2]], [[1]], 3), "from -2 to -2"),
        (lambda x: F.Taps([[0.0]], [[1]], 3), "index holds float64"),
        (lambda x: F.Taps([0, 1], [1, 1], 3), r"index has shape \(2,\) and weight \(2,\), expected both \(outputs, taps\)"),
        (lambda x: F.Taps([[0, 1]], [[1]], 3), r"weight \(1, 1\)"),
        (lambda x: F.pad2d_backward(x, F.pad2d_forward(x, 1)[1]), r"dy has shape .* expected \(2, 5, 6, 3\)"),
        (lambda x: F.pad2d_backward(x, None), "saved is None"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        call(np.ones((2, 3, 4, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nb.Pad2D(-1), r"padding=-1: expected a number of pixels, \(height, width\)"),
        (lambda: nb.Pad2D(1, "mirror"), "unknown padding mode 'mirror'"),
        (lambda: nb.Crop2D(((0, -1), (0, 0))), r"cropping=\(\(0, -1\), \(0, 0\)\): expected a number of pixels"),
        (lambda: nb.Crop2D(1).build((2, 5, 1)), "an image of height 2 with -1 and -1 more pixels has none left"),
        (lambda: nb.Pad2D(3, "reflect").build((3, 5, 1)), "reflects up to 2 pixels"),
        (lambda: nb.UpSample2D(2, "cubic"), "unknown upsampling mode"),
        (lambda: nb.UpSample2D(0), "factor=0"),
        (lambda: nb.AdaptiveAvgPool2D(0), "output_size=0"),
        (lambda: nb.ZeroPad2D(1).build((5, 3)), r"ZeroPad2D got inputs of shape \(5, 3\), expected images"),
    ],
)
def test_bad_layers(make, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        make()


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_against_torch(rng, mode):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 5, 4, 3))
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    calls = [
        (F.upsample2d_forward(x, (2, 3), mode), torch.nn.functional.interpolate(image, scale_factor=(2, 3), mode=mode)),
        (F.adaptive_avg_pool2d_forward(x, (3, 7)), torch.nn.functional.adaptive_avg_pool2d(image, (3, 7))),
    ]
    for (y, saved), theirs in calls:
        assert_close(y, theirs.detach().numpy().transpose(0, 2, 3, 1), "elementwise")
        dy = rng.standard_normal(y.shape)
        (gradient,) = torch.autograd.grad(theirs, image, torch.tensor(dy.transpose(0, 3, 1, 2)))
        assert_close(F.resample_backward(dy, saved), gradient.numpy().transpose(0, 2, 3, 1), "elementwise")
