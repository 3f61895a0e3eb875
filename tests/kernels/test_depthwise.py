import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels.depthwise import chunk_count

from .harness import COMPILED, DTYPES, SIMULATED, Out, check, check_gradient, output_of, run

# (N, H, W, C), (KH, KW), (OH, OW), (stride_h, stride_w, pad_top, pad_left[, dilation_h, dilation_w])
CASES = {
    "one pixel": ((1, 1, 1, 1), (1, 1), (1, 1), (1, 1, 0, 0)),
    "one pixel, 3 by 3": ((1, 1, 1, 2), (3, 3), (1, 1), (1, 1, 1, 1)),
    "same 3 by 3": ((2, 5, 6, 3), (3, 3), (5, 6), (1, 1, 1, 1)),
    "valid 3 by 2": ((1, 5, 9, 5), (3, 2), (3, 8), (1, 1, 0, 0)),
    "stride 2": ((2, 6, 5, 4), (3, 3), (3, 3), (2, 2, 0, 1)),
    "stride 1 by 3, beyond the kernel": ((1, 4, 9, 2), (2, 2), (3, 3), (1, 3, 0, 0)),
    "stride 2 by 1": ((1, 5, 4, 3), (2, 3), (2, 4), (2, 1, 0, 1)),
    "1 by 1 stride 2": ((2, 5, 5, 4), (1, 1), (3, 3), (2, 2, 0, 0)),
    "padding wider than the image": ((1, 2, 1, 2), (5, 5), (2, 1), (1, 1, 2, 2)),
    "padding of 3 around 3 by 3": ((1, 3, 3, 2), (3, 3), (7, 7), (1, 1, 3, 3)),
    "dilated": ((2, 7, 8, 3), (3, 3), (7, 8), (1, 1, 2, 3, 2, 3)),
    "dilated, stride 2": ((1, 8, 9, 2), (3, 2), (3, 4), (2, 2, 1, 0, 3, 2)),
    "dilated beyond the image": ((1, 2, 3, 9), (3, 3), (2, 3), (1, 1, 4, 3, 4, 3)),
}
if not SIMULATED:
    CASES |= {
        "whole vectors": ((2, 5, 11, 32), (3, 3), (5, 11), (1, 1, 1, 1)),
        "whole vectors and a part": ((2, 6, 11, 37), (3, 3), (3, 6), (2, 2, 1, 1)),
        "a group of outputs, and some again": ((2, 5, 13, 32), (3, 3), (5, 13), (1, 1, 1, 1)),
        "groups, stride 2": ((1, 7, 35, 16), (3, 3), (4, 18), (2, 2, 1, 1)),
        "groups, 5 by 5": ((1, 6, 23, 40), (5, 5), (6, 23), (1, 1, 2, 2)),
        "groups, 7 by 7": ((1, 9, 21, 24), (7, 7), (9, 21), (1, 1, 3, 3)),
        "groups, dilated": ((1, 7, 19, 33), (3, 3), (7, 19), (1, 1, 2, 3, 2, 3)),
        "groups, one row": ((2, 1, 40, 24), (1, 3), (1, 38), (1, 1, 0, 0)),
        "three columns, one row": ((2, 1, 40, 24), (1, 3), (1, 40), (1, 1, 0, 1)),
        "three columns, two rows": ((2, 6, 9, 33), (2, 3), (7, 9), (1, 1, 1, 1)),
        "three columns, rows apart": ((1, 9, 9, 16), (3, 3), (5, 9), (1, 1, 0, 1, 2, 1)),
        "three columns, stride 2 by 1": ((2, 9, 7, 35), (3, 3), (5, 7), (2, 1, 1, 1)),
        "three columns, stride 1 by 2": ((2, 5, 8, 35), (3, 3), (5, 5), (1, 2, 1, 2)),
        "three columns, stride 3 by 2": ((1, 10, 10, 17), (3, 3), (4, 4), (3, 2, 1, 0)),
        "three columns, stride 2, no padding": ((2, 7, 9, 16), (3, 3), (3, 4), (2, 2, 0, 0)),
        "three columns, stride 2, padding 3": ((1, 5, 6, 19), (3, 3), (5, 5), (2, 2, 3, 3)),
        "three columns, one pixel": ((2, 1, 1, 16), (3, 3), (1, 1), (1, 1, 1, 1)),
        "three columns, one pixel, padding 3": ((1, 1, 1, 21), (3, 3), (5, 5), (1, 1, 3, 3)),
        "three columns, one pixel, stride 2": ((1, 1, 1, 16), (3, 3), (1, 1), (2, 2, 1, 1)),
        "chunks": ((3, 17, 19, 65), (3, 3), (17, 19), (1, 1, 1, 1)),
        "chunks, stride 2": ((3, 33, 34, 48), (5, 3), (16, 17), (2, 2, 1, 1)),
    }
SMALL = [name for name in CASES if not any(word in name for word in ("chunks", "whole", "group", "columns"))]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
cases = pytest.mark.parametrize("name", CASES)
small = pytest.mark.parametrize("name", SMALL)


class Case:
    """The arrays of one case, and the arguments of its kernels."""

    def __init__(self, name, rng):
        (n, h, w, channels), kernel, (oh, ow), geometry = CASES[name]
        self.geometry = (*geometry, 1, 1)[:6]
        self.x, self.dy = rng.normal(size=(n, h, w, channels)), rng.normal(size=(n, oh, ow, channels))
        self.weight, self.bias = rng.normal(size=(*kernel, channels)), rng.normal(size=channels)
        self.chunks = chunk_count(n, oh, ow, channels, kernel[0] * kernel[1])

    def forward(self, x=None, weight=None, bias=None, moments=False, slope=1.0):
        channels = self.bias.shape
        partials = Out((self.chunks if moments else 0, 3, *channels), np.float64, scratch=True)
        sums = Out(channels, np.float64, scratch=not moments)
        arrays = self.x if x is None else x, self.weight if weight is None else weight, self.bias if bias is None else bias
        return [*arrays, slope, *self.geometry, Out(self.dy.shape), partials, sums, sums]

    def backward_data(self):
        return [self.dy, self.weight, *self.geometry, Out(self.x.shape)]

    def backward_weights(self, hide_weight=False, hide_bias=False):
        taps, channels = self.weight[..., 0].size, self.bias.size
        partials = Out((self.chunks, taps + 1, channels), np.float64, scratch=True)
        results = Out(self.weight.shape, scratch=hide_weight), Out(self.bias.shape, scratch=hide_bias)
        return [self.x, self.dy, *self.geometry, partials, *results]


def test_cases_make_several_chunks(rng):
    for name in CASES:
        if name.startswith("chunks"):
            assert Case(name, rng).chunks > 1, name


@dtypes
@cases
def test_forward(rng, dtype, name):
    check("depthwise.forward", dtype, "matmul", Case(name, rng).forward())


@pytest.mark.parametrize("slope", [0.0, 0.1])
@dtypes
@cases
def test_forward_with_an_activation_and_moments(rng, dtype, name, slope):
    """Moments are those of the activated numbers; y has the same bits as without them."""
    case = Case(name, rng)
    check("depthwise.forward", dtype, "matmul", case.forward(slope=slope, moments=True))
    plain = run("depthwise.forward", COMPILED[-1], dtype, case.forward(slope=slope))
    assert_close(run("depthwise.forward", COMPILED[-1], dtype, case.forward(slope=slope, moments=True))[0], plain[0], "exact")


@dtypes
@cases
def test_backward_data(rng, dtype, name):
    check("depthwise.backward_data", dtype, "matmul", Case(name, rng).backward_data())


@dtypes
@cases
def test_backward_weights(rng, dtype, name):
    check("depthwise.backward_weights", dtype, "matmul", Case(name, rng).backward_weights())


@small
def test_backward_weights_without_bias(rng, name):
    """A dbias of shape (0,) is not computed; dweight has the same bits."""
    args = Case(name, rng).backward_weights()
    for backend in COMPILED:
        expected, _ = run("depthwise.backward_weights", backend, "float32", args)
        alone, none = run("depthwise.backward_weights", backend, "float32", [*args[:-1], Out((0,))])
        assert_close(alone, expected, "exact")
        assert none.shape == (0,)


@small
def test_forward_is_the_formula(rng, name):
    """The sum of the contract, one product at a time."""
    case = Case(name, rng)
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = case.geometry
    expected = np.tile(case.bias, (*case.dy.shape[:3], 1))
    for n, oh, ow in np.ndindex(case.dy.shape[:3]):
        for kh, kw in np.ndindex(case.weight.shape[:2]):
            h, w = oh * stride_h + kh * dilation_h - pad_top, ow * stride_w + kw * dilation_w - pad_left
            if 0 <= h < case.x.shape[1] and 0 <= w < case.x.shape[2]:
                expected[n, oh, ow] += case.x[n, h, w] * case.weight[kh, kw]
    assert_close(output_of("depthwise.forward", case.forward()), expected, "matmul")


@small
def test_gradient_of_x(rng, name):
    case = Case(name, rng)
    args = case.backward_data()
    check_gradient(lambda x: output_of("depthwise.forward", case.forward(x=x)), "depthwise.backward_data", args, case.x, case.dy)


@small
def test_gradient_of_weight_and_bias(rng, name):
    case = Case(name, rng)

    def of_weight(weight):
        return output_of("depthwise.forward", case.forward(weight=weight))

    def of_bias(bias):
        return output_of("depthwise.forward", case.forward(bias=bias))

    check_gradient(of_weight, "depthwise.backward_weights", case.backward_weights(hide_bias=True), case.weight, case.dy)
    check_gradient(of_bias, "depthwise.backward_weights", case.backward_weights(hide_weight=True), case.bias, case.dy)


@np.errstate(all="ignore")  # of the definition
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@dtypes
@pytest.mark.parametrize("name", [name for name in CASES if name in ("same 3 by 3", "stride 2", "dilated") or "columns" in name])
def test_what_is_not_finite_reaches_only_results_that_depend_on_it(rng, dtype, name, bad):
    case = Case(name, rng)
    case.x[-1, 0, -1, -1] = case.x[0, -1, -1, 0] = bad
    check("depthwise.forward", dtype, "matmul", case.forward(slope=0.0))
    check("depthwise.backward_weights", dtype, "matmul", case.backward_weights())
    case.dy[-1, 0, -1, -1] = case.weight[0, 0, 0] = bad
    check("depthwise.backward_data", dtype, "matmul", case.backward_data())
