"""nb.Predictor and nb.compile: the bits of the folded model, from any thread, and inside jitted code."""

import copy
import gc
import pickle
import re
import threading
import weakref

import numba
import numpy as np
import pytest
from layers.test_layers import LAYERS
from numba.core.errors import NumbaWarning, TypingError
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BackendError, BuildError, DTypeError, ShapeError
from nbnet.kernels.cpu import inference
from nbnet.runtime import tracing

NETWORKS = {
    "digits": ((8, 8, 1), nb.models.digits),
    "keyword": ((16, 4), nb.models.keyword),
    "se-resnet": ((8, 8, 3), nb.models.se_resnet),
    "mobile": ((8, 8, 3), nb.models.mobile),
    "unet": ((8, 8, 1), nb.models.unet_small),
}


class Halved(nb.Layer):
    """A user's layer, in Python."""

    def forward(self, x, train=False):
        return x / 2, None


class Tripled(nb.Layer):
    """A user's layer that may be recorded in training, but computes in Python in evaluation."""

    replayable = True

    def forward(self, x, train=False):
        return x * np.asarray(3, x.dtype), None


class Zeroed(Tripled):
    replayable = True

    def forward(self, x, train=False):
        return self.backend.zeros(x.shape, x.dtype), None


def trained(layers, shape, backend="parallel", dtype="float32", **options):
    """A built model whose moving statistics have moved."""
    model = layers if isinstance(layers, nb.Sequential) else nb.Sequential(layers)
    model.build(shape, backend=backend, dtype=dtype, seed=3, **options)
    rng = np.random.default_rng(0)
    for _ in range(2):
        model.forward(rng.normal(0.5, 2, size=(16, *shape)).astype(dtype), train=True)
    return model


def batches(shape, rows, count, dtype="float32"):
    rng = np.random.default_rng(rows)
    return [rng.normal(size=(rows, *shape)).astype(dtype) for _ in range(count)]


def small(backend="parallel", dtype="float32"):
    layers = [nb.Conv2D(16, 3), nb.BatchNorm(), nb.GELU(), nb.Conv2D(16, 3), nb.Dropout(0.5), nb.BatchNorm(), nb.Flatten(), nb.Dense(3)]
    return trained(layers, (6, 5, 16), backend, dtype)


# ---------------------------------------------------------------------------------------------------------- Predictor


@pytest.mark.parametrize("backend", ["serial", "parallel"])
@pytest.mark.parametrize("network", NETWORKS)
def test_predictor_gives_the_bits_of_the_folded_model(network, backend):
    """Layer by layer at first, then traced; and again, so that nothing of the batch before is left."""
    shape, make = NETWORKS[network]
    model = trained(make(), shape, backend)
    folded, predictor = nb.fold_batch_norm(model), nb.Predictor(model)
    for rows in (1, 5):
        for x in batches(shape, rows, 4):
            y = predictor.predict(x)
            assert_close(y, folded.predict(x), "exact")
            assert_close(y, model.predict(x), "matmul")
        assert predictor._runs[(rows, *shape)] is not None


def test_predictor_in_float64_and_from_pixels():
    model = small(dtype="float64")
    predictor, folded = nb.Predictor(model), nb.fold_batch_norm(model)
    for _ in range(3):
        for x in (*batches((6, 5, 16), 3, 1, "float64"), *batches((6, 5, 16), 3, 1), np.full((3, 6, 5, 16), 77, np.uint8)):
            assert_close(predictor.predict(x), folded.predict(x), "exact")
    (x,) = batches((6, 5, 16), 3, 1, "float64")
    reversed_ = x[::-1]
    assert_close(predictor.predict(reversed_), folded.predict(reversed_), "exact")


def test_predictor_in_batches_of_rows():
    """The rest is a batch of another size."""
    model = small()
    predictor, (x,) = nb.Predictor(model), batches((6, 5, 16), 11, 1)
    for _ in range(3):
        assert_close(predictor.predict(x, batch_size=4), predictor.model.predict(x, batch_size=4), "exact")
    assert [shape[0] for shape, run in predictor._runs.items() if run] == [4, 3]
    for bad in (0, "many", 2.5):
        for rows in (11, 4):
            with pytest.raises(ArgumentError, match=rf"^batch_size={bad!r}"):
                predictor.predict(x[:rows], batch_size=bad)


def test_predictor_keeps_the_programs_used_last(monkeypatch):
    monkeypatch.setattr("nbnet.inference.KEPT", 2)
    model = trained([nb.Dense(2)], (3,))
    predictor = nb.Predictor(model)
    for rows in (1, 1, 2, 2, 1, 3, 3):
        (x,) = batches((3,), rows, 1)
        assert_close(predictor.predict(x), model.predict(x), "exact")
    assert len(predictor._runs) == 2


def test_changes_of_the_model_do_not_reach_it():
    model = small()
    predictor, compiled, (x,) = nb.Predictor(model), nb.compile(model), batches((6, 5, 16), 2, 1)
    before = predictor.predict(x)
    for param in model.params.values():
        param.value[...] = 7
    for array in model.buffers.values():
        array[...] = 9
    for _ in range(3):
        assert_close(predictor.predict(x), before, "exact")
    assert_close(compiled(x[0]), before[0], "matmul")


@pytest.mark.parametrize("workspaces", [2, 16])
def test_threads_predict_at_once(monkeypatch, workspaces):
    """Also more threads than workspaces."""
    monkeypatch.setattr(inference, "WORKSPACES", workspaces)
    predictor, wrong = nb.Predictor(small()), []
    inputs = batches((6, 5, 16), 1, 8)
    wanted = [predictor.model.predict(x) for x in inputs]

    def work(x, y):
        wrong.extend(turn for turn in range(200) if not np.array_equal(predictor.predict(x), y))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(predictor._runs) == 1


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: [nb.Dense(3), Halved(), nb.Dense(2)], (4,)),
        (lambda: [nb.Add([nb.Dense(4), Tripled()]), nb.Dense(2)], (4,)),
        (lambda: [nb.Add([nb.Dense(4), Zeroed()]), nb.Dense(2)], (4,)),
        (lambda: [nb.Add(), nb.Dense(2)], ((3,), (3,))),
        (lambda: [nb.Parallel([nb.Dense(2), nb.Dense(3)])], (4,)),
    ],
    ids=["python", "python in a branch", "zeros", "inputs", "outputs"],
)
def test_other_models_predict_layer_by_layer(make, shape):
    model = nb.Sequential(make())
    model.build(shape, seed=1)
    x = np.ones((5, *shape), np.float32) if isinstance(shape[0], int) else tuple(np.ones((5, *one), np.float32) for one in shape)
    predictor, wanted = nb.Predictor(model), model.predict(x)
    for _ in range(3):
        got = predictor.predict(x)
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted))
    with pytest.raises((ArgumentError, ShapeError), match=r"^compile got a model .*: use nb\.Predictor\(model\)$"):
        nb.compile(model)


def test_predictor_on_numpy():
    model = trained([nb.Dense(2), nb.BatchNorm()], (3,), "numpy")
    predictor, (x,) = nb.Predictor(model), batches((3,), 4, 1)
    for _ in range(3):
        assert_close(predictor.predict(x), model.predict(x), "matmul")
    with pytest.raises(BackendError, match=r"^compile got a model on 'numpy', expected 'serial' or 'parallel': build it there$"):
        nb.compile(model)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda predictor: pickle.loads(pickle.dumps(predictor))])
def test_copies_predict_the_same(copied):
    predictor, (x,) = nb.Predictor(small()), batches((6, 5, 16), 1, 1)
    predictor.predict(x)
    wanted, twin = predictor.predict(x), copied(predictor)
    for _ in range(3):
        assert_close(twin.predict(x), wanted, "exact")


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 3, 3), np.float32), ShapeError, r"expected \(N, 3\)"),
        (np.zeros((2, 4), np.float32), ShapeError, r"expected \(N, 3\)"),
        (np.zeros((2, 3), np.int64), DTypeError, "int64"),
        (np.zeros(3, np.float32), ShapeError, r"one row alone is x\[None\]"),
    ],
)
def test_bad_input_of_predictor(x, error, message, warm):
    predictor, good = nb.Predictor(trained([nb.Dense(2)], (3,))), np.ones((2, 3), np.float32)
    for _ in range(3 * warm):
        predictor.predict(good)
    with pytest.raises(error, match=message):
        predictor.predict(x)
    assert_close(predictor.predict(good), predictor.model.predict(good), "exact")


@pytest.mark.parametrize("function", [nb.Predictor, nb.compile])
def test_only_built_sequentials(function):
    name = function.__name__
    with pytest.raises(BuildError, match=rf"^{name} expects a built model: call model\.build\(input_shape\) first$"):
        function(nb.Sequential([nb.Dense(2)]))
    with pytest.raises(ArgumentError, match=rf"^{name} got str, expected a built Sequential: write nb\.{name}\(model\)$"):
        function("model")


# ------------------------------------------------------------------------------------------------------------ compile


def calls_a_global(x):
    return predict_global(x)  # noqa: F821  # set by the test


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_layers(name):
    """Twice, with other inputs: what is computed once must not depend on x."""
    make, shape = LAYERS[name]
    model = trained([make()], shape)
    compiled, folded = nb.compile(model), nb.fold_batch_norm(model)
    for x in batches(shape, 3, 2):
        y = compiled(x)
        assert_close(y, np.concatenate([folded.predict(row[None]) for row in x]), "exact")
        assert_close(y, model.predict(x), "matmul")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_examples_batches_and_into(dtype):
    model = small(dtype=dtype)
    predict, predict_into = nb.compile(model), nb.compile(model, into=True)
    (x,) = batches((6, 5, 16), 4, 1, dtype)
    wanted = predict(x)
    assert (wanted.shape, wanted.dtype) == ((4, 3), np.dtype(dtype))
    assert_close(wanted, model.predict(x), "matmul")
    assert_close(np.stack([predict(row) for row in x]), wanted, "exact")
    y = np.empty_like(wanted)
    assert predict_into(x, y) is None
    assert_close(y, wanted, "exact")
    one = np.empty(3, dtype)
    predict_into(x[1], one)
    assert_close(one, wanted[1], "exact")
    assert predict(x[:0]).shape == (0, 3)


def test_inside_jitted_code_and_a_parallel_loop():
    model = small()
    predict, predict_into = nb.compile(model), nb.compile(model, into=True)

    @numba.njit(parallel=True)
    def many(x, y):
        for i in numba.prange(len(x)):
            predict_into(x[i], y[i])

    @numba.njit
    def total(x):
        found = 0.0
        for i in range(len(x)):
            found += predict(x[i]).sum()
        return found

    (x,) = batches((6, 5, 16), 300, 1)
    y = np.empty((300, 3), np.float32)
    many(x, y)
    assert_close(y, predict(x), "exact")
    assert_close(total(x), y.sum(axis=1).astype(np.float64).sum(), "reduction", dtype="float32")


def test_machine_code_keeps_what_it_needs():
    """A caller outlives the function and the model."""

    def make_caller():
        predict = nb.compile(small())
        return numba.njit(lambda x: predict(x) * 1), predict(x[0])

    (x,) = batches((6, 5, 16), 1, 1)
    caller, wanted = make_caller()
    caller(x[0])
    gc.collect()
    rubbish = [np.full(1 << k, 0xFF, np.uint8) for k in range(8, 22) for _ in range(8)]
    assert_close(caller(x[0]), wanted, "exact")
    del rubbish


def test_no_caller_is_cached_on_disk(tmp_path, monkeypatch):
    """Its machine code has addresses of this process."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    predict = nb.compile(trained([nb.Dense(2)], (3,)))
    monkeypatch.setitem(globals(), "predict_global", predict)
    with pytest.warns(NumbaWarning, match="dynamic globals"):
        numba.njit(cache=True)(calls_a_global)(np.ones(3, np.float32))
    message = r"^a compiled model cannot be pickled or cached on disk: pickle the model, and call nb\.compile again$"
    with pytest.raises(ArgumentError, match=message):
        numba.njit(cache=True)(lambda x: predict(x))(np.ones(3, np.float32))
    with pytest.raises(ArgumentError, match=message):
        pickle.dumps(predict)
    assert not list(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((2, 3), np.float64), TypingError),
        (np.zeros((2, 2, 3), np.float32), TypingError),
        (np.zeros((2, 6), np.float32)[:, ::2], TypingError),
        (np.zeros((2, 4), np.float32), ShapeError),
        (np.zeros(4, np.float32), ShapeError),
    ],
)
def test_bad_input_of_compiled(x, error):
    predict, predict_into = (nb.compile(trained([nb.Dense(2)], (3,)), into) for into in (False, True))
    y = np.full((2, 2), 5, np.float32)
    with pytest.raises(error, match=r"a compiled model got .*expected"):
        predict(x)
    with pytest.raises(error, match=r"a compiled model got .*expected"):
        predict_into(x, y if x.ndim > 1 else y[0])
    assert (y == 5).all()


@pytest.mark.parametrize("shape", [(3, 2), (2,), (2, 3)])
def test_bad_output(shape):
    predict_into, y = nb.compile(trained([nb.Dense(2)], (3,)), into=True), np.full(shape, 5, np.float32)
    message = "a compiled model got x or y of another shape, expected (3,) and (2,), or batches (N, ...) of them"
    with pytest.raises(ShapeError, match=re.escape(message)):
        predict_into(np.ones((2, 3), np.float32), y)
    assert (y == 5).all()


# ------------------------------------------------------------------------------------------------------------ tracing


def test_what_does_not_depend_on_x_is_computed_once():
    """The numbers that a batch norm normalises by, which is not folded after an activation, and transformed weights."""
    model = trained([nb.Conv2D(16, 3, activation="tanh"), nb.BatchNorm()], (6, 5, 16), "serial")
    tracer = tracing.Tracer(model.backend)
    twin, _ = tracing.copy_on(model, tracer)
    twin.forward(tracer.input((1, 6, 5, 16), model.dtype), train=False)
    names = [call.compiled.fndesc.qualname.split(".")[-1] for call in tracer.calls]
    assert names == ["forward_serial", "tanh_forward_serial", "apply_serial"]
    assert tracer.calls[0].args[11] is True
    packed = tracer._region(tracer.calls[0].args[10])
    assert packed.constant
    assert not packed.varies


def test_programs_do_not_keep_the_arrays_of_the_trace():
    tracer = tracing.Tracer(nb.get_backend("serial"))
    x, y = tracer.input((1000,), np.float32), tracer.empty((1000,))
    tracer.kernel("activation.tanh_forward")(x, y)
    program, array = tracer.program(y), weakref.ref(y)
    given, workspace = np.ones(1000, np.float32), np.zeros(program.workspace, np.uint8)
    program.run(given.ctypes.data, workspace.ctypes.data)
    assert_close(workspace[program.y.offset :][:4000].view(np.float32), np.tanh(given), "elementwise")
    del tracer, x, y
    gc.collect()
    assert array() is None


def test_arrays_that_are_used_at_once_share_no_memory():
    rng = np.random.default_rng(5)
    for _ in range(50):
        regions = []
        for _ in range(20):
            region = tracing.Region(np.empty(rng.integers(1, 2000), np.uint8))
            region.first, region.last = sorted(rng.integers(0, 12, 2))
            regions.append(region)
        size = tracing._lay_out(regions)
        for i, a in enumerate(regions):
            assert a.offset % tracing.ALIGNMENT == 0
            assert a.offset + a.array.size <= size
            for b in regions[:i]:
                apart = a.offset + a.array.size <= b.offset or b.offset + b.array.size <= a.offset
                assert apart or a.last < b.first or b.last < a.first
        assert size < sum(region.size for region in regions)
