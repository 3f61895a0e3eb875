"""The course's API: arrays of every kind, and what it refuses."""

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import cs231n

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
fc, fcb, fcb_alt = cs231n.batchnorm_forward, cs231n.batchnorm_backward, cs231n.batchnorm_backward_alt
images, imagesb = cs231n.spatial_batchnorm_forward, cs231n.spatial_batchnorm_backward
ln, lnb = cs231n.layernorm_forward, cs231n.layernorm_backward
gn, gnb = cs231n.spatial_groupnorm_forward, cs231n.spatial_groupnorm_backward
drop, dropb = cs231n.dropout_forward, cs231n.dropout_backward


def normalized(x):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


def calls(dtype, layout, rng):
    """Each pair of functions, with arrays of this dtype: (forward, backward, dout)."""

    def array(*shape):
        whole = rng.normal(1, 2, [2 * n for n in shape]).astype(dtype)
        part = whole[tuple(slice(None, None, 2) for _ in shape)]  # steps of 2 along every axis
        return {"strided": part, "contiguous": part.copy(), "fortran": np.asfortranarray(part)}[layout]

    x, each = array(6, 4), [array(4), array(4)]
    pictures, ones = array(2, 4, 3, 3), [array(1, 4, 1, 1), array(1, 4, 1, 1)]
    return [
        (lambda: fc(x, *each, {"mode": "train"}), fcb, array(6, 4)),
        (lambda: fc(x, *each, {"mode": "train"}), fcb_alt, array(6, 4)),
        (lambda: fc(x, *each, {"mode": "test"}), fcb, array(6, 4)),
        (lambda: images(pictures, *each, {"mode": "train"}), imagesb, array(2, 4, 3, 3)),
        (lambda: ln(x, *each, {}), lnb, array(6, 4)),
        (lambda: gn(pictures, *ones, 2, {}), gnb, array(2, 4, 3, 3)),
        (lambda: drop(x, {"mode": "train", "p": 0.5, "seed": 1}), lambda d, c: (dropb(d, c),), array(6, 4)),
    ]


@DTYPES
@pytest.mark.parametrize("layout", ["strided", "fortran"])
def test_arrays_of_any_layout(dtype, layout):
    seeded = [np.random.Generator(np.random.Philox(5)) for _ in range(2)]
    pairs = zip(calls(dtype, layout, seeded[0]), calls(dtype, "contiguous", seeded[1]), strict=True)
    for (forward, backward, dout), (forward_c, backward_c, dout_c) in pairs:
        (out, cache), (out_c, cache_c) = forward(), forward_c()
        assert out.dtype == dtype
        assert_close(out, out_c, "exact")
        for a, b in zip(backward(dout, cache), backward_c(dout_c, cache_c), strict=True):
            assert a.dtype == dtype
            assert_close(a, b, "reduction" if backward is fcb_alt else "exact")


def test_running_averages_have_the_dtype_of_x(rng):
    for dtype in ("float32", "float64"):
        bn_param = {"mode": "train"}
        fc(rng.normal(size=(6, 3)).astype(dtype), np.ones(3, dtype), np.zeros(3, dtype), bn_param)
        assert bn_param["running_mean"].dtype == bn_param["running_var"].dtype == dtype


def test_whole_numbers_are_converted(rng):
    """The notebook gives gamma and beta as np.asarray([3, 4, 5])."""
    x, gamma, beta = rng.normal(4, 10, (2, 3, 4, 5)), np.asarray([3, 4, 5]), np.asarray([6, 7, 8])
    out, cache = images(x, gamma, beta, {"mode": "train"})
    assert_close(out.mean(axis=(0, 2, 3)), beta, "reduction", "float64")
    assert_close(out, images(x, gamma.astype(float), beta.astype(float), {"mode": "train"})[0], "exact")
    assert imagesb(np.ones_like(x), cache)[1].dtype == np.float64
    bn_param = {"mode": "train"}
    whole = np.arange(12).reshape(4, 3) ** 2
    out, _ = fc(whole, np.ones(3), np.zeros(3), bn_param)
    assert_close(out, normalized(whole.astype(float)), "reduction")
    assert_close(bn_param["running_mean"], 0.1 * whole.mean(axis=0), "reduction")


def test_float32_with_float64_parameters_is_float64(rng):
    """As NumPy's own arithmetic would have it."""
    x, dout = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(6, 3))
    out, cache = fc(x, np.ones(3), np.zeros(3), {"mode": "train"})
    assert out.dtype == np.float64
    assert_close(out, normalized(x.astype(float)), "reduction")
    assert {g.dtype for g in fcb(dout, cache)} == {np.dtype(np.float64)}


x2, x4, one, each = np.ones((4, 6)), np.ones((2, 6, 2, 2)), np.ones(6), np.ones((1, 6, 1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fc(x2, one, one, {"mode": "eval"}), 'Invalid forward batchnorm mode "eval".*must be "train" or "test"'),
        (lambda: fc(x2, one, one, {}), 'Invalid forward batchnorm mode "None"'),
        (lambda: fc(x4, one, one, {"mode": "train"}), r"x has shape \(2, 6, 2, 2\), expected \(N, D\).*use spatial_batchnorm_forward"),
        (lambda: fc(x2, one[:5], one, {"mode": "train"}), r"gamma has shape \(5,\), (wanted|expected) \(6,\)"),
        (lambda: fc(x2[:1], one, one, {"mode": "train"}), "one value per channel"),
        (lambda: images(x2, one, one, {"mode": "train"}), r"x has shape \(4, 6\), expected images \(N, C, H, W\)"),
        (lambda: images(x4, one, one, {"mode": "eval"}), 'Invalid forward batchnorm mode "eval"'),
        (lambda: ln(x4, one, one, {}), "use spatial_groupnorm_forward"),
        (lambda: ln(x2, one[:5], one, {}), r"gamma has shape \(5,\), (wanted|expected) \(6,\)"),
        (lambda: gn(x4, one, each, 2, {}), r"gamma has shape \(6,\), expected \(1, 6, 1, 1\)"),
        (lambda: gn(x4, each, one, 2, {}), r"beta has shape \(6,\), expected \(1, 6, 1, 1\)"),
        (lambda: gn(x4, each, each, 4, {}), "groups=4 does not divide 6 channels: expected one of 1, 2, 3, 6"),
        (lambda: drop(x2, {"mode": "eval", "p": 0.5}), 'Invalid forward dropout mode "eval"'),
        (lambda: drop(x2, {"mode": "train"}), 'dropout_param has no "p"'),
        (lambda: drop(x2, {"mode": "train", "p": 1.5}), "rate=1.5: (wanted|expected) the probability to drop"),
        (lambda: drop(x2, {"mode": "train", "p": 0.5, "seed": -1}), r'dropout_param\["seed"\]=-1: expected a whole number'),
        (lambda: drop(x2, {"mode": "train", "p": 0.5, "seed": 1.5}), r'dropout_param\["seed"\]=1\.5'),
        (lambda: fcb(x2[1:], fc(x2, one, one, {"mode": "train"})[1]), r"dy has shape \(3, 6\), (wanted|expected) \(4, 6\)"),
        (lambda: imagesb(x2, images(x4, one, one, {"mode": "train"})[1]), "dout has shape"),
        (lambda: gnb(x4[1:], gn(x4, each, each, 2, {})[1]), "dy has shape"),
    ],
)
def test_bad_arguments(call, message):
    """Each is a ValueError, which is what the course raises."""
    with pytest.raises(ValueError, match=message):
        call()


def test_an_error_leaves_the_dictionary_alone():
    bn_param = {"mode": "train"}
    with pytest.raises(ValueError, match="gamma"):
        fc(x2, one[:5], one, bn_param)
    assert bn_param == {"mode": "train"}
