import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import conv2d, load
from nbnet.kernels.conv2d import cpu

from .harness import COMPILED, DTYPES, SIMULATED, Out, check, check_gradient, not_simulated, output_of, run

# (N, H, W, I), (KH, KW, O), (OH, OW), (stride_h, stride_w, pad_top, pad_left[, dilation_h, dilation_w])[, groups]
CASES = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1), (1, 1), (1, 1, 0, 0)),
    "one pixel, 3 by 3": ((1, 1, 1, 1), (3, 3, 2), (1, 1), (1, 1, 1, 1)),
    "same 3 by 3": ((2, 5, 6, 3), (3, 3, 4), (5, 6), (1, 1, 1, 1)),
    "valid 3 by 2": ((1, 5, 6, 3), (3, 2, 5), (3, 5), (1, 1, 0, 0)),
    "stride 2, same": ((2, 6, 5, 1), (3, 3, 3), (3, 3), (2, 2, 0, 1)),
    "stride 1 by 3, beyond the kernel": ((1, 4, 9, 2), (2, 2, 3), (3, 3), (1, 3, 0, 0)),
    "1 by 1 stride 2": ((2, 5, 5, 4), (1, 1, 3), (3, 3), (2, 2, 0, 0)),
    "padding wider than the image": ((1, 2, 1, 2), (5, 5, 2), (2, 1), (1, 1, 2, 2)),
    "padding of 3 around 3 by 3": ((1, 3, 3, 2), (3, 3, 2), (7, 7), (1, 1, 3, 3)),
    "chunks": ((3, 17, 19, 17), (3, 3, 33), (17, 19), (1, 1, 1, 1)),
    "chunks, stride 2": ((3, 33, 34, 32), (3, 3, 48), (17, 17), (2, 2, 1, 0)),
    "chunks, stride 2, blocks of pixels": ((2, 5, 27, 64), (5, 5, 64), (1, 12), (2, 2, 0, 0)),
    "chunks, one channel": ((4, 40, 41, 1), (5, 5, 40), (40, 41), (1, 1, 2, 2)),
    "chunks, strips of an image": ((2, 40, 20, 64), (5, 3, 70), (40, 20), (1, 1, 2, 1)),
    "minimal filtering": ((2, 5, 6, 16), (3, 3, 18), (5, 6), (1, 1, 1, 1)),
    "minimal filtering, valid": ((1, 4, 7, 17), (3, 3, 16), (2, 5), (1, 1, 0, 0)),
    "minimal filtering, padding of 2": ((2, 3, 2, 16), (3, 3, 16), (5, 4), (1, 1, 2, 2)),
    "chunks, minimal filtering": ((3, 40, 21, 33), (3, 3, 70), (40, 21), (1, 1, 1, 1)),
    "chunks, minimal filtering, all kinds of tiles": ((5, 14, 10, 17), (3, 3, 33), (14, 10), (1, 1, 1, 1)),
    "many weights, minimal filtering": ((1, 5, 6, 80), (3, 3, 96), (5, 6), (1, 1, 1, 1)),
    "many weights": ((2, 5, 6, 48), (5, 5, 60), (5, 6), (1, 1, 2, 2)),
    "many weights, minimal filtering, panels": ((2, 5, 6, 80), (3, 3, 128), (5, 6), (1, 1, 1, 1)),
    "many weights, minimal filtering, groups": ((1, 3, 4, 192), (3, 3, 96), (3, 4), (1, 1, 1, 1), 2),
    "many weights, groups": ((1, 3, 4, 80), (5, 5, 96), (3, 4), (1, 1, 2, 2), 2),
    "many weights, stride 2": ((1, 5, 6, 80), (3, 3, 96), (3, 3), (2, 2, 1, 1)),
    "many weights, minimal filtering, lines": ((1, 1, 25, 80), (1, 9, 96), (1, 25), (1, 1, 0, 4)),
    "many weights, minimal filtering, lines, panels": ((2, 1, 25, 64), (1, 9, 128), (1, 25), (1, 1, 0, 4)),
    "2 taps": ((1, 1, 25, 16), (1, 2, 16), (1, 25), (1, 1, 0, 0)),
    "3 taps of a short line": ((1, 1, 23, 16), (1, 3, 16), (1, 23), (1, 1, 0, 1)),
    "4 taps": ((1, 1, 25, 16), (1, 4, 16), (1, 25), (1, 1, 0, 1)),
    "minimal filtering, lines, 3 taps, causal": ((2, 1, 25, 17), (1, 3, 16), (1, 25), (1, 1, 0, 2)),
    "minimal filtering, lines, 5 taps, valid": ((1, 1, 29, 16), (1, 5, 19), (1, 25), (1, 1, 0, 0)),
    "minimal filtering, lines, 6 taps, rows of padding": ((1, 2, 24, 16), (1, 6, 16), (4, 24), (1, 1, 1, 3)),
    "minimal filtering, lines, 7 taps, padding of 6": ((1, 1, 20, 16), (1, 7, 16), (1, 26), (1, 1, 0, 6)),
    "minimal filtering, lines, 8 taps, valid": ((1, 1, 33, 16), (1, 8, 16), (1, 26), (1, 1, 0, 0)),
    "minimal filtering, lines, 9 taps": ((2, 1, 25, 16), (1, 9, 18), (1, 25), (1, 1, 0, 4)),
    "minimal filtering, lines, 10 taps, causal": ((1, 1, 24, 18), (1, 10, 16), (1, 24), (1, 1, 0, 9)),
    "minimal filtering, lines, 11 taps": ((2, 1, 26, 16), (1, 11, 16), (1, 26), (1, 1, 0, 5)),
    "chunks, minimal filtering, lines of several blocks": ((3, 1, 401, 33), (1, 9, 70), (1, 401), (1, 1, 0, 4)),
    "chunks, minimal filtering, lines of images": ((2, 24, 40, 33), (1, 5, 40), (24, 40), (1, 1, 0, 2)),
    "1 by 1": ((2, 6, 7, 3), (1, 1, 3), (6, 7), (1, 1, 0, 0)),
    "16 channels, stride 2": ((2, 5, 6, 16), (3, 3, 16), (3, 3), (2, 2, 1, 1)),
    "dilated": ((2, 7, 8, 3), (3, 3, 4), (7, 8), (1, 1, 2, 3, 2, 3)),
    "dilated in height": ((2, 7, 4, 9), (3, 2, 4), (3, 3), (1, 1, 0, 0, 2, 1)),
    "dilated in width, stride 2": ((2, 4, 9, 3), (2, 3, 5), (2, 4), (2, 2, 0, 1, 1, 2)),
    "dilated beyond the image": ((1, 2, 3, 9), (3, 3, 2), (2, 3), (1, 1, 4, 3, 4, 3)),
    "groups": ((2, 4, 5, 6), (3, 3, 4), (4, 5), (1, 1, 1, 1), 2),
    "groups of many channels": ((1, 3, 4, 22), (3, 2, 40), (3, 3), (1, 1, 1, 0), 2),
    "groups of one channel": ((2, 4, 3, 3), (3, 3, 6), (4, 3), (1, 1, 1, 1), 3),
    "groups, stride 2": ((2, 5, 6, 20), (3, 3, 8), (3, 3), (2, 2, 1, 1), 2),
    "groups, dilated, stride 2 by 1": ((2, 7, 6, 24), (2, 3, 4), (3, 4), (2, 1, 0, 1, 2, 2), 2),
    "minimal filtering, groups": ((1, 5, 6, 32), (3, 3, 32), (5, 6), (1, 1, 1, 1), 2),
    "minimal filtering, groups, of 17 channels, valid": ((1, 6, 7, 34), (3, 3, 32), (4, 5), (1, 1, 0, 0), 2),
    "many weights, minimal filtering, groups, panels": ((1, 5, 6, 64), (3, 3, 256), (5, 6), (1, 1, 1, 1), 2),
    "chunks, minimal filtering, groups": ((3, 20, 21, 64), (3, 3, 64), (20, 21), (1, 1, 1, 1), 4),
    "groups of 16 and 17 channels": ((1, 4, 5, 32), (3, 3, 34), (4, 5), (1, 1, 1, 1), 2),
    "chunks, groups": ((3, 20, 21, 32), (3, 3, 32), (20, 21), (1, 1, 1, 1), 4),
    "chunks, 1 by 1": ((3, 40, 41, 17), (1, 1, 70), (40, 41), (1, 1, 0, 0)),
    "chunks, 1 by 1, groups": ((3, 40, 41, 32), (1, 1, 64), (40, 41), (1, 1, 0, 0), 2),
    "1 by 1, padding": ((2, 4, 5, 3), (1, 1, 4), (6, 7), (1, 1, 1, 1)),
    "1 by 1, padding below and to the right": ((2, 4, 5, 3), (1, 1, 4), (5, 6), (1, 1, 0, 0)),
    "1 by 1, without the last row and column": ((2, 4, 5, 3), (1, 1, 4), (3, 4), (1, 1, 0, 0)),
    "chunks, groups, dilated, stride 2": ((3, 40, 41, 64), (3, 3, 64), (18, 37), (2, 1, 0, 0, 2, 2), 4),
}
if SIMULATED:
    # CUDA has no minimal filtering: one of its shapes is enough.
    large = "chunks", "filtering, ", "many"
    CASES = {name: case for name, case in CASES.items() if not any(word in name for word in large)} | {
        "tiles": ((2, 4, 5, 8), (3, 3, 20), (4, 5), (1, 1, 1, 1)),
        "wide tiles, stride 2": ((1, 5, 4, 4), (2, 2, 40), (3, 2), (2, 2, 0, 0)),
        "tiles, 1 by 1": ((2, 6, 7, 5), (1, 1, 20), (6, 7), (1, 1, 0, 0)),
        "wide tiles, 1 by 1": ((2, 6, 7, 3), (1, 1, 70), (6, 7), (1, 1, 0, 0)),
    }
SMALL = [name for name in CASES if "chunks" not in name and "many" not in name]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
cases = pytest.mark.parametrize("name", CASES)
small = pytest.mark.parametrize("name", SMALL)


def workspace(sizes):
    """The scratch `packed` and `strips`, for up to three threads."""
    return Out(sizes.packed, scratch=True), Out((3, *sizes.strip), scratch=True)


class Case:
    """The arrays of one case, and the arguments of its kernels."""

    def __init__(self, name, rng):
        (n, h, w, inputs), (kh, kw, outputs), (oh, ow), geometry, *groups = CASES[name]
        self.groups = groups[0] if groups else 1
        self.geometry = (*geometry, 1, 1)[:6]
        self.x, self.dy = rng.normal(size=(n, h, w, inputs)), rng.normal(size=(n, oh, ow, outputs))
        self.weight, self.bias = rng.normal(size=(kh, kw, inputs // self.groups, outputs)), rng.normal(size=outputs)
        self.outputs = outputs
        kernel, stride, dilation = (kh, kw), self.geometry[:2], self.geometry[4:]
        self.sizes = conv2d.scratch(n, oh, ow, outputs, *kernel, *stride, *dilation, inputs, self.groups)
        self.data_sizes = conv2d.backward_data_scratch(n, h, w, inputs, *kernel, *stride, *dilation, outputs, self.groups)
        scatters, depth = conv2d.uses_col2im(inputs // self.groups, *stride), kh * kw * inputs // self.groups
        self.data_chunks = conv2d.col2im_chunks(n, oh, ow, outputs, depth) if scatters else self.data_sizes.chunks

    def forward(self, x=None, weight=None, bias=None, moments=False, slope=1.0):
        count = self.sizes.chunks if moments else 0
        partials, sums = Out((count, 3, self.outputs), np.float64, scratch=True), Out((self.outputs,), np.float64, scratch=not moments)
        arrays = self.x if x is None else x, self.weight if weight is None else weight, self.bias if bias is None else bias
        packed, strips = workspace(self.sizes)
        return [*arrays, slope, *self.geometry, packed, False, strips, Out(self.dy.shape), partials, sums, sums]

    def backward_data(self):
        transposed = Out((self.weight[..., 0, 0].size * (self.outputs // self.groups + 1), self.x.shape[3]), scratch=True)
        return [self.dy, self.weight, *self.geometry, transposed, *workspace(self.data_sizes), Out(self.x.shape)]

    def backward_weights(self, hide_weight=False, hide_bias=False):
        kernel_h, kernel_w, inputs, outputs = self.weight.shape
        parts = conv2d.partial_sums(self.sizes.chunks, self.dy.size // outputs)
        partials = Out((parts, kernel_h * kernel_w * inputs + 1, outputs), scratch=True)
        scratch = workspace(self.sizes)[1], partials
        return [
            self.x,
            self.dy,
            *self.geometry,
            *scratch,
            Out(self.weight.shape, scratch=hide_weight),
            Out(self.bias.shape, scratch=hide_bias),
        ]


@not_simulated
def test_cases_make_several_chunks(rng):
    for name in CASES:
        if name.startswith("chunks"):
            assert min(Case(name, rng).sizes.chunks, Case(name, rng).data_chunks) > 1, name
    rows, _ = conv2d.strip_rows(40, 20, 3, 3, 1, 1, 1, 1, 64)
    assert rows < 40, "no image of several strips"
    (_, _, _, inputs), (kernel_h, kernel_w, _), (_, out_w), _ = CASES["chunks, stride 2, blocks of pixels"]
    assert conv2d.STRIP // (kernel_h * kernel_w * inputs) < out_w, "no row of several blocks"


@not_simulated
def test_cases_use_minimal_filtering(rng):
    for name in CASES:
        if "minimal filtering" in name or "taps" in name:
            planes = 0 if "minimal" not in name else conv2d.LINE_PLANES if "lines" in name else conv2d.PLANES
            assert Case(name, rng).sizes.packed[0] == planes, name
    tiles, (_, _, wide, _) = conv2d.LINE_TILES * conv2d.LINE_TILE, CASES["chunks, minimal filtering, lines of several blocks"][0]
    assert tiles < wide, "no line of several blocks"


@dtypes
@cases
def test_forward(rng, dtype, name):
    check("conv2d.forward", dtype, "matmul", Case(name, rng).forward())


ACTIVATED = [
    "same 3 by 3",
    "1 by 1",
    "chunks, stride 2",
    "minimal filtering, valid",
    "minimal filtering, lines, 3 taps, causal",
    "chunks, minimal filtering",
    "tiles",
    "wide tiles, 1 by 1",
    "groups, dilated, stride 2 by 1",
]


@pytest.mark.parametrize("slope", [0.0, 0.1])
@dtypes
@pytest.mark.parametrize("name", [name for name in ACTIVATED if name in CASES])
def test_forward_with_an_activation(rng, dtype, name, slope):
    check("conv2d.forward", dtype, "matmul", Case(name, rng).forward(slope=slope))


@dtypes
def test_moments_are_those_of_the_activated(rng, dtype):
    check("conv2d.forward", dtype, "matmul", Case("1 by 1", rng).forward(moments=True, slope=0.0))


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.1])
@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("name", ["1 by 1", "minimal filtering"])
def test_activation_of_nan_and_infinity(rng, backend, name, slope):
    """As in the layers ReLU and LeakyReLU: ReLU of minus infinity is 0, and NaN stays NaN."""
    case = Case(name, rng)
    case.bias[:3] = np.nan, -np.inf, np.inf
    (plain,) = run("conv2d.forward", backend, "float32", case.forward())
    (y,) = run("conv2d.forward", backend, "float32", case.forward(slope=slope))
    with np.errstate(invalid="ignore"):
        assert_close(y, np.where(plain <= 0, 0 if slope == 0 else slope * plain, plain), "elementwise")


@dtypes
@cases
def test_forward_takes_moments(rng, dtype, name):
    """mean and m2 of y in the same pass; y has the same bits as without."""
    case = Case(name, rng)
    check("conv2d.forward", dtype, "matmul", case.forward(moments=True))
    plain = run("conv2d.forward", "parallel", dtype, case.forward())
    assert_close(run("conv2d.forward", "parallel", dtype, case.forward(moments=True))[0], plain[0], "exact")


@pytest.mark.parametrize("backend", COMPILED)
def test_moments_in_the_same_pass_are_as_precise(rng, backend):
    """A mean of 1e4 with deviation 1 and a constant channel, in float32: y is x, then the bias alone."""
    case = Case("1 by 1", rng)
    x, one = rng.normal(1e4, 1, case.x.shape).astype(np.float32).astype(np.float64), np.eye(3).reshape(1, 1, 3, 3)
    _, mean, m2 = run("conv2d.forward", backend, "float32", case.forward(x, one, np.zeros(3), moments=True))
    assert_close(mean, x.mean(axis=(0, 1, 2)), "reduction", "float32")
    assert_close(m2, x.var(axis=(0, 1, 2)) * (x.size // 3), "reduction", "float32")
    _, mean, m2 = run("conv2d.forward", backend, "float32", case.forward(x, 0 * one, case.bias, moments=True))
    assert_close(mean, case.bias.astype(np.float32), "exact")
    assert_close(m2, np.zeros(3), "exact")


@dtypes
@cases
def test_backward_data(rng, dtype, name):
    check("conv2d.backward_data", dtype, "matmul", Case(name, rng).backward_data())


@dtypes
@cases
def test_backward_weights(rng, dtype, name):
    check("conv2d.backward_weights", dtype, "matmul", Case(name, rng).backward_weights())


@small
def test_backward_weights_without_bias(rng, name):
    """A dbias of shape (0,) is not computed; dweight has the same bits."""
    args = Case(name, rng).backward_weights()
    for backend in COMPILED:
        expected, _ = run("conv2d.backward_weights", backend, "float32", args)
        alone, none = run("conv2d.backward_weights", backend, "float32", [*args[:-1], Out((0,))])
        assert_close(alone, expected, "exact")
        assert none.shape == (0,)


@small
def test_forward_is_the_formula(rng, name):
    """The sum of the contract, one product at a time."""
    case = Case(name, rng)
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = case.geometry
    expected = np.tile(case.bias, (*case.dy.shape[:3], 1))
    x, y = np.split(case.x, case.groups, axis=3), np.split(expected, case.groups, axis=3)
    weight = np.split(case.weight, case.groups, axis=3)
    for group, n, oh, ow in np.ndindex(case.groups, *case.dy.shape[:3]):
        for kh, kw in np.ndindex(case.weight.shape[:2]):
            h, w = oh * stride_h + kh * dilation_h - pad_top, ow * stride_w + kw * dilation_w - pad_left
            if 0 <= h < case.x.shape[1] and 0 <= w < case.x.shape[2]:
                y[group][n, oh, ow] += x[group][n, h, w] @ weight[group][kh, kw]
    assert_close(output_of("conv2d.forward", case.forward()), expected, "matmul")


@small
def test_gradient_of_x(rng, name):
    case = Case(name, rng)
    check_gradient(lambda x: output_of("conv2d.forward", case.forward(x=x)), "conv2d.backward_data", case.backward_data(), case.x, case.dy)


@small
def test_gradient_of_weight_and_bias(rng, name):
    case = Case(name, rng)

    def of_weight(weight):
        return output_of("conv2d.forward", case.forward(weight=weight))

    def of_bias(bias):
        return output_of("conv2d.forward", case.forward(bias=bias))

    check_gradient(of_weight, "conv2d.backward_weights", case.backward_weights(hide_bias=True), case.weight, case.dy)
    check_gradient(of_bias, "conv2d.backward_weights", case.backward_weights(hide_weight=True), case.bias, case.dy)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_nan_reaches_only_the_pixels_that_see_it(rng, backend):
    case = Case("same 3 by 3", rng)
    case.x[1, 0, 0, 2] = np.nan
    (y,) = run("conv2d.forward", backend, "float32", case.forward())
    assert np.argwhere(np.isnan(y).all(axis=3)).tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    assert np.isnan(y).sum() == 4 * case.outputs


SPREADING = [name for name in CASES if "minimal filtering" in name] + ["same 3 by 3", "stride 2, same", "groups", "groups, stride 2"]
BAD = {"nan": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "nearly too large": 1e38}


@not_simulated
@np.errstate(all="ignore")  # of the definition
@pytest.mark.parametrize("bad", BAD)
@dtypes
@pytest.mark.parametrize("name", SPREADING)
def test_what_is_not_finite_reaches_only_results_that_depend_on_it(rng, dtype, name, bad):
    """And what is large makes only results infinite that are too large. Statistics are those of the same y."""
    case, value = Case(name, rng), BAD[bad]
    value = value * 1e270 if dtype == "float64" and np.isfinite(value) else value
    if np.isfinite(value):
        case.weight *= 1e-3
        case.dy *= 1e-3
    clean = case.x.copy()
    case.x[-1, 0, 1, -1] = case.x[0, -1, -1, 0] = value
    for slope in (1.0, 0.0):
        check("conv2d.forward", dtype, "matmul", case.forward(slope=slope))
    check("conv2d.backward_weights", dtype, "matmul", case.backward_weights())
    case.x = clean * 1e-3 if np.isfinite(value) else clean
    case.dy[-1, 0, 1, -1] = case.dy[0, -1, -1, 0] = value
    check("conv2d.backward_data", dtype, "matmul", case.backward_data())
    check("conv2d.backward_weights", dtype, "matmul", case.backward_weights())


@not_simulated
@np.errstate(all="ignore")
@pytest.mark.parametrize("name", [name for name in SPREADING if "minimal" in name])
def test_tiles_without_what_is_not_finite_keep_their_bits(rng, name):
    """So results do not depend on how tiles are grouped. A weight that is not finite changes one channel."""
    case = Case(name, rng)
    (plain,) = run("conv2d.forward", "parallel", "float32", case.forward())
    case.x[0, 0, 0, 0] = np.nan
    (y,) = run("conv2d.forward", "parallel", "float32", case.forward())
    assert_close(y[0, 4:], plain[0, 4:], "exact")
    assert_close(y[0, :, 12:], plain[0, :, 12:], "exact")
    assert_close(y[1:], plain[1:], "exact")
    case.x[0, 0, 0, 0] = 1
    case.weight[len(case.weight) // 2, 1, 0, 2] = np.inf
    check("conv2d.forward", "float32", "matmul", case.forward())


@not_simulated
@pytest.mark.parametrize("name", [name for name in CASES if "lines" in name])
def test_lines_use_nothing_beyond_their_arrays(rng, name):
    """The numbers around are finite. With NaN there, as `run` has it, sums that use it would be computed again, and come out right."""
    case = Case(name, rng)

    def surrounded(array):
        memory = np.full(array.size + 2 * 8192, 1e3)
        memory[8192:-8192] = array.reshape(-1)
        return memory[8192:-8192].reshape(array.shape)

    calls = {"forward": case.forward(), "backward_data": case.backward_data(), "backward_weights": case.backward_weights()}
    for op, args in calls.items():
        outputs = [np.empty(arg.shape, arg.dtype or "float64") if isinstance(arg, Out) else None for arg in args]
        inputs = [surrounded(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        load(f"conv2d.{op}", "serial")(*[arg if out is None else out for arg, out in zip(inputs, outputs)])
        results = [out for arg, out in zip(args, outputs) if out is not None and not arg.scratch]
        for actual, wanted in zip(results, run(f"conv2d.{op}", "numpy", "float64", args), strict=True):
            assert_close(actual, wanted, "matmul")


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_against_torch(rng, stride, padding):
    torch = pytest.importorskip("torch")
    x, weight, bias = rng.normal(size=(2, 9, 8, 3)), rng.normal(size=(3, 2, 3, 5)), rng.normal(size=5)
    theirs = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(weight.transpose(3, 2, 0, 1)), torch.tensor(bias), stride, padding
    )
    expected = theirs.numpy().transpose(0, 2, 3, 1)
    packed, strips = workspace(conv2d.scratch(*expected.shape, 3, 3, stride, stride, 1, 1, x.shape[3], 1))
    sums = Out((5,), np.float64, scratch=True)
    partials = Out((0, 3, 5), np.float64, scratch=True)
    args = [x, weight, bias, 1.0, stride, stride, padding, padding, 1, 1, packed, False, strips, Out(expected.shape), partials, sums, sums]
    (y,) = run("conv2d.forward", "serial", "float64", args)
    assert_close(y, expected, "matmul")


@not_simulated
def test_several_threads_prepare_many_weights():
    for name, (_, weight, *_) in CASES.items():
        groups = CASES[name][4] if len(CASES[name]) > 4 else 1
        if "many weights" in name:
            assert np.prod(weight) * CASES[name][0][3] // groups >= cpu.MANY, name
