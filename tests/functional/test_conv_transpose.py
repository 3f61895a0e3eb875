"""Transposed convolution: against the sum that defines it, and as the transpose of conv2d_forward."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError

from .differences import BACKENDS, differences

F = nb.functional
# height, width, inputs, kernel, outputs, options
CASES = {
    "same": (4, 3, 2, (3, 3), 4, {}),
    "same, stride 2": (4, 3, 2, (3, 3), 4, {"stride": 2}),
    "same, stride beyond the kernel": (3, 2, 2, (2, 1), 3, {"stride": 3}),
    "valid, stride 2 by 1": (3, 4, 3, (2, 3), 2, {"stride": (2, 1), "padding": "valid"}),
    "padding 1, output padding 1": (4, 3, 2, (3, 3), 2, {"stride": 2, "padding": 1, "output_padding": 1}),
    "each side": (4, 5, 2, (3, 2), 3, {"padding": ((0, 2), (1, 0)), "output_padding": 0}),
    "dilated": (3, 4, 2, (3, 2), 2, {"stride": 2, "padding": (1, 0), "dilation": (2, 3), "output_padding": (1, 2)}),
    "groups": (4, 3, 4, (3, 3), 6, {"groups": 2, "stride": (1, 2)}),
    "each channel": (4, 3, 3, (3, 3), 3, {"groups": 3, "stride": 2, "padding": 1}),
}
cases = pytest.mark.parametrize("name", CASES)


def arrays(name, rng):
    height, width, inputs, kernel, outputs, options = CASES[name]
    weight = rng.standard_normal((*kernel, outputs // options.get("groups", 1), inputs))
    return rng.standard_normal((2, height, width, inputs)), weight, rng.standard_normal(outputs), options


def by_definition(x, weight, bias, stride=1, padding="same", output_padding=0, dilation=1, groups=1):
    """Each input pixel adds its number times the kernel to the pixels from stride times its position on; padding is cut off."""
    stride, dilation, extra = (np.broadcast_to(value, 2) for value in (stride, dilation, output_padding))
    extent = [(k - 1) * d + 1 for k, d in zip(weight.shape, dilation)]
    if padding == "same":
        sides = [((max(0, e - s)) // 2, None) for e, s in zip(extent, stride)]
        out = [n * s for n, s in zip(x.shape[1:3], stride)]
    else:
        sides = (
            [(0, 0)] * 2
            if padding == "valid"
            else [np.broadcast_to(p, 2) for p in np.broadcast_to(padding, 2)]
            if np.ndim(padding) < 2
            else padding
        )
        out = [(n - 1) * s + e - a - b + o for n, s, e, (a, b), o in zip(x.shape[1:3], stride, extent, sides, extra)]
    outputs, inputs = weight.shape[2] * groups, x.shape[3]
    whole = np.zeros((len(x), *(n + e + s + 9 for n, e, s in zip(out, extent, stride)), outputs))
    for h, w in np.ndindex(x.shape[1:3]):
        for kh, kw in np.ndindex(weight.shape[:2]):
            for g in range(groups):
                i, o = slice(g * inputs // groups, (g + 1) * inputs // groups), slice(g * weight.shape[2], (g + 1) * weight.shape[2])
                whole[:, h * stride[0] + kh * dilation[0], w * stride[1] + kw * dilation[1], o] += x[:, h, w, i] @ weight[kh, kw, :, i].T
    (top, _), (left, _) = sides
    return whole[:, top : top + out[0], left : left + out[1]] + bias


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_forward_is_the_definition(rng, name, backend):
    x, weight, bias, options = arrays(name, rng)
    y, _ = F.conv_transpose2d_forward(x, weight, bias, **options, backend=backend)
    assert_close(y, by_definition(x, weight, bias, **options), "matmul")
    plain, _ = F.conv_transpose2d_forward(x, weight, **options, backend=backend)
    assert_close(plain, y - bias, "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
@cases
def test_gradients(rng, name, backend):
    x, weight, bias, options = arrays(name, rng)
    y, saved = F.conv_transpose2d_forward(x, weight, bias, **options, backend=backend)
    dy = rng.standard_normal(y.shape)
    found = F.conv_transpose2d_backward(dy, saved)
    numeric = differences(lambda *a: F.conv_transpose2d_forward(*a, **options, backend=backend)[0], [x, weight, bias], dy)
    for gradient, expected in zip(found, numeric, strict=True):
        assert_close(gradient, expected, "differences")
    assert F.conv_transpose2d_backward(dy, saved, need_dx=False)[0] is None


@pytest.mark.parametrize("padding", ["same", "valid", 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_is_the_transpose_of_the_convolution(rng, stride, padding):
    """<conv x, y> = <x, transposed y> for all x and y."""
    y = rng.standard_normal((2, 3, 4, 5))
    weight = rng.standard_normal((3, 3, 2, 5))
    transposed, _ = F.conv_transpose2d_forward(y, weight, stride=stride, padding=padding)
    x = rng.standard_normal(transposed.shape)
    forward, _ = F.conv2d_forward(x, weight, stride=stride, padding=padding)
    assert forward.shape == y.shape
    assert_close(np.vdot(forward, y), np.vdot(x, transposed), "matmul")


def test_bad_arguments(rng):
    x, weight = rng.standard_normal((1, 3, 3, 4)), rng.standard_normal((3, 3, 2, 4))
    for options, error, message in (
        ({"output_padding": 1}, ArgumentError, r"output_padding=\(1, 1\) with padding='same'"),
        ({"output_padding": 2, "stride": 2, "padding": 1}, ArgumentError, r"output_padding=\(2, 2\): expected less than the stride"),
        ({"output_padding": -1, "padding": 1}, ArgumentError, "output_padding=-1: expected a whole number, at least 0"),
        ({"padding": 3}, ShapeError, r"a height of 3 with padding \(3, 3\) gives -1 outputs: expected less padding"),
        ({"groups": 3}, ShapeError, "groups=3 does not divide 4 input and 6 output channels: expected a divisor of both"),
    ):
        with pytest.raises(error, match=message):
            F.conv_transpose2d_forward(x, weight, **options)
    with pytest.raises(ShapeError, match=r"x has 4 channels, but weight has shape \(3, 3, 4, 2\): expected \(KH, KW, filters, 4\)"):
        F.conv_transpose2d_forward(x, weight.swapaxes(2, 3))
