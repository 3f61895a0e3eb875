"""Slices in one process: the same network as with whole batches, within rounding."""

import copy

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.distributed import wire
from nbnet.distributed.slicing import tree
from nbnet.errors import ArgumentError, BuildError, CheckpointError, RankError
from nbnet.functional import fused
from nbnet.functional.dropout import counter_of_part, dropout_at

from . import cases


def together(arrays):
    """One vector: some gradients are 0 within rounding, as that of a bias before a batch norm."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def gradients(t):
    return {name: param.grad.copy() for name, param in t.model.params.items()}


@pytest.mark.parametrize("rows", [64, 61, 5], ids=str)
@pytest.mark.parametrize("name", ["plain", "renorm", "deferred", "cumulative"])
def test_slices_are_the_whole_batch_within_rounding(name, rows):
    (x, y), _ = cases.data()
    found = []
    for slices in (None, 2, 8):
        t = cases.trainer(None, slices, "float64", cases.network(**cases.NORMS[name]))
        seen = [t.train_batch(x[:rows], y[:rows]), t.train_batch(x[rows : 2 * rows], y[rows : 2 * rows])]
        found.append(([each["loss"] for each in seen], gradients(t), {name: np.array(a) for name, a in t.model.buffers.items()}))
    losses, grads, buffers = found[0]
    for other in found[1:]:
        assert_close(other[0], losses, "training", "float64")
        assert_close(together(other[1]), together(grads), "training", "float64")
        for name, buffer in buffers.items():
            assert_close(other[2][name], buffer, "training", "float64")


def test_the_gradient_in_slices_against_differences(rng):
    (x, y), _ = cases.data()
    model = nb.Sequential(
        [nb.Conv2D(4, 3), nb.BatchNorm(), nb.GELU(), nb.Flatten(), nb.Dense(9), nb.BatchNorm(activation="tanh"), nb.Dense(10)]
    )
    t = cases.trainer(None, 8, "float64", model, nb.SGD(0.0))
    t.train_batch(x[:21], y[:21])
    grads = gradients(t)
    for name in ("0.conv2d.weight", "1.batchnorm.gamma", "1.batchnorm.beta", "4.dense.weight", "5.batchnorm.beta", "6.dense.bias"):
        param, step, losses = model.params[name], 1e-5, []
        direction, value = rng.normal(size=param.value.shape), param.value.copy()
        for sign in (1, -1):
            param.value[...] = value + sign * step * direction
            losses.append(t.train_batch(x[:21], y[:21])["loss"])
        param.value[...] = value
        assert_close((losses[0] - losses[1]) / (2 * step), (grads[name] * direction).sum(), "differences", "float64")


def test_apart_each_slice_has_its_own_statistics():
    """With sync=False a sliced batch is as many networks, whose gradients are added."""
    (x, y), _ = cases.data()

    def trained(rows, slices, **norm):
        model = nb.Sequential([nb.Flatten(), nb.Dense(5), nb.BatchNorm(**norm), nb.Dense(10)])
        t = cases.trainer(None, slices, "float64", model, nb.SGD(0.0))
        t.train_batch(x[rows], y[rows])
        return gradients(t) | {"moving": t.model.buffers["2.batchnorm.moving_mean"].copy()}

    found = trained(slice(0, 40), 2, sync=False)
    parts = [trained(rows, None) for rows in (slice(0, 20), slice(20, 40))]
    assert_close(together(found), (together(parts[0]) + together(parts[1])) / 2, "training", "float64")


def test_apart_the_moving_statistics_are_those_of_slices_averaged_in_the_end():
    """They are averaged after each step, which is the same: a moving average is linear in what it takes in."""
    (x, y), _ = cases.data()
    model = nb.Sequential([nb.Flatten(), nb.BatchNorm(sync=False, decay=0.7), nb.Dense(10)])
    t = cases.trainer(None, 4, "float64", model)
    means, variances = np.zeros((4, 64)), np.ones((4, 64))
    for step in range(5):
        rows = slice(40 * step, 40 * step + 40)
        t.train_batch(x[rows], y[rows])
        slices = x[rows].reshape(4, 10, 64) / 255
        means, variances = 0.7 * means + 0.3 * slices.mean(1), 0.7 * variances + 0.3 * slices.var(1, ddof=1)
    assert_close(model.buffers["1.batchnorm.moving_mean"], means.mean(0), "training", "float64")
    assert_close(model.buffers["1.batchnorm.moving_var"], variances.mean(0), "training", "float64")
    assert means.std(0).max() > 0.01


@pytest.mark.parametrize("name", ["plain", "apart", "ghost", "renorm"])
def test_slices_on_other_backends(name):
    """serial has the bits of parallel; NumPy, which runs each slice by itself, is near."""
    (x, y), _ = cases.data()
    found = []
    for backend in ("parallel", "serial", "numpy"):
        model = cases.network(**cases.NORMS[name])
        model.build((8, 8, 1), dtype="float64", seed=1, backend=backend)
        t = cases.trainer(None, 4, model=model)
        found.append([[t.train_batch(x[:rows], y[:rows])["loss"] for rows in (40, 40, 37, 40)], cases.digest(t)])
    assert found[0] == found[1]
    assert_close(found[2][0], found[0][0], "training", "float64")


def test_one_recording_covers_all_slices():
    (x, y), _ = cases.data()
    t = cases.trainer(None)
    for _ in range(3):
        t.train_batch(x[:40], y[:40])
    assert not t._passes._recordings
    assert not [each for each in t.sliced.passes._recordings.values() if each]  # spatial dropout cannot be recorded
    t = cases.trainer(None, model=nb.Sequential([nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.5), nb.Dense(10)]))
    live = cases.trainer(None, model=copy.deepcopy(t.model), replay=False)
    for rows in (40, 40, 33, 40, 33, 33, 34):  # as many rows in most slices, but not in the same batch
        assert t.train_batch(x[:rows], y[:rows]) == live.train_batch(x[:rows], y[:rows])
    assert len([each for each in t.sliced.passes._recordings.values() if each]) == 2
    t.model.layers[4].rate = live.model.layers[4].rate = 0.25
    for _ in range(3):
        assert t.train_batch(x[:40], y[:40]) == live.train_batch(x[:40], y[:40])


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("size", [8, 7], ids=str)
def test_the_mask_of_some_rows_is_that_of_the_batch(rng, backend, size, noise):
    be, x, shape = nb.get_backend(backend), rng.normal(size=(9, 3, size)), None
    counter = np.array([5, 6, 7], np.uint64)
    noise_shape = (9, 1, size) if noise else None
    whole, _ = dropout_at(x, 0.4, counter, "alpha", noise_shape, True, be)
    for start, stop in ((0, 4), (4, 9), (3, 5)):
        part = counter_of_part(start, x.shape[1:])
        part[:3] = counter
        shape = (stop - start, 1, size) if noise else None
        some, saved = dropout_at(x[start:stop], 0.4, part, "alpha", shape, True, be)
        assert np.array_equal(some, whole[start:stop])
        assert saved.counter is part


def test_the_tree_is_one_of_pairs():
    pairs = []
    assert tree([1, 2, None, 4, None, None, 7, None], lambda a, b: pairs.append((a, b)) or a + b) == 14
    assert pairs == [(1, 2), (3, 4), (7, 7)]


def test_bfloat16(rng):
    values = np.concatenate([rng.normal(size=1000) * 10.0 ** rng.integers(-30, 30, 1000), [0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    kind = wire.get("bfloat16")
    found = kind.decode(kind.encode(values))
    assert np.array_equal(np.isnan(found), np.isnan(values))
    finite = np.isfinite(values)
    assert np.abs(found[finite] - values[finite]).max() > 0
    assert (np.abs(found[finite] - values[finite]) <= np.abs(values[finite]) * 2.0**-8).all()
    assert np.array_equal(kind.decode(kind.encode(np.float32([1 + 2**-8, 1 + 3 * 2**-8]))), np.float32([1, 1 + 2**-6]))  # ties to even


def test_a_copy_of_a_trainer_goes_on_alike():
    (x, y), _ = cases.data()
    t = cases.trainer(None)
    t.train_batch(x[:40], y[:40])
    other = copy.deepcopy(t)
    assert other.slices == 8
    assert t.train_batch(x[40:80], y[40:80]) == other.train_batch(x[40:80], y[40:80])
    assert cases.digest(t) == cases.digest(other)


def test_a_step_that_fails_changes_nothing(monkeypatch):
    (x, y), _ = cases.data()
    t = cases.trainer(None)
    t.train_batch(x[:40], y[:40])
    before = cases.digest(t)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "normalization_input_gradient", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            t.train_batch(x[40:80], y[40:80])
    assert cases.digest(t) == before
    other = cases.trainer(None)
    other.train_batch(x[:40], y[:40])
    assert t.train_batch(x[40:80], y[40:80]) == other.train_batch(x[40:80], y[40:80])


class Own(nb.Sequential):
    def forward(self, x, train=False):
        return super().forward(x, train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": 3}, "slices=3, expected a power of two, such as 4"),
        ({"slices": 0}, "slices=0"),
        ({"wire": "int8"}, "unknown wire 'int8'"),
        ({"wire": "float16"}, "wire='float16' without comm, expected comm=MPI.COMM_WORLD with it: one process sends nothing"),
        ({"wire": "float16", "dtype": "float64"}, "wire='float16' is for models in float32, got float64"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        cases.trainer(None, **options)


def test_a_batch_norm_in_a_container_of_the_users(tmp_path):
    (x, y), _ = cases.data()
    inner = Own([nb.Dense(5), nb.BatchNorm()])
    t = cases.trainer(None, model=nb.Sequential([nb.Flatten(), inner, nb.Dense(10)]))
    with pytest.raises(ArgumentError, match=r"layer 1\.own\.1\.batchnorm cannot be synchronised over slices, since 1\.own runs it itself"):
        t.train_batch(x[:40], y[:40])
    inner.layers[1].sync = False
    t.train_batch(x[:40], y[:40])


def test_a_checkpoint_of_fewer_slices_than_ranks(tmp_path, monkeypatch):
    cases.trainer(None, 2).save(tmp_path / "run.safetensors")
    t = cases.trainer(None, 4)
    monkeypatch.setattr(t.ranks, "size", 4)
    with pytest.raises(CheckpointError, match="slices=2 on 4 ranks, expected at least one slice for each rank"):
        t.load_state(nb.training.checkpoint.read(tmp_path / "run.safetensors"))


def test_errors_name_a_speaker():
    assert RankError("x", 3).speaker == 3
    assert isinstance(RankError("x"), RuntimeError)
    with pytest.raises(BuildError):
        nb.Trainer(nb.Sequential([nb.Dense(3)]), slices=2)


def test_batches_of_which_other_slices_have_rows():
    """The gradients of gamma and beta are in the first slice that has rows, which of 3 rows is the third: those of others are 0 again."""
    (x, y), _ = cases.data()
    found = []
    for slices in (None, 8):
        t = cases.trainer(None, slices, "float64", nb.Sequential([nb.Flatten(), nb.Dense(6), nb.BatchNorm(), nb.Dense(10)]))
        for rows in (40, 3, 40, 3, 3, 40):
            t.train_batch(x[:rows], y[:rows])
        found.append(together(gradients(t)))
    assert_close(found[1], found[0], "training", "float64")
