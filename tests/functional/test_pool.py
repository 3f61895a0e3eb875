"""Pooling options: padding of each side, ceil_mode and padding that counts; and the layers of sequences."""

import itertools

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError

from .differences import BACKENDS, differences

F = nb.functional
NO = ((0, 0), (0, 0))
# size, stride, padding of each side
GEOMETRIES = [
    (2, None, NO),
    (3, 2, ((1, 1), (1, 1))),
    ((2, 3), (3, 2), ((0, 1), (2, 0))),
    (3, (1, 4), ((2, 0), (0, 2))),
    ((4, 2), 3, ((1, 2), (1, 0))),
]
geometries = pytest.mark.parametrize(("size", "stride", "padding"), GEOMETRIES)
ceil = pytest.mark.parametrize("ceil", [False, True])


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def windows(length, size, stride, padding, ceil):
    """The start and the end of each window along one axis, in pixels of the image: not clipped to it."""
    before, after = padding
    starts = range(-before, length + after - (0 if ceil else size - 1), stride)
    starts = [start for start in starts if start < length]
    if ceil:  # only as many as are needed to reach the end
        starts = starts[: -(-(length + before + after - size) // stride) + 1]
    return [(start, start + size) for start in starts]


def by_hand(x, size, stride, padding, ceil, reduce):
    """y, from a function of the pixels of each window and of how many of its pixels lie in the padded image."""
    (size_h, size_w), (stride_h, stride_w) = both(size), both(size if stride is None else stride)
    rows = windows(x.shape[1], size_h, stride_h, padding[0], ceil)
    columns = windows(x.shape[2], size_w, stride_w, padding[1], ceil)
    y = np.empty((len(x), len(rows), len(columns), x.shape[3]))
    for (i, (top, bottom)), (j, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
        inside = x[:, max(top, 0) : bottom, max(left, 0) : right]
        count = (min(bottom, x.shape[1] + padding[0][1]) - top) * (min(right, x.shape[2] + padding[1][1]) - left)
        y[:, i, j] = reduce(inside, count)
    return y


KINDS = {
    "max": (F.max_pool2d_forward, F.max_pool2d_backward, {}, lambda inside, count: inside.max(axis=(1, 2))),
    "mean": (F.avg_pool2d_forward, F.avg_pool2d_backward, {}, lambda inside, count: inside.mean(axis=(1, 2))),
    "mean with padding": (
        F.avg_pool2d_forward,
        F.avg_pool2d_backward,
        {"count_include_pad": True},
        lambda inside, count: inside.sum(axis=(1, 2)) / count,
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@ceil
@geometries
def test_options(rng, size, stride, padding, ceil, kind, backend):
    forward, backward, options, reduce = KINDS[kind]
    x = rng.permutation(2 * 8 * 7 * 3).reshape(2, 8, 7, 3) / 8 - 20
    y, saved = forward(x, size, stride, padding, ceil_mode=ceil, **options, backend=backend)
    assert_close(y, by_hand(x, size, stride, padding, ceil, reduce), "elementwise")
    dy = rng.standard_normal(y.shape)
    (wanted,) = differences(lambda a: by_hand(a, size, stride, padding, ceil, reduce), [x], dy)
    assert_close(backward(dy, saved), wanted, "differences")


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_padding_that_counts(rng, backend):
    x = rng.standard_normal((1, 5, 4, 2))
    y, _ = F.avg_pool2d_forward(x, 3, 2, "same", count_include_pad=True, backend=backend)
    wanted, _ = F.avg_pool2d_forward(x, 3, 2, ((1, 1), (0, 1)), count_include_pad=True, backend="numpy")
    assert_close(y, wanted, "elementwise")
    assert_close(y[:, 0, 0], x[:, :2, :3].sum(axis=(1, 2)) / 9, "elementwise")


def test_a_last_window_in_the_padding_is_left_out():
    """PyTorch's rule: ceil would give 3 windows, but the third would start behind the image."""
    assert F.max_pool2d_forward(np.ones((1, 4, 4, 1)), 2, 3, 1, ceil_mode=True)[0].shape == (1, 2, 2, 1)
    assert F.max_pool2d_forward(np.ones((1, 5, 5, 1)), 2, 2, ceil_mode=True)[0].shape == (1, 3, 3, 1)
    assert F.max_pool2d_forward(np.ones((1, 5, 5, 1)), 2, 2)[0].shape == (1, 2, 2, 1)


@ceil
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((4, 3), (3, 2), (2, 1)), (5, 3, 2), (2, 3, 1)])
def test_against_torch(rng, size, stride, padding, ceil):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 9, 8, 3))
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    for name in ("max", "avg"):
        for counts in (False, True)[: 1 + (name == "avg")]:
            extra = {"count_include_pad": counts} if name == "avg" else {}
            theirs = getattr(torch.nn.functional, f"{name}_pool2d")(image, size, stride, padding, ceil_mode=ceil, **extra)
            y, saved = getattr(F, f"{name}_pool2d_forward")(x, size, stride, padding, ceil_mode=ceil, **extra)
            assert_close(y, theirs.detach().numpy().transpose(0, 2, 3, 1), "elementwise")
            dy = rng.standard_normal(y.shape)
            (gradient,) = torch.autograd.grad(theirs, image, torch.tensor(dy.transpose(0, 3, 1, 2)))
            assert_close(getattr(F, f"{name}_pool2d_backward")(dy, saved), gradient.numpy().transpose(0, 2, 3, 1), "elementwise")


# ------------------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize(
    ("make", "pair"),
    [
        (lambda: nb.MaxPool1D(3, 2, (0, 1)), lambda: nb.MaxPool2D((1, 3), (1, 2), ((0, 0), (0, 1)))),
        (lambda: nb.MaxPool1D(2, padding="same"), lambda: nb.MaxPool2D((1, 2), padding="same")),
        (lambda: nb.AvgPool1D(3, 2, 1, count_include_pad=True), lambda: nb.AvgPool2D((1, 3), (1, 2), (0, 1), count_include_pad=True)),
        (lambda: nb.AvgPool1D(3, ceil_mode=True), lambda: nb.AvgPool2D((1, 3), ceil_mode=True)),
        (lambda: nb.GlobalMaxPool1D(), lambda: nb.GlobalMaxPool2D()),
        (lambda: nb.GlobalAvgPool1D(), lambda: nb.GlobalAvgPool2D()),
    ],
)
def test_layers_of_sequences_are_those_of_images(rng, make, pair):
    x, results = rng.standard_normal((3, 8, 5)), []
    for layer, values in ((make(), x), (pair(), x[:, None])):
        layer.build(values.shape[1:], backend="serial", dtype="float64")
        y, saved = layer.forward(values, train=True)
        assert y.shape[1:] == layer.output_shape
        results.append([y, layer.backward(y**2, saved)])
    for line, image in zip(*results, strict=True):
        assert_close(line, image.reshape(line.shape), "exact")
    assert results[0][1].shape == x.shape


def test_global_maxima_keep_nan(rng):
    x = rng.standard_normal((2, 4, 3, 5))
    x[1, 2, 1, 3] = np.nan
    layer = nb.GlobalMaxPool2D(keepdims=True)
    assert layer.build((4, 3, 5), backend="serial", dtype="float64") == (1, 1, 5)
    y, _ = layer.forward(x)
    assert_close(y, x.max(axis=(1, 2), keepdims=True), "exact")
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 0, 0, 3]]


def test_reprs():
    assert repr(nb.MaxPool1D(3, padding=(0, 1))) == "nb.MaxPool1D(size=3, padding=(0, 1))"
    assert repr(nb.AvgPool2D(2, count_include_pad=True)) == "nb.AvgPool2D(count_include_pad=True)"


def test_a_pool_with_ceil_mode_is_not_fused(rng):
    """The fused pass of a batch norm leaves out the last row of an odd image."""
    x = rng.standard_normal((2, 5, 5, 3))
    outputs = []
    for fuse in (False, True):
        model = nb.Sequential([nb.BatchNorm(), nb.MaxPool2D(2, ceil_mode=True)])
        assert model.build((5, 5, 3), backend="serial", dtype="float64", fuse=fuse) == (3, 3, 3)
        outputs.append(model.forward(x, train=True)[0])
    assert_close(*outputs, "exact")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.max_pool2d_forward(x, 2, padding=((0, 2), (0, 0))), "some windows would hold no pixel; expected less than the window"),
        (lambda x: F.max_pool2d_forward(x, 2, padding=(0, 1, 2)), r"padding=\(0, 1, 2\): expected 'same', 'valid'"),
        (lambda x: F.max_pool2d_forward(x, 2, padding=-1), "padding=-1"),
        (lambda x: F.avg_pool2d_forward(x, 9, ceil_mode=True), "does not fit an image of height 8"),
        (lambda x: nb.MaxPool1D((2, 2)), r"size=\(2, 2\): expected a whole number"),
        (lambda x: nb.MaxPool1D(2, (1, 2)), r"stride=\(1, 2\): expected a whole number"),
        (
            lambda x: nb.AvgPool1D(2, padding="causal"),
            r"padding='causal': expected 'same', 'valid', a number of steps or ",
        ),
        (lambda x: nb.MaxPool1D(2).build((8, 8, 3)), r"MaxPool1D got inputs of shape \(8, 8, 3\), expected sequences \(L, C\)"),
        (lambda x: nb.GlobalMaxPool1D().build((8,)), r"GlobalMaxPool1D got inputs of shape \(8,\), expected sequences"),
        (lambda x: nb.GlobalMaxPool2D().build((8, 3)), r"GlobalMaxPool2D got inputs of shape \(8, 3\), expected images"),
        (lambda x: nb.MaxPool2D(2, dilation=2), "unexpected keyword argument 'dilation': expected size, stride, padding, ceil_mode"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(nb.NbnetError, match=message):
        call(np.ones((2, 8, 8, 3)))


def test_gradients_of_another_shape_are_refused(rng):
    layer = nb.MaxPool1D(2)
    layer.build((8, 3), backend="serial", dtype="float64")
    y, saved = layer.forward(rng.standard_normal((2, 8, 3)), train=True)
    with pytest.raises(ShapeError, match="dy has shape"):
        layer.backward(y[:, :-1], saved)
    with pytest.raises(ArgumentError, match="saved is None"):
        layer.backward(y, None)
