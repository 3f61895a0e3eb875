"""Passes that are played back give what the layers give one by one, bit for bit, and follow every change that is made on the way."""

import threading

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import BuildError, NonFiniteError
from nbnet.functional import fused
from nbnet.functional.conv2d import conv2d_backward
from nbnet.runtime.recording import Pass, Recording
from nbnet.runtime.replay import KEPT, Replay

from .passes import batch, both, live, recordings, state, trainer

NETWORKS = {
    "all in one pass": lambda: [nb.Conv2D(5, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dense(3)],
    "without fusion": lambda: [nb.MaxPool2D(3, padding="same"), nb.AvgPool2D(2), nb.Sigmoid(), nb.Flatten(), nb.Dense(3, use_bias=False)],
    "resampling": lambda: [
        nb.UpSample2D(2, "bilinear"),
        nb.ZeroPad2D(1),
        nb.Conv2D(3, 3),
        nb.AdaptiveAvgPool2D(2),
        nb.Flatten(),
        nb.Dense(3),
    ],
    "minimal filtering": lambda: [nb.Conv2D(16, 3), nb.LeakyReLU(0.1), nb.Conv2D(17, 3), nb.GlobalAvgPool2D(), nb.Dense(3)],
    "dropout": lambda: [nb.Dropout(0.3), nb.Flatten(), nb.Dense(9), nb.Dropout(0.5, variant="alpha"), nb.Dense(3)],
    "dropout with its own seed": lambda: [nb.Flatten(), nb.Dense(9), nb.Dropout(0.5, seed=2**63 + 5, variant="vanilla"), nb.Dense(3)],
    "norms": lambda: [nb.LayerNorm(), nb.Conv2D(4, 2, stride=2), nb.GroupNorm(2), nb.Tanh(), nb.Flatten(), nb.Dense(3)],
    "more norms": lambda: [nb.LayerNorm(axes=(1, 2, 3)), nb.Conv2D(4, 2), nb.InstanceNorm(), nb.RMSNorm(), nb.Flatten(), nb.Dense(3)],
    "batch norms": lambda: [
        nb.BatchNorm(axis=1),
        nb.BatchNorm(activation="tanh", track="deviation"),
        nb.Flatten(),
        nb.Dense(3),
        nb.BatchNorm(scale=False),
    ],
    "batch norms in float64": lambda: [nb.BatchNorm(stats_dtype="float64"), nb.Flatten(), nb.Dense(3), nb.BatchNorm(center=False)],
    "first dense of few inputs": lambda: [nb.GlobalAvgPool2D(), nb.Dense(9), nb.BatchNorm(), nb.Tanh(), nb.Dense(3)],
    "residual": lambda: [nb.Residual([nb.Conv2D(3, 3), nb.BatchNorm(), nb.ReLU()]), nb.Flatten(), nb.Dense(3)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["serial", "parallel"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits(name, backend, dtype):
    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i, dtype=dtype)) for i in range(6)]

    replayed = both(NETWORKS[name], steps, backend=backend, dtype=dtype)
    (recording,) = recordings(replayed)
    assert recording.calls_forward
    assert recording.calls_backward


def test_a_backward_in_blocks(monkeypatch):
    """Batch norm and convolution go backward image by image here, and the gradients of the weights are added up."""
    monkeypatch.setattr(fused, "BLOCK", 1)
    monkeypatch.setattr(fused, "OF_WEIGHTS", 0)

    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i)) for i in range(4)]

    (recording,) = recordings(both(NETWORKS["all in one pass"], steps))
    assert len(recording.calls_backward) > 8 * 4  # for each of 8 images two kernels and the sums of weight and bias


def test_blocks_are_as_large_as_may_be(monkeypatch):
    """Of five images whose gradients have 960 bytes each, beside 360 bytes of weights: one at a time, some, or all; all blocks have about
    as many."""
    calls = []
    monkeypatch.setattr(fused, "conv2d_backward", lambda *a, **b: calls.append(len(a[0])) or conv2d_backward(*a, **b))
    of_block = ((1, [1] * 5), (960, [1] * 5), (1920, [2, 2, 1]), (4799, [3, 2]), (4800, [5]), (1 << 22, [5]))
    for block, weights, sizes in (*((block, 0, sizes) for block, sizes in of_block), (1, 8, [3, 2]), (1, 14, [5]), (4799, 8, [3, 2])):
        monkeypatch.setattr(fused, "BLOCK", block)
        monkeypatch.setattr(fused, "OF_WEIGHTS", weights)
        model = nb.Sequential([nb.Conv2D(5, 3), nb.BatchNorm(), nb.ReLU()])
        model.build((8, 6, 2), backend="serial")
        y, tape = model.forward(np.ones((5, 8, 6, 2), np.float32), train=True)
        model.backward(np.ones_like(y), tape)
        assert calls == sizes
        calls.clear()


def test_the_numpy_backend_is_run():
    numpy = trainer(NETWORKS["dropout"](), backend="numpy")
    for i in range(3):
        numpy.train_batch(*batch(seed=i))
    assert not recordings(numpy)


def test_replay_can_be_turned_off_and_on():
    t = trainer(NETWORKS["norms"]())
    for i in range(3):
        t.train_batch(*batch(seed=i))
    assert recordings(t)
    t.replay = False
    assert not recordings(t)
    for i in range(3):
        t.train_batch(*batch(seed=i))
    assert not recordings(t)
    t.replay = True
    t.train_batch(*batch())
    assert recordings(t)


def test_nothing_is_recorded_without_replay():
    t = trainer(NETWORKS["norms"](), replayed=False)
    for i in range(4):
        t.train_batch(*batch(seed=i))
    assert not recordings(t)


def test_uint8_and_batches_of_many_shapes():
    def steps(trainer):
        result = []
        for i, rows in enumerate([8, 8, 5, 8, 5, 3, 4, 2, 9, 8, 9, 2, 3, 4, 4, 2, 9]):
            x, y = batch(rows, i)
            result.append(trainer.train_batch((x * 50).astype(np.uint8) if i % 3 else x, y))
        return result

    assert 0 < len(recordings(both(NETWORKS["all in one pass"], steps))) < KEPT


def test_a_shape_is_recorded_if_it_comes_again_soon():
    t = trainer(NETWORKS["norms"]())
    for rows in range(2, 8):
        t.train_batch(*batch(rows))
    t.train_batch(*batch(2))
    assert not recordings(t)
    for rows in (7, 2, 6, 7):
        t.train_batch(*batch(rows))
    assert [recording.x.shape[0] for recording in recordings(t)] == [2, 6, 7]


def test_a_whole_run_in_parts():
    def steps(trainer):
        history = trainer.fit(batch(43), epochs=3, batch_size=8, validation=batch(9, 1))
        return [history[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy")]

    both(lambda: [nb.Dropout(0.2), *NETWORKS["all in one pass"]()], steps, accumulate=3)


CHANGES = {
    "rate": lambda model: setattr(model.layers[0], "rate", 0.6),
    "fixed mask": lambda model: setattr(model.layers[0], "fixed_mask", True),
    "decay": lambda model: setattr(model.layers[2].moving, "decay", 0.5),
    "moving statistics": lambda model: setattr(model.layers[2], "use_batch_statistics", False),
    "no update": lambda model: setattr(model.layers[2], "update_statistics", False),
    "frozen": lambda model: model.layers[2].freeze(),
    "from now on cumulative": lambda model: setattr(model.layers[2].moving, "decay", None),
    "other arrays": lambda model: setattr(model.params["1.conv2d.weight"], "value", model.params["1.conv2d.weight"].value[::-1].copy()),
    "other gradients": lambda model: setattr(model.params["2.batchnorm.gamma"], "grad", np.zeros(5, np.float32)),
    "another buffer": lambda model: model.layers[2].buffers.update(moving_mean=np.full(5, 2, np.float32)),
    "values in place": lambda model: [np.multiply(array, 2, out=array, casting="unsafe") for array in model.state().values()],
    "another dtype": lambda model: (
        setattr(model.params["1.conv2d.bias"], "trainable", False) or setattr(model.params["2.batchnorm.beta"], "value", np.full(5, 0.1))
    ),
    "an array that is strided": lambda model: model.layers[2].buffers.update(moving_mean=np.zeros(10, np.float32)[::2]),
    "steps": lambda model: model.steps.__setitem__(slice(None), model.layers),
    "a tied parameter": lambda model: model.layers[2].params.update(gamma=model.layers[2].params["beta"]),
    "shared with another model": lambda model: nb.Sequential([*model.layers[:-1], nb.Dense(2)]).build(
        model.input_shape, backend=model.backend, dtype=model.dtype
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_followed(name):
    def steps(trainer):
        result = []
        for i in range(6):
            if i == 3:
                CHANGES[name](trainer.model)
            result.append(trainer.train_batch(*batch(seed=i)))
        return [*result, trainer.evaluate(*batch(seed=9))]

    both(lambda: [nb.Dropout(0.2), nb.Conv2D(5, 3), nb.BatchNorm(), nb.Tanh(), nb.Flatten(), nb.Dense(3)], steps)


def test_settings_are_looked_at_only_when_some_attribute_was_set(monkeypatch):
    t, looks = trainer(NETWORKS["all in one pass"]()), []
    monkeypatch.setattr(t._passes, "_now", lambda original=t._passes._now: (looks.append(1), original())[1])
    for i in range(3):
        t.train_batch(*batch(seed=i))
    (recording,) = recordings(t)
    looks.clear()
    t.train_batch(*batch())
    assert not looks
    nb.Dense(3).name = "of another model"
    t.train_batch(*batch())
    assert looks
    assert recordings(t) == [recording]
    del t.model.layers[1].stream
    t.train_batch(*batch())
    assert recordings(t) == []


def test_hooks_on_steps_are_called():
    t, calls = trainer(NETWORKS["all in one pass"]()), []
    step = t.model.steps[0]
    original = step.forward
    step.forward = lambda x, train=False: (calls.append(1), original(x, train))[1]
    for i in range(4):
        t.train_batch(*batch(seed=i))
    assert len(calls) == 4


def test_a_layer_on_another_backend():
    def steps(trainer):
        trainer.model.layers[0].backend = nb.get_backend("serial")
        return [trainer.train_batch(*batch(seed=i)) for i in range(3)]

    assert live(both(NETWORKS["norms"], steps)) == ["0.layernorm"]


def test_what_hangs_on_a_layer_is_not_copied():
    t = trainer(NETWORKS["norms"]())
    t.model.trainer, t.model.layers[0].lock = t, threading.Lock()
    for i in range(3):
        t.train_batch(*batch(seed=i))
    assert len(recordings(t)) == 1


def test_settings_that_change_all_the_time_are_not_recorded():
    t = trainer(NETWORKS["dropout"]())
    for i in range(5):
        t.model.layers[0].rate = 0.1 * i
        t.train_batch(*batch(seed=i))
        assert not recordings(t)
    t.train_batch(*batch())
    assert len(recordings(t)) == 1


def test_each_thread_records_for_itself():
    """A recording uses the scratch of the thread that made it."""

    def steps(trainer):
        result = [trainer.train_batch(*batch(seed=i)) for i in range(3)]
        for i in range(3):
            thread = threading.Thread(target=lambda i=i: result.append(trainer.train_batch(*batch(seed=3 + i))))
            thread.start()
            thread.join()
            if i == 0:
                assert not recordings(trainer)
        return result

    both(NETWORKS["minimal filtering"], steps, backend="serial")


def test_a_restored_run_goes_on(tmp_path):
    first = trainer(NETWORKS["dropout"]())
    first.train_batch(*batch())
    first.save(tmp_path / "run.safetensors")
    wanted = [first.train_batch(*batch(seed=i)) for i in range(4)]
    other = trainer([nb.Dropout(0.3), nb.Flatten(), nb.Dense(9), nb.Dropout(0.5, variant="alpha"), nb.Dense(3)])
    for i in range(3):  # the recording is made before, with other seeds and steps
        other.train_batch(*batch(seed=20 + i))
    other.restore(tmp_path / "run.safetensors")
    assert [other.train_batch(*batch(seed=i)) for i in range(4)] == wanted


def test_predictions_that_a_loss_keeps_stay_as_they_were():
    kept = []

    def loss(prediction, target, *, rows=None, backend="parallel"):
        kept.append((prediction, prediction.copy()))
        return nb.losses.softmax_cross_entropy(prediction, target, rows=rows, backend=backend)

    t = trainer(NETWORKS["all in one pass"](), loss=loss)
    for i in range(4):
        t.train_batch(*batch(seed=i))
    assert all((now == then).all() for now, then in kept)
    assert not (kept[2][0] == kept[3][0]).all()


def test_a_failed_step_changes_nothing_and_the_next_goes_on():
    def steps(trainer):
        result = [trainer.train_batch(*batch(seed=i)) for i in range(3)]
        before = state(trainer)
        kept = trainer.model.params["0.conv2d.weight"].value.copy()
        trainer.model.params["0.conv2d.weight"].value[:] = 3e38
        with pytest.raises(NonFiniteError):
            trainer.train_batch(*batch(seed=3))
        trainer.model.params["0.conv2d.weight"].value[:] = kept
        assert state(trainer) == before
        return [*result, *[trainer.train_batch(*batch(seed=i)) for i in range(4, 7)]]

    both(NETWORKS["all in one pass"], steps)


def test_an_interrupted_recording_is_made_again(monkeypatch):
    def interrupt(self, *args, **options):
        raise KeyboardInterrupt

    def steps(trainer):
        result = [trainer.train_batch(*batch())]
        with monkeypatch.context() as patch:
            patch.setattr(nb.Dense, "backward", interrupt)
            with pytest.raises(KeyboardInterrupt):
                trainer.train_batch(*batch(seed=1))
        return [*result, *[trainer.train_batch(*batch(seed=i)) for i in range(4)]]

    (recording,) = recordings(both(NETWORKS["all in one pass"], steps))
    assert recording.complete


def test_another_model():
    t, other = trainer(NETWORKS["norms"]()), trainer(NETWORKS["norms"]())
    for i in range(3):
        t.train_batch(*batch(seed=i))
    t._passes.of(other.model, batch()[0]).forward(batch()[0])
    assert t._passes.model is other.model
    t.model = other.model
    with pytest.raises(BuildError, match="it has parameters that this run has not trained; make a new Trainer"):
        t.train_batch(*batch())
    assert not other.model.params["5.dense.weight"].grad.any()


def test_memory_is_taken_once_and_given_back():
    t = trainer(NETWORKS["minimal filtering"](), backend="serial")
    pool = t.model.backend.pool
    x, y = batch(64)
    t.train_batch(x, y)
    before = pool.bytes, pool.misses
    t.train_batch(x, y)
    (recording,) = recordings(t)
    assert pool.misses - before[1] <= 4  # x, the gradient and the scratch, which have a place of their own
    before = pool.bytes, pool.misses
    for _ in range(3):
        t.train_batch(x, y)
    assert (pool.bytes, pool.misses) == before
    taken = sum(len(free) for free in recording.recorder.arena._free.values())
    assert taken > 3
    free = sum(map(len, pool._free.values()))
    del recording
    t._passes.clear()
    assert sum(map(len, pool._free.values())) >= free + taken
    t.train_batch(x, y)
    assert pool.misses == before[1]


def test_a_model_without_parameters():
    model = nb.Sequential([nb.Flatten(), nb.Tanh()])
    model.build((2, 2), seed=0)
    passes = Replay()
    x = np.ones((3, 2, 2), np.float32)
    assert isinstance(passes.of(model, x), Pass)
    for _ in range(2):
        one = passes.of(model, x)
        assert isinstance(one, Recording)
        assert (one.forward(x) == model.forward(x)[0]).all()
        one.backward(np.ones((3, 4), np.float32))
