"""Recalibration, the report, folding, and other frameworks' conventions."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, ShapeError


def network(seed=0, dtype="float64", **norm):
    model = nb.Sequential(
        [
            nb.Conv2D(4, 3, use_bias=False),
            nb.BatchNorm(**norm),
            nb.ReLU(),
            nb.Residual([nb.Conv2D(4, 3), nb.BatchNorm(activation="leaky_relu", slope=0.2)]),
            nb.Dropout(0.5),
            nb.Flatten(),
            nb.Dense(5),
            nb.BatchNorm(activation="tanh", scale=False),
            nb.BatchNorm(center=False),
            nb.Dense(3),
        ]
    )
    model.build((6, 6, 2), backend="serial", dtype=dtype, seed=seed)
    rng = np.random.Generator(np.random.Philox(seed))
    for layer in model.walk():
        if isinstance(layer, nb.BatchNorm):
            for param in layer.params.values():
                param.value[:] = rng.normal(1, 0.3, param.value.shape)
            layer.moving.assign(layer.buffers, rng.standard_normal(layer.output_shape[-1]), rng.random(layer.output_shape[-1]) + 0.5)
    return model


def norms(model):
    return [layer for layer in model.walk() if isinstance(layer, nb.BatchNorm)]


# ----------------------------------------------------------------------------------------------- recalibration


def test_recalibrate_gives_the_moments_of_all_the_data(rng):
    x = rng.normal(3, 2, (70, 6, 6, 2))
    model = network(decay=0.5)
    nb.recalibrate(model, x, batch_size=16)
    z, _ = model.layers[0].forward(x)
    mean, var = nb.functional.moments(z, (0, 1, 2))
    count = z.size // 4
    assert_close(model.layers[1].buffers["moving_mean"], mean, "reduction")
    assert_close(model.layers[1].buffers["moving_var"], var * count / (count - 1), "reduction")


def test_recalibrate_in_one_batch_makes_evaluation_like_training(rng):
    x = rng.standard_normal((40, 6, 6, 2))
    model = network(unbiased=False)
    for norm in norms(model):
        norm.ddof_moving = 0
    nb.recalibrate(model, x, batch_size=40)
    model.layers[4].rate = 0.0
    trained, _ = model.forward(x, train=True)
    nb.recalibrate(model, x, batch_size=40)
    assert_close(model.predict(x), trained, "reduction")


def test_recalibrate_changes_nothing_else(rng):
    model = network()
    before = {name: array.copy() for name, array in model.state().items()}
    nb.recalibrate(model, rng.standard_normal((20, 6, 6, 2)))
    changed = {name for name, array in model.state().items() if not np.array_equal(before[name], array)}
    assert changed == {name for name in before if name.endswith(("moving_mean", "moving_var"))}
    assert all(norm.observer is None for norm in norms(model))
    flat = nb.Sequential([nb.Dense(2)])
    flat.build((2,), backend="serial")
    with pytest.raises(ArgumentError, match="no BatchNorm"):
        nb.recalibrate(flat, np.ones((3, 2), np.float32))


def test_the_report_finds_what_is_wrong(rng, capsys):
    x = rng.standard_normal((50, 6, 6, 2))
    model = network()
    nb.recalibrate(model, x)
    rows = nb.batch_norm_report(model, x)
    assert [row.verdict for row in rows] == ["fine"] * 4
    assert "1.batchnorm" in capsys.readouterr().out
    model.layers[1].buffers["moving_mean"][2] += 5
    model.layers[7].buffers["moving_var"][:] *= 9
    model.layers[8].params["gamma"].value[1] = 0
    first, inner, third, fourth = nb.batch_norm_report(model, x, show=False)
    assert first.mean_drift > 0.5
    assert "nb.recalibrate" in first.verdict
    assert inner.verdict == "fine"
    assert third.variance_ratio > 8
    assert (fourth.dead, fourth.verdict) == (1, "1 dead channels")


# ----------------------------------------------------------------------------------------------------- folding


@pytest.mark.parametrize(
    ("mean", "var", "verdict"),
    [
        (0, 1, "fine"),
        (0.49, 1, "fine"),
        (-0.49, 1, "fine"),
        (0.51, 1, "off"),
        (-0.51, 1, "off"),
        (0, 1.99, "fine"),
        (0, 2.01, "off"),
        (0, 1 / 1.99, "fine"),
        (0, 1 / 2.01, "off"),
    ],
)
def test_when_the_report_calls_statistics_off(mean, var, verdict):
    """Half a deviation, or twice or half the variance, of one channel."""
    x = np.array([[1.0, -1], [-1, 1]] * 4)
    layer = nb.BatchNorm(eps=1e-9)
    model = nb.Sequential([layer])
    model.build((2,), backend="numpy", dtype="float64")
    layer.buffers["moving_mean"][1], layer.buffers["moving_var"][1] = mean, var
    (report,) = nb.batch_norm_report(model, x, show=False)
    assert_close(report.mean_drift, abs(mean), "differences")
    assert_close(report.variance_ratio, max(var, 1 / var), "differences")
    assert report.verdict.startswith("fine" if verdict == "fine" else "moving statistics are off")
    assert (report.channels, report.dead) == (2, 0)


def test_dead_channels_of_the_report():
    """By their variance beside the largest one, or by their gamma, of either sign."""
    x = np.array([[1.0, 2e-4, 0.5e-4, 1], [-1, -2e-4, -0.5e-4, -1]] * 4)
    layer = nb.BatchNorm(eps=1e-12)
    model = nb.Sequential([layer])
    model.build((4,), backend="numpy", dtype="float64")
    nb.recalibrate(model, x)
    gamma = layer.params["gamma"].value
    for value, dead in ((1, 1), (-1, 1), (2e-8, 1), (-2e-8, 1), (0.5e-8, 2), (0, 2)):
        gamma[3] = value
        (report,) = nb.batch_norm_report(model, x, show=False)
        assert (report.dead, report.verdict) == (dead, f"{dead} dead channels")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", [{}, {"track": "deviation"}, {"center": False, "scale": False}])
def test_folding_keeps_the_predictions(rng, dtype, norm):
    x = rng.standard_normal((9, 6, 6, 2)).astype(dtype)
    model = network(dtype=dtype, **norm)
    before = {name: array.copy() for name, array in model.state().items()}
    expected = model.predict(x)
    folded = nb.fold_batch_norm(model)
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    for array in model.state().values():  # the folded model has nothing to do with it
        array[...] = 0
    assert_close(folded.predict(x), expected, "matmul" if dtype == "float64" else "training")
    kinds = [nb.Conv2D, nb.ReLU, nb.Residual, nb.Dropout, nb.Flatten, nb.Dense, nb.Tanh, nb.BatchNorm, nb.Dense]
    assert [type(layer) for layer in folded.layers] == kinds
    assert [type(layer).__name__ for layer in folded.layers[2].body.layers] == ["Conv2D", "LeakyReLU"]
    assert folded.layers[7].name == "7.batchnorm"
    assert not any(np.shares_memory(a, b) for a in folded.state().values() for b in model.state().values())


@pytest.mark.parametrize("fuse", [True, False])
def test_a_folded_model_is_saved_like_any_other(rng, tmp_path, fuse):
    x = rng.standard_normal((9, 4), dtype=np.float32)
    model = nb.Sequential([nb.Dense(5), nb.BatchNorm(), nb.ReLU(), nb.Dense(3)])
    model.build((4,), backend="serial", fuse=fuse)
    model.forward(x, train=True)
    folded = nb.fold_batch_norm(model)
    assert len(folded.steps) == (2 if fuse else 3)
    folded.save_weights(tmp_path / "folded.safetensors")
    plain = nb.Sequential([nb.Dense(5), nb.ReLU(), nb.Dense(3)])
    plain.build((4,), backend="serial")
    plain.load_weights(tmp_path / "folded.safetensors")
    assert_close(plain.predict(x), model.predict(x), "training")


def test_folding_wants_a_built_model():
    with pytest.raises(BuildError, match=r"call model\.build"):
        nb.fold_batch_norm(nb.Sequential([nb.Dense(2), nb.BatchNorm()]))


# ------------------------------------------------------------------------------------------------- conventions


@pytest.mark.parametrize("convention", ["pytorch", "keras", "onnx"])
@pytest.mark.parametrize("options", [{}, {"track": "deviation"}, {"zero_debias": True}, {"decay": 0.7, "eps": 1e-3}])
def test_a_round_trip_keeps_evaluation(rng, convention, options):
    x = rng.standard_normal((8, 4))
    layer = nb.BatchNorm(**options)
    layer.build((4,), backend="serial", dtype="float64")
    layer.params["gamma"].value[:] = rng.random(4) + 0.5
    for _ in range(3):
        layer.forward(rng.normal(2, 3, (8, 4)), train=True)
    values = nb.batch_norm_export(layer, convention)
    other = nb.BatchNorm(eps=layer.eps)
    other.build((4,), backend="serial", dtype="float64")
    nb.batch_norm_import(other, convention, values)
    assert_close(other.forward(x)[0], layer.forward(x)[0], "reduction")


def test_the_weights_of_old_and_new():
    layer = nb.BatchNorm(decay=0.75)
    layer.build((2,), backend="serial")
    assert nb.batch_norm_export(layer, "pytorch")["momentum"] == 0.25
    assert nb.batch_norm_export(layer, "keras")["momentum"] == 0.75
    assert nb.batch_norm_export(layer, "onnx")["momentum"] == 0.75
    cumulative = nb.BatchNorm(decay=None)
    cumulative.build((2,), backend="serial")
    assert nb.batch_norm_export(cumulative, "pytorch")["momentum"] is None
    with pytest.raises(ArgumentError, match="no cumulative average"):
        nb.batch_norm_export(cumulative, "keras")


def test_a_bad_import_changes_nothing():
    layer = nb.BatchNorm(center=False)
    layer.build((2,), backend="serial")
    good = nb.batch_norm_export(layer, "keras")
    before = {name: array.copy() for name, array in layer.buffers.items()}
    cases = [
        ({**good, "moving_mean": np.ones(3)}, ShapeError, r"'moving_mean' has shape \(3,\), expected \(2,\)"),
        ({key: value for key, value in good.items() if key != "gamma"}, ArgumentError, "'gamma' is missing"),
        ({**good, "beta": np.ones(2)}, ArgumentError, "'beta' is not trivial"),
        ({**good, "epsilon": 1.0}, ArgumentError, r"create it with BatchNorm\(eps=1.0\)"),
    ]
    for values, error, message in cases:
        with pytest.raises(error, match=message):
            nb.batch_norm_import(layer, "keras", values)
        assert all(np.array_equal(before[name], array) for name, array in layer.buffers.items())
    with pytest.raises(ArgumentError, match="did you mean 'pytorch'"):
        nb.batch_norm_export(layer, "torch")


@pytest.mark.parametrize("decay", [None, 0.9])
def test_recalibration_with_renorm(rng, decay):
    """The layers behind see what evaluation will give them, not what renormalisation makes of old averages."""
    x = rng.normal(10, 5, (512, 3))
    model = nb.Sequential([nb.BatchNorm(renorm=nb.Renorm(decay=decay)), nb.Tanh(), nb.BatchNorm()])
    model.build((3,), backend="serial", dtype="float64")
    model.forward(x, train=True)
    nb.recalibrate(model, x, batch_size=512)
    y = model.predict(x, batch_size=512)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.02)  # the moving variance is unbiased, the batch's is not
    np.testing.assert_allclose(y.var(axis=0), 1, atol=0.02)
    if decay is not None:
        np.testing.assert_allclose(model.layers[0].buffers["renorm_mean"], x.mean(axis=0))
        np.testing.assert_allclose(model.layers[0].buffers["renorm_std"], np.sqrt(x.var(axis=0) + 1e-5))


def test_values_of_an_onnx_file(rng):
    layer = nb.BatchNorm()
    layer.build((2,), backend="serial")
    values = {"scale": np.ones(2), "B": np.zeros(2), "input_mean": np.ones(2), "input_var": np.full(2, 4.0)}
    nb.batch_norm_import(layer, "onnx", values | {"epsilon": np.float32(1e-5).item()})
    assert layer.buffers["moving_var"].tolist() == [4, 4]
    for wrong in ({"input_var": np.array([-1.0, 1])}, {"input_mean": np.array([np.nan, 1])}):
        with pytest.raises(ArgumentError, match="has a negative number, or an array has NaN"):
            nb.batch_norm_import(layer, "onnx", values | wrong)
    assert layer.buffers["moving_var"].tolist() == [4, 4]
