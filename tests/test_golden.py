"""nbnet beside what PyTorch, Keras, TensorFlow, tf_slim and Flax computed (tests/golden): outputs, gradients, moving statistics."""

import numpy as np
import pytest
from golden.cases import cases
from tolerances import assert_close

import nbnet as nb
from nbnet.layers import Param

F = nb.functional
backends = pytest.mark.parametrize("backend", ["numpy", "serial"])


def each(kind):
    return pytest.mark.parametrize("case", list(cases(kind=kind)), ids=str)


def layer_of(case, x, backend):
    """Our layer for a recorded case."""
    given = dict(case.options["nbnet"])
    options = {key: given[key] for key in ("decay", "eps", "center", "scale", "axis", "track", "zero_debias") if key in given}
    options["unbiased"] = given.get("unbiased", False)
    options["unbiased_batch"] = given.get("normalize_unbiased", False)
    if "renorm" in given:
        options["renorm"] = nb.Renorm(**given["renorm"])
    if "ghost" in given:
        ghost = given["ghost"]
        options |= {"virtual_batch_size": ghost["size"], "groups": ghost["groups"], "group_variance": ghost["moving_var"]}
    layer = nb.BatchNorm(**options)
    layer.build(x.shape[1:], backend=backend, dtype=case.options["dtype"])
    for name, param in layer.params.items():
        param.value[:] = case.params[name]
    layer.buffers["moving_mean"][:] = case.params.get("start_mean", 0)
    if layer.moving.spread == "moving_var":
        layer.buffers["moving_var"][:] = case.params.get("start_var", 1)
    if given.get("frozen"):
        layer.freeze()
    return layer


def compare(layer, dy, recorded, y, saved, dtype):
    assert_close(y, recorded["y"], "golden", dtype)
    assert_close(layer.backward(dy, saved), recorded["dx"], "golden", dtype)
    for name, param in layer.params.items():
        assert_close(param.grad, recorded[f"d{name}"], "golden", dtype)


@backends
@each("batch_norm")
def test_batch_norm(case, backend):
    dtype = case.options["dtype"]
    layer = layer_of(case, case.steps[0]["x"], backend)
    assert len(case.steps) >= 5
    for step in case.steps:
        y, saved = layer.forward(step["x"], train=True, weights=step.get("w"))
        compare(layer, step["dy"], step, y, saved, dtype)
        for ours, theirs in (("moving_mean", "moving_mean"), ("moving_var", "moving_var"), ("moving_std", "moving_sigma")):
            if ours in layer.buffers and theirs in step:
                assert_close(layer.buffers[ours], step[theirs], "golden", dtype)
        for ours, theirs in (("renorm_mean", "renorm_mean"), ("renorm_std", "renorm_sigma")):
            if theirs in step:
                assert_close(layer.buffers[ours], step[theirs], "golden", dtype)
    after = case.evaluation
    by_batch = case.options["nbnet"].get("evaluation") == "batch"
    layer.update_statistics, layer.use_batch_statistics = False, by_batch
    y, saved = layer.forward(after["x"], train=True)
    compare(layer, after["dy"], after, y, saved, dtype)
    if not by_batch:
        assert np.array_equal(layer.forward(after["x"])[0], y)


@backends
@each("layer_norm")
def test_layer_norm(case, backend):
    run_per_row(case, lambda x, gamma, beta, eps, _: F.layer_norm_forward(x, gamma, beta, eps=eps, backend=backend), F.layer_norm_backward)


@backends
@each("group_norm")
def test_group_norm(case, backend):
    run_per_row(
        case, lambda x, gamma, beta, eps, g: F.group_norm_forward(x, gamma, beta, g, eps=eps, backend=backend), F.group_norm_backward
    )


def run_per_row(case, forward, backward):
    dtype, given = case.options["dtype"], case.options["nbnet"]
    for step in case.steps:
        y, saved = forward(step["x"], case.params.get("gamma"), case.params.get("beta"), given["eps"], given["groups"])
        dx, dgamma, dbeta = backward(step["dy"], saved)
        for name, value in (("y", y), ("dx", dx), ("dgamma", dgamma), ("dbeta", dbeta)):
            assert_close(value, step[name], "golden", dtype)


@each("dropout")
def test_dropout_is_the_same_map_of_kept_elements(case):
    """Masks differ between frameworks; what a mask does must not: kept elements a * x + b, dropped ones a constant."""
    given = case.options["nbnet"]
    for step in case.steps:
        rate, x = float(step["rate"]), step["x"]
        y, saved = F.dropout_forward(x, rate, seed=3, variant=given["variant"], noise_shape=given["noise_shape"])
        dx = F.dropout_backward(np.ones_like(x), saved)
        kept = dx != 0
        if rate in (0, 1):
            assert kept.all() == (rate == 0)
        assert_close(y[kept], (step["a"] * x + step["b"])[kept], "golden")
        assert_close(y[~kept], np.broadcast_to(step["dropped"], x.shape)[~kept], "golden")
        assert_close(dx[kept], np.broadcast_to(step["a"], x.shape)[kept], "golden")


@each("moments")
def test_moments(case):
    for step in case.steps:
        axes, keepdims = tuple(int(a) for a in np.atleast_1d(step["axes"])), bool(step["keepdims"])
        mean, var = F.moments(step["x"], axes, keepdims, weights=step.get("w"))
        assert_close(mean, step["mean"], "golden")
        assert_close(var, step["var"], "golden")


@each("batch_normalization")
def test_batch_normalization(case):
    for step in case.steps:
        arguments = (step.get(name) for name in ("x", "mean", "variance", "offset", "scale"))
        assert_close(F.batch_normalization(*arguments, case.options["nbnet"]["eps"]), step["y"], "golden")


# ---------------------------------------------------------------------------------------------- moving averages


@pytest.mark.parametrize("case", [c for c in cases(kind="moving_average") if "weighted" not in c.name], ids=str)
def test_moving_average(case):
    """TensorFlow rounds the decay to float32: each step's `decay` is the number it really used."""
    given = case.options["nbnet"]
    debias = given.get("zero_debias", False)
    both = debias and given.get("num_updates", False)
    start = None if debias else {"a": case.params["start"]}
    ema, product, sums = None, 1.0, 0.0
    for t, step in enumerate(case.steps):
        ema = ema or nb.ExponentialMovingAverage(float(step["decay"]), zero_debias=debias)
        d = ema.decay = float(step["decay"])
        ema.apply({"a": step["value"]}, start=start)
        if both:  # TensorFlow divides by 1 - d_t^t, with this step's d alone; the weights it gave sum to 1 - the product of all d
            product, sums = product * d, d * sums + (1 - d) * step["value"]
            assert_close(ema.average("a"), sums / (1 - product), "golden")
            assert_close(step["average"], sums / (1 - d ** (t + 1)), "golden")
        else:
            assert_close(ema.average("a"), step["average"], "golden")


@pytest.mark.parametrize("case", [c for c in cases(kind="moving_average") if "weighted" in c.name], ids=str)
def test_weighted_moving_average(case):
    """EMA(value * weight) / EMA(weight), of two averages that start at 0."""
    ema = nb.ExponentialMovingAverage(case.options["nbnet"]["decay"])
    for step in case.steps:
        ema.apply({"vw": step["value"] * step["w"], "w": step["w"]}, start={"vw": 0, "w": 0})
        assert_close(ema.average("vw") / ema.average("w"), step["average"], "golden")


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@each("optimizer")
def test_optimizer(case, backend):
    """Ten steps. PyTorch's matrices are (outputs, inputs), which matters to Muon alone."""
    options = dict(case.options["nbnet"])
    optimizer = getattr(nb, options.pop("class"))(**options)

    def ours(name, array):
        return np.ascontiguousarray(array.T) if name == "weight" else array.copy()

    params = {name: Param(ours(name, value)) for name, value in case.params.items()}
    assert len(case.steps) == 10
    for step in case.steps:
        for name, param in params.items():
            param.grad[:] = ours(name, step[f"d{name}"])
        optimizer.step(params, nb.get_backend(backend))
        for name, param in params.items():
            assert_close(param.value, ours(name, step[name]), "trajectory")


def test_how_many_cases_there_are():
    kinds = [case.options["kind"] for case in cases()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "batch_norm": 64,
        "layer_norm": 5,
        "group_norm": 5,
        "dropout": 4,
        "moments": 2,
        "batch_normalization": 1,
        "moving_average": 7,
        "optimizer": 35,
    }
