"""Whole models on backend cuda, in the simulator at toy size or on a GPU: their results are those of backend serial."""

import copy
import weakref

import numpy as np
import pytest
from cuda_machine import EXECUTED, GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.cli import kernels
from nbnet.kernels import philox
from nbnet.preprocessing import permutation
from nbnet.training import loop
from nbnet.training.callbacks import Callback

pytestmark = pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
F = nb.functional
SIDE = 4 if SIMULATED else 8 if EXECUTED else 16
ROWS = 4 if SIMULATED else 8 if EXECUTED else 64
STEPS = 10


def plain():
    return [nb.Conv2D(3, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dropout(0.25), nb.Dense(3)]


def residual():
    return [
        nb.Conv2D(2, 3, stride=2),
        nb.LeakyReLU(0.1),
        nb.Residual([nb.GroupNorm(2), nb.LeakyReLU(0.2)]),
        nb.AvgPool2D(2),
        nb.Flatten(),
        nb.LayerNorm(),
        nb.Dense(5),
        nb.ReLU(),
        nb.Dense(3),
    ]


def dialects():
    norms = [
        nb.BatchNorm(virtual_batch_size=2, activation="relu"),
        nb.BatchNorm(axis=1, renorm=nb.Renorm(rmax=3, dmax=5), zero_debias=True),
    ]
    # No kink behind renormalisation, whose first z is exactly 0 where x is 0 (its moving mean): rounding would choose the side.
    dropped = [nb.Dropout(0.5, spatial=True), nb.Dropout(0.25, "alpha", spatial=True)]
    return [*norms, nb.Tanh(), *dropped, nb.GlobalAvgPool2D(), nb.Dense(3), nb.Sigmoid()]


def branches():
    """A convolution in two places, gates, and branches that are joined in each way."""
    shared = nb.Conv2D(3, 3)
    return [
        nb.Concat([nb.Conv2D(2, 1), [nb.Conv2D(1, 3), nb.ReLU()]]),
        nb.Add([shared, [nb.Tanh(), shared]]),
        nb.Multiply([[], [nb.GlobalAvgPool2D(), nb.Dense(3), nb.Sigmoid()]]),
        nb.UpSample2D(2, "bilinear"),
        nb.MaxPool2D(2),
        nb.Parallel([[nb.Permute((3, 1, 2)), nb.Flatten()], nb.Reshape(-1)]),
        nb.Multiply(),
        nb.Dense(3),
    ]


def batches(dtype):
    rng = np.random.default_rng(5)
    for _ in range(STEPS):
        yield rng.normal(size=(ROWS, SIDE, SIDE, 2)).astype(dtype), rng.integers(0, 3, ROWS)


def trainer(backend, layers, dtype, optimizer, **options):
    model = nb.Sequential(layers())
    model.build((SIDE, SIDE, 2), backend=backend, dtype=dtype, seed=7)
    return nb.Trainer(model, optimizer=optimizer, **options)


@pytest.mark.parametrize(
    ("layers", "dtype", "optimizer", "options"),
    [
        (plain, "float32", lambda: nb.Adam(1e-2), {}),
        (residual, "float32", lambda: nb.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01), {"clip_norm": 0.5}),
        (dialects, "float64", lambda: nb.RMSProp(1e-3), {"accumulate": 2}),
        (branches, "float32", lambda: nb.SGD(0.05), {}),
        (plain, "float64", lambda: nb.Muon(0.01, weight_decay=0.1, groups={"6.dense": {"adam": True}}), {}),
        (plain, "float64", lambda: nb.LAMB(0.01), {"average": nb.Lookahead(3)}),
    ],
    ids=["plain", "residual", "dialects", "branches", "muon", "lamb"],
)
def test_ten_steps_agree_with_serial(layers, dtype, optimizer, options):
    pair = [trainer(backend, layers, dtype, optimizer(), **copy.deepcopy(options)) for backend in ("serial", "cuda")]
    for (name, a), b in zip(pair[0].model.state().items(), pair[1].model.state().values(), strict=True):
        assert_close(np.asarray(b), a, "exact", what=f"{name} at the start: ")
    for x, y in batches(dtype):
        expected, actual = (t.train_batch(x, y) for t in pair)
        assert_close(actual["loss"], expected["loss"], "training", dtype)
    for (name, a), b in zip(pair[0].model.state().items(), pair[1].model.state().values(), strict=True):
        assert_close(np.asarray(b), a, "training", dtype, f"{name}: ")
    expected, actual = (t.evaluate(x, y) for t in pair)
    assert_close(actual["loss"], expected["loss"], "training", dtype)
    assert_close(pair[1].model.predict(x), pair[0].model.predict(x), "training", dtype)


def test_steps_in_steady_state_allocate_nothing():
    run = trainer("cuda", plain, "float32", nb.Adam(1e-2))
    data = list(batches("float32"))
    for x, y in data[:2]:
        run.train_batch(x, y)
    pool = run.model.backend.pool
    before = pool.misses
    for x, y in data[2:4]:
        run.train_batch(x, y)
    assert pool.misses == before
    assert pool.hits > 50


@pytest.mark.parametrize("frozen", [None, 0, 1])
def test_an_optimiser_launches_once_per_run_of_trainable_parameters(monkeypatch, frozen):
    """The result is that of serial."""
    pair = [trainer(backend, plain, "float32", nb.Adam(1e-2)) for backend in ("serial", "cuda")]
    x, y = next(batches("float32"))
    launches = []
    update = nb.Adam._update
    monkeypatch.setattr(nb.Adam, "_update", lambda self, backend, *args: (launches.append(backend.name), update(self, backend, *args)))
    for run in pair:
        if frozen is not None:
            next(iter(run.model.layers[frozen].params.values())).trainable = False
        run.train_batch(x, y)
    assert launches.count("cuda") == launches.count("serial") == (2 if frozen else 1)
    for (name, a), b in zip(pair[0].model.state().items(), pair[1].model.state().values(), strict=True):
        assert_close(np.asarray(b), a, "training", "float32", f"{name}: ")


def test_a_loop_of_your_own_has_the_bits_of_the_trainer():
    """The README's loop; dx is on the GPU, and those of two passes can be added."""
    run, own = (trainer("cuda", plain, "float32", nb.Adam(1e-2)) for _ in range(2))
    loss = nb.losses.SoftmaxCrossEntropy(label_smoothing=0.1)
    run.loss = loss
    for x, y in list(batches("float32"))[:2]:
        run.train_batch(x, y)
        prediction, tape = own.model.forward(x, train=True)
        dx = own.model.backward(loss(prediction, y, backend=own.model.backend).gradient, tape)
        own.optimizer.step(own.model.params, own.model.backend)
        assert np.asarray(dx).shape == x.shape
    for (name, a), b in zip(run.model.state().items(), own.model.state().values(), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name
    kept = [np.array(param.grad) for param in own.model.params.values()]
    prediction, tape = own.model.forward(x, train=True)
    own.model.backward(loss(prediction, y, backend=own.model.backend).gradient, tape)
    for param, grad in zip(own.model.params.values(), kept):
        expected = np.asarray(param.grad) + grad
        param.grad[:] = expected
        assert_close(np.asarray(param.grad), expected, "exact")


def test_two_runs_are_the_same_bits():
    states = []
    for _ in range(2):
        run = trainer("cuda", plain, "float32", nb.Adam(1e-2))
        for x, y in list(batches("float32"))[:2]:
            run.train_batch(x, y)
        states.append({name: np.asarray(array).tobytes() for name, array in run.model.state().items()})
    assert states[0] == states[1]


@pytest.mark.parametrize("size", [3, 130, *(() if SIMULATED else (1_000_003,))])
def test_masks_are_the_bytes_of_the_cpu(size):
    masks = [
        np.asarray(F.dropout_forward(np.ones(size, "float32"), 0.3, seed=9, step=4, stream=2, backend=b)[0]) for b in ("serial", "cuda")
    ]
    assert masks[0].tobytes() == masks[1].tobytes()
    assert_close(masks[1] > 0, philox.words(0, size, 9, 2, 4) >= round(0.3 * 2**32), "exact")


def test_checkpoints_go_between_backends(tmp_path):
    data = list(batches("float32"))
    runs = {backend: trainer(backend, plain, "float32", nb.Adam(1e-2)) for backend in ("serial", "cuda")}
    runs["cuda"].train_batch(*data[0])
    runs["cuda"].save(tmp_path / "run.safetensors")
    runs["serial"].restore(tmp_path / "run.safetensors")
    for name, array in runs["serial"].model.state().items():
        assert_close(np.asarray(runs["cuda"].model.state()[name]), array, "exact", what=name)
    losses = [run.train_batch(*data[1])["loss"] for run in runs.values()]
    assert_close(losses[1], losses[0], "training", "float32")


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_uploads_ahead_change_nothing(dtype, options):
    """fit, which sends the next batch ahead, is train_batch on the same rows in the same order, bit for bit; also when it stops within
    an epoch and continues."""
    rows = 2 * ROWS + 1  # a last batch of one row joins the one before it
    x = np.random.default_rng(0).integers(0, 256, (rows, SIDE, SIDE, 2)).astype(dtype)
    y = np.arange(rows) % 3
    fitted, stepped = (trainer("cuda", plain, "float32", nb.Adam(1e-2), **options) for _ in range(2))
    stop = Callback()
    stop.on_batch_end = lambda run: run.stop("first batch") if run.step == 1 else None
    fitted.fit((x, y), epochs=2, batch_size=ROWS, callbacks=[stop], progress=False)
    assert fitted.step == 1
    fitted.fit((x, y), epochs=2, batch_size=ROWS, progress=False)
    for epoch in range(2):
        order = permutation(rows, 0, epoch)
        for batch in (order[:ROWS], order[ROWS:]):
            stepped.train_batch(x[batch], y[batch])
    assert fitted.step == stepped.step == 4
    for (name, a), b in zip(fitted.model.state().items(), stepped.model.state().values(), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


def test_the_next_batch_is_sent_before_a_step_and_only_two_are_on_the_gpu(monkeypatch):
    run = trainer("cuda", plain, "float32", nb.Adam(1e-2))
    device, events, alive = run.model.backend.device, [], weakref.WeakSet()
    upload, step = device.Upload, loop.train_step

    class Logged(upload):
        def __init__(self, array):
            super().__init__(array)
            alive.add(self)
            events.append(("send", len(alive)))

    monkeypatch.setattr(device, "Upload", Logged)
    monkeypatch.setattr(loop, "train_step", lambda *args: (events.append(("step", len(alive))), step(*args))[1])
    x = np.zeros((3 * ROWS, SIDE, SIDE, 2), np.float32)
    run.fit((x, np.arange(len(x)) % 3), epochs=1, batch_size=ROWS, progress=False)
    assert events == [("send", 1), ("send", 2), ("step", 2), ("send", 2), ("step", 2), ("step", 1)]


def test_fit_from_bytes(tmp_path):
    run = trainer("cuda", plain, "float32", nb.Adam(1e-2))
    x = np.random.default_rng(0).integers(0, 256, (ROWS + 2, SIDE, SIDE, 2), np.uint8)
    history = run.fit((x, np.arange(len(x)) % 3), epochs=1, batch_size=ROWS, progress=False)
    assert np.isfinite(history["loss"]).all()


def test_a_step_that_blows_up_changes_nothing():
    run = trainer("cuda", plain, "float32", nb.Adam(1e-2))
    x, y = next(batches("float32"))
    run.model.layers[-1].params["weight"].value[:] = np.nan
    before = {name: np.asarray(array).tobytes() for name, array in run.model.state().items()}
    with pytest.raises(nb.NbnetError, match=r"the parameters of layer 6\.dense are not finite"):
        run.train_batch(x, y)
    assert before == {name: np.asarray(array).tobytes() for name, array in run.model.state().items()}


def test_the_command_prepares_a_model_as_on_other_backends():
    model = nb.Sequential(plain())
    model.build((SIDE, SIDE, 1), backend="cuda")
    spare = nb.Trainer(model, optimizer=nb.SGD(0.1))
    assert kernels.show(kernels.first_step(spare), kernels.count_steps(spare), "cuda", "compiling") == 0


@pytest.mark.parametrize("axes", [0, (0, 1), (1,), (0, 1, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_an_array_on_the_gpu(axes, weighted):
    x = np.random.default_rng(3).normal(2, 3, (4, 3, 2))
    weights = np.arange(1.0, 5.0).reshape(4, 1, 1) if weighted else None
    on_gpu = nb.get_backend("cuda").place(x)
    for keepdims in (False, True):
        found = F.moments(on_gpu, axes, keepdims, weights, backend="cuda")
        for array, wanted in zip(found, F.moments(x, axes, keepdims, weights, backend="serial")):
            assert_close(array, wanted, "reduction")


def test_several_inputs_and_outputs_agree_with_serial(rng):
    x = rng.normal(size=(2 * ROWS, 5)).astype("float32"), rng.integers(0, 256, (2 * ROWS, 3, 2, 1)).astype("uint8")
    y = rng.integers(0, 3, 2 * ROWS), rng.normal(size=(2 * ROWS, 2))
    pair = []
    for backend in ("serial", "cuda"):
        trunk = nb.Dense(4)
        model = nb.Sequential(
            [nb.Parallel([trunk, [nb.Flatten(), nb.Dense(5), trunk]]), nb.Concat(), nb.Parallel([nb.Dense(3), nb.Dense(2)])]
        )
        model.build(((5,), (3, 2, 1)), backend=backend, dtype="float32", seed=7)
        pair.append(nb.Trainer(model, ("softmax_cross_entropy", "mean_squared_error"), optimizer=nb.SGD(0.1)))
    expected, actual = (run.fit((x, y), epochs=2, batch_size=ROWS, validation=(x, y), progress=False) for run in pair)
    for key in ("loss", "val_loss", "val_accuracy"):
        assert_close(np.array(actual[key]), np.array(expected[key]), "training", "float32")
    for a, b in zip(pair[0].model.predict(x), pair[1].model.predict(x), strict=True):
        assert_close(b, a, "training", "float32")


LOSSES = [
    nb.losses.SoftmaxCrossEntropy(0.1, [1, 2, 0.5], ignore_index=0),
    nb.losses.BinaryCrossEntropy(pos_weight=[1, 2, 3]),
    nb.losses.Focal(alpha=0.25),
    nb.losses.Huber(0.5),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_losses_weights_and_metrics_agree_with_serial(rng, loss):
    x, labels, weights = rng.normal(size=(2 * ROWS, 5)), rng.integers(0, 3, 2 * ROWS), rng.uniform(size=2 * ROWS)
    softmax = isinstance(loss, nb.losses.SoftmaxCrossEntropy)
    y, metrics = labels if softmax else np.eye(3)[labels], ["mae"] if isinstance(loss, nb.losses.Huber) else ["f1", "auc"]
    histories = []
    for backend in ("serial", "cuda"):
        model = nb.Sequential([nb.Dense(3)])
        model.build((5,), backend=backend, dtype="float64", seed=7)
        trainer = nb.Trainer(model, loss, nb.SGD(0.1), metrics=metrics)
        histories.append(trainer.fit((x, y), 2, ROWS, validation=(x, y, weights), progress=False, sample_weight=weights))
    for key in ("loss", "val_loss", *metrics, f"val_{metrics[0]}"):
        assert_close(np.array(histories[1][key]), np.array(histories[0][key]), "training")


def test_losses_of_rows_agree_with_serial(rng):
    """They compute on the host: of three outputs, and of the user's."""

    class Cube(nb.losses.Loss):
        def of_rows(self, prediction, target):
            return (abs(prediction) ** 3).sum(axis=1), 3 * prediction * abs(prediction)

    x, weights = rng.normal(size=(3, ROWS, 5)), rng.uniform(size=ROWS)
    found = {}
    for backend in ("serial", "cuda"):
        trunk = nb.Dense(3)
        three, one = nb.Sequential([nb.Parallel([trunk] * 3)]), nb.Sequential([nb.Dense(2)])
        three.build(((5,),) * 3, backend=backend, dtype="float64", seed=7)
        one.build((5,), backend=backend, dtype="float64", seed=7)
        for model, loss, data in ((three, "triplet", tuple(x)), (one, Cube(), x[0])):
            trainer = nb.Trainer(model, loss, nb.SGD(0.1))
            losses = [trainer.train_batch(data, np.zeros(ROWS), weights)["loss"] for _ in range(3)]
            found.setdefault(backend, []).extend(losses)
    assert_close(found["cuda"], found["serial"], "training")
