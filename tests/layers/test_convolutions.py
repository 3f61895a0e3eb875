"""Convolution layers: the same numbers in other words, their initial weights, and what they refuse."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError

F = nb.functional


def built(layer, shape, **options):
    layer.build(shape, backend="parallel", dtype="float64", seed=1, **options)
    return layer


def test_a_depthwise_layer_is_a_convolution_of_each_channel(rng):
    """Weights in Keras's layout: output c * multiplier + m is channel c by weight[:, :, c, m]."""
    x, layer = rng.normal(size=(2, 5, 6, 3)), built(nb.DepthwiseConv2D(3, stride=2, multiplier=2), (5, 6, 3))
    assert layer.params["weight"].value.shape == (3, 3, 3, 2)
    assert layer.params["bias"].value.shape == (6,)
    y, _ = layer.forward(x)
    for c, m in np.ndindex(3, 2):
        alone, _ = F.conv2d_forward(x[..., c : c + 1], layer.params["weight"].value[:, :, c : c + 1, m : m + 1], stride=2)
        assert_close(y[..., 2 * c + m], alone[..., 0], "matmul")


def test_a_separable_layer_is_two_layers(rng):
    x, layer = rng.normal(size=(2, 5, 6, 3)), built(nb.SeparableConv2D(4, 3, stride=2), (5, 6, 3))
    assert list(layer.params) == ["0.depthwiseconv2d.weight", "1.conv2d.weight", "1.conv2d.bias"]
    depthwise, pointwise = layer.layers
    assert_close(layer.forward(x)[0], pointwise.forward(depthwise.forward(x)[0])[0], "exact")


def test_a_sequence_is_an_image_of_height_1(rng):
    x = rng.normal(size=(2, 9, 3))
    layer = built(nb.Conv1D(4, 3, stride=2, padding=(2, 1), dilation=2), (9, 3))
    weight = layer.params["weight"].value
    assert weight.shape == (3, 3, 4)
    y, _ = F.conv2d_forward(x[:, None], weight[None], stride=(1, 2), padding=((0, 0), (2, 1)), dilation=(1, 2))
    assert_close(layer.forward(x)[0], y[:, 0], "exact")
    enlarged, transposed = built(nb.ConvTranspose1D(4, 3, stride=2, output_padding=1, padding="valid"), (9, 3)), None
    assert enlarged.params["weight"].value.shape == (3, 4, 3)
    transposed, _ = F.conv_transpose2d_forward(
        x[:, None], enlarged.params["weight"].value[None], stride=(1, 2), padding="valid", output_padding=(0, 1)
    )
    assert_close(enlarged.forward(x)[0], transposed[:, 0], "exact")


def test_a_causal_layer_looks_back_only(rng):
    x, layer = rng.normal(size=(1, 8, 2)), built(nb.Conv1D(3, 3, padding="causal", dilation=2), (8, 2))
    y, _ = layer.forward(x)
    assert y.shape == (1, 8, 3)
    x[0, 5] = np.nan
    seen = np.isnan(layer.forward(x)[0][0]).all(axis=1)
    assert seen.tolist() == [False] * 5 + [True, False, True]


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_padding_modes_are_numpys(rng, mode):
    x = rng.normal(size=(2, 5, 4, 3))
    layer = built(nb.Conv2D(4, 3, padding=((2, 1), (0, 1)), padding_mode=mode), (5, 4, 3))
    padded = np.pad(x, ((0, 0), (2, 1), (0, 1), (0, 0)), mode)
    y, _ = F.conv2d_forward(padded, layer.params["weight"].value, padding="valid")
    assert_close(layer.forward(x)[0], y, "exact")


@pytest.mark.parametrize(
    ("make", "shape", "fan_in"),
    [
        (lambda: nb.Conv2D(64, 3, groups=4, use_bias=False), (4, 4, 64), 9 * 16),
        (lambda: nb.DepthwiseConv2D(5, use_bias=False, multiplier=4), (4, 4, 64), 25),
        (lambda: nb.Conv1D(128, 7, use_bias=False), (8, 32), 7 * 32),
        (lambda: nb.ConvTranspose2D(32, 3, use_bias=False), (4, 4, 96), 9 * 96),
        (lambda: nb.ConvTranspose2D(64, 3, groups=2, use_bias=False), (4, 4, 96), 9 * 48),
    ],
)
def test_initial_weights_have_the_variance_of_their_fan_in(make, shape, fan_in):
    """He's: 2 / the number of inputs that each output sees."""
    layer = built(make(), shape)
    assert np.var(layer.params["weight"].value) == pytest.approx(2 / fan_in, rel=0.15)


def test_tensorflows_same_and_pytorchs_padding_differ_at_stride_2(rng):
    """The docstring's example: on even sizes TensorFlow pads the bottom and right alone."""
    x, weight = rng.normal(size=(1, 6, 6, 2)), rng.normal(size=(3, 3, 2, 3))
    same, _ = F.conv2d_forward(x, weight, stride=2)
    sides, _ = F.conv2d_forward(x, weight, stride=2, padding=((0, 1), (0, 1)))
    pytorch, _ = F.conv2d_forward(x, weight, stride=2, padding=1)
    assert_close(same, sides, "exact")
    assert same.shape == pytorch.shape
    assert np.abs(same - pytorch).max() > 0.1


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: nb.Conv2D(4, 3, groups=2),
            (5, 5, 3),
            "groups=2 does not divide 3 input and 4 output channels: expected a divisor of both",
        ),
        (lambda: nb.Conv2D(3, 3, groups=2), (5, 5, 4), "groups=2 does not divide 4 input and 3 output channels"),
        (lambda: nb.Conv2D(4, 3, dilation=6), (5, 5, 3), "a dilation of 6 is larger than the height of the image, 5: expected at most 5"),
        (lambda: nb.Conv2D(4, 3, padding=5, padding_mode="reflect"), (5, 5, 3), "mirror|reflect"),
        (lambda: nb.Conv1D(4, 9, padding="valid"), (8, 3), "a window of width 9 does not fit an image of width 8"),
        (lambda: nb.Conv1D(4, 3), (5, 5, 3), r"expected sequences \(L, C\); for images use Conv2D"),
        (lambda: nb.ConvTranspose1D(4, 3), (5, 5, 3), r"expected sequences \(L, C\)"),
        (lambda: nb.DepthwiseConv2D(3), (5, 3), r"expected images \(H, W, C\)"),
    ],
)
def test_shapes_that_do_not_fit(make, shape, message):
    layer = make()
    with pytest.raises(ShapeError, match=message):
        layer.build(shape)
    assert layer.input_shape is None
    assert not layer.params


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nb.Conv2D(4, 3, groups=0), "groups=0: expected a whole number, at least 1"),
        (lambda: nb.Conv2D(4, 3, dilation=(1, 0)), "dilation="),
        (lambda: nb.Conv2D(4, 3, padding_mode="mirror"), "unknown padding_mode 'mirror'"),
        (lambda: nb.Conv2D(4, 3, padding="causal"), "padding='causal': expected 'same', 'valid', a number of pixels"),
        (
            lambda: nb.Conv1D(4, 3, padding="full"),
            r"padding='full': expected 'same', 'valid', 'causal', a number of steps or \(before, after\)",
        ),
        (lambda: nb.Conv1D(4, 3, padding=((1, 1), (1, 1))), "padding=.*: expected 'same', 'valid', 'causal'"),
        (lambda: nb.Conv1D(4, (3, 3)), r"kernel_size=\(3, 3\): expected a whole number"),
        (lambda: nb.ConvTranspose1D(4, 3, padding=(1, 2, 3)), "padding=.*: expected 'same', 'valid', a number of steps"),
        (lambda: nb.DepthwiseConv2D(3, multiplier=0), "multiplier=0: expected a whole number, at least 1"),
    ],
)
def test_options_that_do_not_fit(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "out"),
    [
        (lambda: nb.Conv2D(4, 3), (6, 5, 3), (3, 3, 4)),
        (lambda: nb.DepthwiseConv2D(3), (6, 5, 3), (3, 3, 3)),
        (lambda: nb.Conv1D(4, 3), (6, 3), (3, 4)),
        (lambda: nb.ConvTranspose2D(4, 3), (6, 5, 3), (12, 10, 4)),
    ],
)
def test_an_attribute_that_is_set_before_build_counts(rng, make, shape, out):
    layer = make()
    layer.stride = 2 if len(shape) == 2 else (2, 2)
    assert built(layer, shape).output_shape == out
    assert layer.forward(rng.normal(size=(2, *shape)))[0].shape == (2, *out)
    layer = make()
    layer.padding = "some"
    with pytest.raises(ArgumentError, match="padding='some': expected 'same', 'valid'"):
        layer.build(shape)
