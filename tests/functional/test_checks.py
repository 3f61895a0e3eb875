"""Checks of arguments at the edges of what they accept."""

import inspect
import math
import re

import numpy as np
import pytest

from nbnet import functional, get_backend
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional import checks

# length, size, stride, padding, dilation: outputs, pixels before the first
WINDOWS = {
    (5, 3, 1, "same"): (5, 1),
    (5, 3, 2, "same"): (3, 1),
    (6, 3, 2, "same"): (3, 0),
    (6, 2, 2, "same"): (3, 0),
    (5, 2, 1, "same"): (5, 0),
    (7, 4, 1, "same"): (7, 1),
    (1, 5, 1, "same"): (1, 2),
    (4, 1, 3, "same"): (2, 0),
    (5, 3, 1, "valid"): (3, 0),
    (5, 3, 2, "valid"): (2, 0),
    (6, 3, 2, "valid"): (2, 0),
    (3, 3, 1, "valid"): (1, 0),
    (5, 3, 1, (2, 2)): (7, 2),
    (5, 3, 2, (1, 1)): (3, 1),
    (1, 3, 1, (1, 1)): (1, 1),
    (4, 2, 2, (0, 0)): (2, 0),
    (4, 3, 1, (2, 0)): (4, 2),
    (4, 3, 1, (0, 3)): (5, 0),
    (7, 3, 1, "same", 2): (7, 2),
    (7, 3, 2, "same", 2): (4, 2),
    (7, 2, 1, "same", 3): (7, 1),
    (3, 3, 1, "same", 3): (3, 3),
    (1, 1, 1, "same", 5): (1, 0),
    (7, 3, 1, "valid", 3): (1, 0),
    (8, 3, 2, (1, 2), 3): (3, 1),
}
# length, size, stride, padding, outputs with ceil_mode. The last ones: a window must not start in the padding after the image.
CEIL = [
    (5, 2, 2, "valid", 3),
    (6, 2, 2, "valid", 3),
    (6, 3, 2, (1, 1), 4),
    (5, 2, 3, (1, 1), 2),
    (4, 2, 3, (1, 1), 2),
    (1, 2, 2, (1, 1), 1),
]


@pytest.mark.parametrize("case", WINDOWS)
def test_windows(case):
    length, size, stride, padding, *dilation = case
    assert checks.window(length, size, stride, padding, "height", *dilation) == WINDOWS[case]


@pytest.mark.parametrize(("length", "size", "stride", "padding", "outputs"), CEIL)
def test_windows_with_ceil_mode(length, size, stride, padding, outputs):
    assert checks.window(length, size, stride, padding, "height", ceil_mode=True)[0] == outputs


@pytest.mark.parametrize(("length", "size", "padding"), [(2, 3, "valid"), (2, 5, (1, 1)), (1, 2, (0, 0)), (1, 4, (2, 0))])
def test_windows_that_do_not_fit(length, size, padding):
    message = re.escape(f"a window of width {size} does not fit an image of width {length} with padding {padding!r}")
    with pytest.raises(ShapeError, match=message):
        checks.window(length, size, 1, padding, "width")


def test_dilated_windows_that_do_not_fit():
    with pytest.raises(ShapeError, match="a window of height 3 with dilation 3 does not fit an image of height 6 with padding 'valid'"):
        checks.window(6, 3, 1, "valid", "height", 3)
    with pytest.raises(ShapeError, match=r"a dilation of 4 is larger than the height of the image, 3: expected at most 3 with"):
        checks.window(3, 3, 1, "same", "height", 4)


PADDINGS = {
    "same": "same",
    "valid": "valid",
    0: ((0, 0), (0, 0)),
    np.int64(2): ((2, 2), (2, 2)),
    (1, 2): ((1, 1), (2, 2)),
    ((1, 2), (3, 0)): ((1, 2), (3, 0)),
    (1, (2, 3)): ((1, 1), (2, 3)),
}


@pytest.mark.parametrize("padding", PADDINGS)
def test_paddings(padding):
    assert checks.check_padding(padding) == PADDINGS[padding]
    assert checks.check_padding([*padding] if isinstance(padding, tuple) else padding) == PADDINGS[padding]


@pytest.mark.parametrize("padding", ["full", -1, 1.0, True, None, (1,), (1, 2, 3), ((1, 2), (3,)), (1, True), ((1, 2, 3), 1), ()])
def test_paddings_that_are_none(padding):
    with pytest.raises(
        ArgumentError, match=r"^padding=.*: expected 'same', 'valid', a number of pixels, \(height, width\) or \(\(top, bott"
    ):
        checks.check_padding(padding)


@pytest.mark.parametrize(("value", "wanted"), [(3, (3, 3)), ((1, 2), (1, 2)), ([2, 1], (2, 1)), (np.int8(4), (4, 4))])
def test_pairs(value, wanted):
    assert checks.pair(value, "size") == wanted
    assert all(type(number) is int for number in checks.pair(value, "size"))


@pytest.mark.parametrize("value", [0, -1, (1, 0), (0, 1), (1, 2, 3), (1,), (), 1.0, (1, 2.0), None, "2"])
def test_pairs_that_are_none(value):
    with pytest.raises(ArgumentError, match=r"^size=.*: expected a positive whole number, or two"):
        checks.pair(value, "size")


@pytest.mark.parametrize(("value", "least", "most"), [(1, 1, None), (0, 0, 0), (5, 0, 5), (np.uint8(255), 1, 255), (2**70, 1, None)])
def test_whole_numbers(value, least, most):
    assert checks.whole(value, "count", least, most) == value
    assert type(checks.whole(value, "count", least, most)) is int


@pytest.mark.parametrize(
    ("value", "least", "most"), [(0, 1, None), (-1, 0, 5), (6, 0, 5), (1.0, 0, 5), (True, 0, 5), ("1", 0, 5), (None, 0, 5)]
)
def test_whole_numbers_that_are_none(value, least, most):
    wanted = f"at least {least}" if most is None else f"{least} to {most}"
    with pytest.raises(ArgumentError, match=f"^count=.*: expected a whole number, {wanted}$"):
        checks.whole(value, "count", least, most)


def test_numbers():
    for value in (0.5, 1, np.float32(0.5), np.int64(1)):
        assert checks.number(value, "rate", "a number", lambda rate: rate > 0) == value
        assert type(checks.number(value, "rate", "a number", lambda rate: rate > 0)) is float
    for value in (-1, True, "1", None, 1j, [1], np.ones(2), math.nan):
        with pytest.raises(ArgumentError, match=r"^rate=.*: expected a number above 0$"):
            checks.number(value, "rate", "a number above 0", lambda rate: rate > 0)
    assert checks.epsilon(0) == 0
    for value in (-1e-9, math.inf, math.nan):
        with pytest.raises(ArgumentError, match=r"^eps="):
            checks.epsilon(value)


def test_floats():
    be = get_backend("numpy")
    assert checks.floats(np.float32(3), "x").shape == (1,)
    assert checks.floats([[1.0, 2.0]], "x", 2).dtype == np.float64
    assert checks.floats(np.ones((2, 3)).T, "x").flags.c_contiguous
    assert checks.floats(np.ones((0, 3)), "x", empty=True, be=be).shape == (0, 3)
    array = np.ones((2, 3), np.float32)
    assert checks.floats(array, "x", 2, np.dtype(np.float32), be=be) is array
    for args, error, message in (
        ((np.ones((0, 3)), "x"), ShapeError, "it is empty, expected at least one row"),
        ((np.ones((2, 3)), "x", 1), ShapeError, r"has shape \(2, 3\), expected 1 axes$"),
        ((np.ones((2, 3)), "x", 4), ShapeError, r"expected 4 axes \(N, H, W, C\)$"),
        ((np.ones(3, np.float16), "x"), DTypeError, "has dtype float16, expected float32 or float64"),
        ((array, "x", 2, np.dtype(np.float64)), DTypeError, "has dtype float32, expected float64: all arrays of a call"),
    ):
        with pytest.raises(error, match=f"^x {message}" if "shape" in message or "dtype" in message else message):
            checks.floats(*args)
    assert checks.shaped(np.ones((0, 3)), "dy", (0, 3), np.dtype(np.float64), be=be).shape == (0, 3)
    with pytest.raises(ShapeError, match=r"dy has shape \(3, 2\), expected \(2, 3\)"):
        checks.shaped(np.ones((3, 2)), "dy", (2, 3), np.dtype(np.float64), be=be)


# shape of what was passed, of one row, the hint
HINTS = [
    ((28, 28, 1), (28, 28, 1), "; one row alone is x[None]"),
    ((5, 28, 28), (28, 28, 1), "; for images of one channel use x[..., None]"),
    ((5, 28, 28), (28, 28, 3), ""),
    ((5, 3, 8, 9), (8, 9, 3), "; channels come last here: x.transpose(0, 2, 3, 1)"),
    ((5, 3, 9, 8), (8, 9, 3), ""),
    ((5, 8, 3), (8, 9, 3), ""),
    ((5, 4), (3,), ""),
]


@pytest.mark.parametrize(("shape", "expected", "hint"), HINTS)
def test_hints_about_shapes(shape, expected, hint):
    assert checks.shape_hint(shape, expected) == hint


def test_outputs():
    be, dtype = get_backend("serial"), np.dtype(np.float32)
    assert checks.output(None, "dw", (2, 3), dtype, be=be).shape == (2, 3)
    mine = np.empty((2, 3), np.float32)
    assert checks.output(mine, "dw", (2, 3), dtype, be=be) is mine
    for array in (np.empty((3, 2), np.float32), np.empty((2, 3)), np.empty((3, 2), np.float32).T, np.empty((2, 6), np.float32)[:, ::2]):
        with pytest.raises(ShapeError, match=r"expected contiguous \(2, 3\) float32"):
            checks.output(array, "dw", (2, 3), dtype, be=be)
    fixed = np.empty((2, 3), np.float32)
    fixed.flags.writeable = False
    crooked = np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float32).reshape(2, 3)
    for array, wrong in ((fixed, "read-only"), (crooked, "not aligned")):
        with pytest.raises(ArgumentError, match=f"dw is {wrong}, expected an array to write to"):
            checks.output(array, "dw", (2, 3), dtype, be=be)


BACKWARDS = [name for name in functional.__all__ if "backward" in name or name == "batch_norm_parameter_gradients"]


@pytest.mark.parametrize("name", BACKWARDS)
def test_a_backward_needs_what_training_saved(name):
    call = getattr(functional, name)
    needed = [each.default is each.empty and each.kind is not each.VAR_KEYWORD for each in inspect.signature(call).parameters.values()]
    arguments = [None if key == "saved" else np.ones((2, 3)) for key in inspect.signature(call).parameters][: sum(needed)]
    with pytest.raises(ArgumentError, match="saved is None: expected what forward returned with train=True"):
        call(*arguments)
