"""Group and layer normalisation: the functional calls and what is special to the layers."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, DTypeError, ShapeError

F = nb.functional
BACKENDS = ["numpy", "serial", "parallel"]
backends = pytest.mark.parametrize("backend", BACKENDS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
DISTANCE = 1e-5  # of central differences


def group_norm(x, gamma, beta, groups, eps=1e-5):
    """The formula: x (N, ..., C) with channels last."""
    rows = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean, var = rows.mean(axis=(1, 3), keepdims=True), rows.var(axis=(1, 3), keepdims=True)
    return ((rows - mean) / np.sqrt(var + eps)).reshape(x.shape) * gamma + beta


def layer_norm(x, gamma, beta, eps=1e-5):
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps) * gamma + beta


def differences(function, arrays, cotangent):
    """Central differences of sum(cotangent * function(*arrays)) at every index of every array."""
    grads = []
    for i, array in enumerate(arrays):
        grad = np.empty_like(array)
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[i][index] += sign * DISTANCE
                ends.append(np.vdot(cotangent, function(*moved)))
            grad[index] = (ends[0] - ends[1]) / (2 * DISTANCE)
        grads.append(grad)
    return grads


def normal(rng, channels, *shapes):
    return [rng.normal(1, 2, shape) for shape in shapes] + [rng.normal(size=channels), rng.normal(size=channels)]


@backends
@pytest.mark.parametrize(("shape", "groups"), [((3, 6), 2), ((2, 3, 4), 1), ((2, 3, 2, 6), 3), ((2, 2, 2, 4), 4), ((1, 2, 1, 3, 2), 1)])
def test_group_norm(rng, shape, groups, backend):
    x, dy, gamma, beta = normal(rng, shape[-1], shape, shape)
    y, saved = F.group_norm_forward(x, gamma, beta, groups, eps=1e-3, backend=backend)
    assert_close(y, group_norm(x, gamma, beta, groups, 1e-3), "reduction")
    wanted = differences(lambda *a: group_norm(*a, groups, 1e-3), [x, gamma, beta], dy)
    for grad, numeric in zip(F.group_norm_backward(dy, saved), wanted, strict=True):
        assert_close(grad, numeric, "differences")


@backends
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 5), (2, 2, 3, 4)])
def test_layer_norm(rng, shape, backend):
    x, dy, gamma, beta = normal(rng, shape[-1], shape, shape)
    y, saved = F.layer_norm_forward(x, gamma, beta, eps=1e-3, backend=backend)
    assert_close(y, layer_norm(x, gamma, beta, 1e-3), "reduction")
    wanted = differences(lambda *a: layer_norm(*a, 1e-3), [x, gamma, beta], dy)
    for grad, numeric in zip(F.layer_norm_backward(dy, saved), wanted, strict=True):
        assert_close(grad, numeric, "differences")


def flat(x, axes):
    """x with its last axes as one."""
    return x.reshape(*x.shape[: x.ndim - len(axes)], -1)


@backends
@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (1, 2, 3), (-1, 0, 1, -2)])
def test_layer_norm_of_several_axes(rng, backend, axes):
    """One axis of all their values, and gamma and beta for each value."""
    x, dy = rng.normal(1, 2, (2, 3, 2, 4)), rng.normal(size=(2, 3, 2, 4))
    gamma, beta = rng.normal(size=(2, *x.shape[4 - len(axes) :]))
    y, saved = F.layer_norm_forward(x, gamma, beta, axes=axes, eps=1e-3, backend=backend)

    def function(x, gamma, beta):
        return layer_norm(flat(x, axes), gamma.reshape(-1), beta.reshape(-1), 1e-3).reshape(x.shape)

    assert_close(y, function(x, gamma, beta), "reduction")
    grads = F.layer_norm_backward(dy, saved)
    for grad, numeric in zip(grads, differences(function, [x, gamma, beta], dy), strict=True):
        assert_close(grad, numeric, "differences")


def rms_norm(x, gamma, axes, eps=1e-5):
    rows = flat(x, axes)
    return (rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + eps)).reshape(x.shape) * gamma


@backends
@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (1, 2, 3)])
def test_rms_norm(rng, backend, axes):
    x, dy = rng.normal(1, 2, (2, 3, 2, 4)), rng.normal(size=(2, 3, 2, 4))
    gamma = rng.normal(size=x.shape[4 - len(axes) :])
    y, saved = F.rms_norm_forward(x, gamma, axes=axes, eps=1e-3, backend=backend)
    assert_close(y, rms_norm(x, gamma, axes, 1e-3), "reduction")
    dgamma = np.full(gamma.shape, 7.0)
    grads = F.rms_norm_backward(dy, saved, dgamma=dgamma)
    for grad, numeric in zip(grads, differences(lambda *a: rms_norm(*a, axes, 1e-3), [x, gamma], dy), strict=True):
        assert_close(grad, numeric, "differences")
    assert grads[1] is dgamma
    without, _ = F.rms_norm_forward(x, axes=axes, backend=backend)
    assert_close(without, rms_norm(x, np.ones(4), axes), "reduction")


@backends
@dtypes
def test_rms_norm_of_one_value_is_its_sign(backend, dtype):
    x = np.array([[3.0], [-2], [0], [np.nan]], dtype)
    assert_close(F.rms_norm_forward(x, eps=0, backend=backend)[0], np.sign(x), "elementwise")


@pytest.mark.parametrize("channels", [3, 130])
def test_chunks_of_wide_rows_hold_bounded_scratch(rng, channels, monkeypatch):
    """Rows of whole images: fewer chunks, and the same sums."""
    from nbnet.functional import groupnorm

    x, dy = rng.normal(size=(70, 8, 9, channels)), rng.normal(size=(70, 8, 9, channels))
    results = []
    for wide in (1 << 30, 1000):
        monkeypatch.setattr(groupnorm, "WIDE", wide)
        y, saved = F.layer_norm_forward(x, None, None, axes=(1, 2, 3), backend="serial")
        results.append([y, *F.layer_norm_backward(dy, saved)])
    for many, few in zip(*results, strict=True):
        assert_close(few, many, "reduction")


@backends
def test_the_default_eps_is_1e_5(rng, backend):
    x = rng.normal(0, 1e-2, (4, 6))
    ones, zeros = np.ones(6), np.zeros(6)
    assert_close(F.group_norm_forward(x, None, None, 2, backend=backend)[0], group_norm(x, ones, zeros, 2, 1e-5), "reduction")
    assert_close(F.layer_norm_forward(x, None, None, backend=backend)[0], layer_norm(x, ones, zeros, 1e-5), "reduction")


@backends
@dtypes
def test_gamma_and_beta_may_be_none(rng, backend, dtype):
    x, dy = (rng.normal(size=(2, 3, 4)).astype(dtype) for _ in range(2))
    ones, zeros = np.ones(4, dtype), np.zeros(4, dtype)
    for call, back in (
        (lambda g, b: F.group_norm_forward(x, g, b, 2, backend=backend), F.group_norm_backward),
        (lambda g, b: F.layer_norm_forward(x, g, b, backend=backend), F.layer_norm_backward),
    ):
        (y, saved), (wanted, wanted_saved) = call(None, None), call(ones, zeros)
        assert_close(y, wanted, "exact")
        for a, b in zip(back(dy, saved), back(dy, wanted_saved), strict=True):
            assert_close(a, b, "exact")


@dtypes
def test_results_have_the_dtype_of_x_and_gradients_go_where_asked(rng, dtype):
    x, dy = (rng.normal(size=(2, 3, 4)).astype(dtype) for _ in range(2))
    y, saved = F.group_norm_forward(x, [1.0, 2, 3, 4], np.ones(4), 2)
    dgamma, dbeta = np.full(4, 7, dtype), np.full(4, 7, dtype)
    dx, a, b = F.group_norm_backward(dy, saved, dgamma=dgamma, dbeta=dbeta)
    assert a is dgamma
    assert b is dbeta
    assert {array.dtype for array in (y, dx, dgamma, dbeta)} == {np.dtype(dtype)}
    _, fresh_dgamma, fresh_dbeta = F.group_norm_backward(dy, saved)
    assert_close(dgamma, fresh_dgamma, "exact")
    assert_close(dbeta, fresh_dbeta, "exact")


def test_arrays_that_are_not_contiguous(rng):
    x, dy = rng.normal(size=(8, 3, 10)), rng.normal(size=(8, 3, 10))
    y, saved = F.group_norm_forward(x[::2, :, ::2], None, None, 5)
    again, again_saved = F.group_norm_forward(x[::2, :, ::2].copy(), None, None, 5)
    assert_close(y, again, "exact")
    assert_close(F.group_norm_backward(dy[::2, :, 1::2], saved)[0], F.group_norm_backward(dy[::2, :, 1::2].copy(), again_saved)[0], "exact")


@backends
@pytest.mark.parametrize("far", [1e4, -1e6])
def test_digits_far_from_zero(rng, backend, far):
    """In float32 the input is rounded; the output and the gradients must be no worse than float32."""
    x, dy = rng.normal(far, 1, (5, 6, 7, 8)).astype(np.float32), rng.normal(size=(5, 6, 7, 8)).astype(np.float32)
    gamma, beta = rng.normal(size=8).astype(np.float32), rng.normal(size=8).astype(np.float32)
    wide = [a.astype(np.float64) for a in (x - np.float32(far), gamma, beta)]  # exact: it moves the mean and nothing else
    for name, options in (("group_norm", (4,)), ("layer_norm", ())):
        forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")
        y, saved = forward(x, gamma, beta, *options, backend=backend)
        wanted, wanted_saved = forward(*wide, *options, backend="numpy")
        assert_close(y, wanted, "reduction")
        for a, b in zip(backward(dy, saved), backward(dy.astype(np.float64), wanted_saved), strict=True):
            assert_close(a, b, "reduction")


@backends
def test_group_norm_knows_its_relatives(rng, backend):
    """One group of a row without points is layer norm; a batch norm of one image is instance norm; so is a group of each channel."""
    rows, images = rng.normal(size=(5, 8)), rng.normal(size=(3, 4, 5, 6))
    gamma, beta = rng.normal(size=8), rng.normal(size=8)
    one_group, _ = F.group_norm_forward(rows, gamma, beta, 1, backend=backend)
    assert_close(one_group, F.layer_norm_forward(rows, gamma, beta, backend=backend)[0], "exact")
    each_channel, _ = F.group_norm_forward(images, None, None, 6, backend=backend)
    for image, normalised in zip(images, each_channel, strict=True):
        assert_close(normalised, F.batch_norm_forward(image, None, None, backend=backend)[0], "reduction")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.group_norm_forward(x, None, None, 4), ShapeError, "groups=4 does not divide 6 channels: expected one of 1, 2, 3, 6"),
        (lambda x: F.group_norm_forward(x, None, None, 0), ArgumentError, "groups=0: expected a positive whole number"),
        (lambda x: F.group_norm_forward(x, None, None, 2.0), ArgumentError, r"groups=2\.0: expected a positive whole number"),
        (lambda x: F.group_norm_forward(x, None, None, True), ArgumentError, "groups=True: expected a positive whole number"),
        (lambda x: F.group_norm_forward(x[:, 0], None, None, 6), ShapeError, r"shape \(6,\) in groups=6 has one value per group"),
        (lambda x: F.group_norm_forward(x[0, 0], None, None, 2), ShapeError, r"x has shape \(6,\), expected at least 2 axes"),
        (lambda x: F.group_norm_forward(x, np.ones(5), None, 2), ShapeError, r"gamma has shape \(5,\), expected \(6,\)"),
        (lambda x: F.group_norm_forward(x, None, np.ones((1, 6)), 2), ShapeError, r"beta has shape \(1, 6\), expected \(6,\)"),
        (lambda x: F.group_norm_forward(x, None, None, 2, eps=-1), ArgumentError, "eps=-1: expected a number that is at least 0"),
        (lambda x: F.group_norm_forward(x, None, None, 2, eps=np.nan), ArgumentError, "eps=nan"),
        (lambda x: F.group_norm_forward(x, None, None, 2, backend="gpu"), nb.errors.BackendError, "unknown backend 'gpu'"),
        (lambda x: F.group_norm_forward(x.astype(int), None, None, 2), DTypeError, "int64.*astype"),
        (lambda x: F.group_norm_forward(x[:0], None, None, 2), ShapeError, "empty"),
        (lambda x: F.layer_norm_forward(x[..., :1], None, None), ShapeError, "one value per group"),
        (lambda x: F.layer_norm_forward(np.float64(3), None, None), ShapeError, "one value per group"),
        (lambda x: F.layer_norm_forward(x, np.ones(3), None), ShapeError, r"gamma has shape \(3,\), expected \(6,\)"),
        (lambda x: F.layer_norm_backward(x[1:], F.layer_norm_forward(x, None, None)[1]), ShapeError, "dy has shape"),
        (lambda x: F.layer_norm_backward(x, F.layer_norm_forward(x, None, None)[1], dgamma=np.ones(5)), ShapeError, "dgamma has shape"),
        (lambda x: nb.GroupNorm(0), ArgumentError, r"GroupNorm\(0\): expected a positive number of groups"),
        (lambda x: nb.GroupNorm(2, eps=0), ArgumentError, "groupnorm: eps=0: expected a number above 0"),
        (lambda x: nb.LayerNorm(eps=-1), ArgumentError, "layernorm: eps=-1"),
        (lambda x: nb.GroupNorm(4).build((3, 6)), ShapeError, "groups=4 does not divide 6 channels"),
        (lambda x: nb.GroupNorm(6).build((6,)), ShapeError, "one value per group"),
        (lambda x: nb.LayerNorm().build((5, 1)), ShapeError, "one value per group"),
        (lambda x: F.layer_norm_forward(x, None, None, axes=1), ArgumentError, r"axes=1: expected the last axes of 3, -1 or several"),
        (lambda x: F.layer_norm_forward(x, None, None, axes=(-1, 2)), ArgumentError, r"axes=\(-1, 2\): expected the last"),
        (lambda x: F.layer_norm_forward(x, None, None, axes=()), ArgumentError, r"axes=\(\)"),
        (lambda x: F.layer_norm_forward(x, None, None, axes=2.0), ArgumentError, r"axes=2\.0"),
        (
            lambda x: F.layer_norm_forward(x, np.ones(6), None, axes=(1, 2)),
            ShapeError,
            r"gamma has shape \(6,\), expected \(3, 6\): one number",
        ),
        (lambda x: F.rms_norm_forward(x, np.ones(5)), ShapeError, r"gamma has shape \(5,\), expected \(6,\): one number per channel"),
        (lambda x: F.rms_norm_forward(x, axes=(0, 2)), ArgumentError, r"axes=\(0, 2\)"),
        (lambda x: nb.LayerNorm(axes=(0, 1, 2)).build((3, 6)), ShapeError, r"layernorm: axes=\(0, 1, 2\) of inputs .* include that of the"),
        (lambda x: nb.LayerNorm(axes=1).build((3, 6)), ArgumentError, "axes=1: expected the last axes of 3"),
        (lambda x: nb.RMSNorm(eps=0), ArgumentError, "rmsnorm: eps=0: expected a number above 0"),
        (lambda x: nb.InstanceNorm().build((6,)), ShapeError, "one value per group"),
    ],
)
def test_bad_arguments(rng, call, error, message):
    with pytest.raises(error, match=message):
        call(rng.normal(size=(4, 3, 6)))


# ------------------------------------------------------------------------------------------------------ layers


def test_instance_norm_is_group_norm_of_each_channel(rng):
    x, dy, gamma, beta = normal(rng, 6, (2, 3, 4, 6), (2, 3, 4, 6))
    results = []
    for layer in (nb.InstanceNorm(eps=1e-2), nb.GroupNorm(6, eps=1e-2)):
        layer.build(x.shape[1:], backend="serial", dtype="float64")
        layer.params["gamma"].value[:], layer.params["beta"].value[:] = gamma, beta
        y, saved = layer.forward(x, train=True)
        results.append([y, layer.backward(dy, saved), *(param.grad for param in layer.params.values())])
    for a, b in zip(*results, strict=True):
        assert_close(a, b, "exact")


@pytest.mark.parametrize("name", ["group", "layer"])
def test_layers_are_the_functional_calls(rng, name):
    x, dy, gamma, beta = normal(rng, 6, (2, 3, 4, 6), (2, 3, 4, 6))
    layer = nb.GroupNorm(3, eps=1e-2) if name == "group" else nb.LayerNorm(eps=1e-2)
    layer.build(x.shape[1:], backend="serial", dtype="float64")
    assert_close(layer.params["gamma"].value, np.ones(6), "exact")
    assert_close(layer.params["beta"].value, np.zeros(6), "exact")
    assert not layer.buffers
    layer.params["gamma"].value[:], layer.params["beta"].value[:] = gamma, beta
    function = (lambda *a: group_norm(*a, 3, 1e-2)) if name == "group" else (lambda *a: layer_norm(*a, 1e-2))
    y, saved = layer.forward(x, train=True)
    assert_close(y, function(x, gamma, beta), "reduction")
    assert_close(layer.forward(x)[0], y, "exact")
    wanted = differences(function, [x, gamma, beta], dy)
    for grad, numeric in zip([layer.backward(dy, saved), *(p.grad for p in layer.params.values())], wanted, strict=True):
        assert_close(grad, numeric, "differences")


def test_layers_do_not_mix_examples(rng):
    """An example gives the same output alone, where batch norm cannot train at all."""
    x = rng.normal(size=(4, 3, 6))
    for layer in (nb.GroupNorm(2), nb.LayerNorm()):
        layer.build((3, 6), backend="serial", dtype="float64")
        together, _ = layer.forward(x, train=True)
        alone = np.concatenate([layer.forward(x[i : i + 1], train=True)[0] for i in range(4)])
        assert_close(alone, together, "exact")


def test_layers_train(rng):
    x, labels = rng.normal(size=(60, 4, 4, 2)).astype(np.float32), rng.integers(0, 2, 60)
    x[labels == 1, :, :, 0] *= 3
    model = nb.Sequential([nb.Conv2D(8, 3), nb.GroupNorm(4), nb.ReLU(), nb.Flatten(), nb.LayerNorm(), nb.Dense(2)])
    model.build((4, 4, 2), backend="serial", seed=0)
    history = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.Adam(1e-2)).fit((x, labels), epochs=5, batch_size=20)
    assert history["loss"][-1] < history["loss"][0] / 2


# --------------------------------------------------------------------------------------------------- yardstick


@pytest.mark.parametrize("name", ["group", "layer"])
@dtypes
def test_against_torch(rng, name, dtype):
    torch = pytest.importorskip("torch")
    x, dy, gamma, beta = (a.astype(dtype) for a in normal(rng, 6, (3, 4, 5, 6), (3, 4, 5, 6)))
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, gamma, beta)]
    if name == "group":
        y, saved = F.group_norm_forward(x, gamma, beta, 3)
        out = torch.nn.functional.group_norm(tensors[0].permute(0, 3, 1, 2), 3, *tensors[1:]).permute(0, 2, 3, 1)
    else:
        y, saved = F.layer_norm_forward(x, gamma, beta)
        out = torch.nn.functional.layer_norm(tensors[0], (6,), *tensors[1:])
    out.backward(torch.from_numpy(dy))
    assert_close(y, out.detach().numpy(), "reduction")
    for grad, tensor in zip(F.group_norm_backward(dy, saved), tensors, strict=True):
        assert_close(grad, tensor.grad.numpy(), "reduction")


@pytest.mark.parametrize("axes", [(-1,), (-3, -2, -1)])
@dtypes
def test_norms_of_several_axes_against_torch(rng, axes, dtype):
    torch = pytest.importorskip("torch")
    x, dy = (rng.normal(1, 2, (3, 4, 5, 6)).astype(dtype) for _ in range(2))
    gamma, beta = (rng.normal(size=x.shape[4 - len(axes) :]).astype(dtype) for _ in range(2))
    for name in ("layer", "rms"):
        inputs = [x, gamma, beta][: 3 if name == "layer" else 2]
        tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in inputs]
        out = getattr(torch.nn.functional, f"{name}_norm")(tensors[0], gamma.shape, *tensors[1:], eps=1e-5)
        out.backward(torch.from_numpy(dy))
        y, saved = getattr(F, f"{name}_norm_forward")(*inputs, axes=axes)
        assert_close(y, out.detach().numpy(), "reduction")
        for grad, tensor in zip(getattr(F, f"{name}_norm_backward")(dy, saved), tensors, strict=True):
            assert_close(grad, tensor.grad.numpy(), "reduction")
