"""Passes that are played back give what the layers give one by one, bit for bit, and follow every change that is made on the way."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import NonFiniteError
from nbnet.functional import fused
from nbnet.runtime.recording import Pass, Recording
from nbnet.runtime.replay import KEPT, Replay
from nbnet.runtime.stage import can_replay

NETWORKS = {
    "all in one pass": lambda: [nb.Conv2D(5, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dense(3)],
    "without fusion": lambda: [nb.MaxPool2D(3, padding="same"), nb.AvgPool2D(2), nb.Sigmoid(), nb.Flatten(), nb.Dense(3, use_bias=False)],
    "minimal filtering": lambda: [nb.Conv2D(16, 3), nb.LeakyReLU(0.1), nb.Conv2D(17, 3), nb.GlobalAvgPool2D(), nb.Dense(3)],
    "dropout": lambda: [nb.Dropout(0.3), nb.Flatten(), nb.Dense(9), nb.Dropout(0.5, variant="alpha"), nb.Dense(3)],
    "dropout with its own seed": lambda: [nb.Flatten(), nb.Dense(9), nb.Dropout(0.5, seed=2**63 + 5, variant="vanilla"), nb.Dense(3)],
    "norms": lambda: [nb.LayerNorm(), nb.Conv2D(4, 2, stride=2), nb.GroupNorm(2), nb.Tanh(), nb.Flatten(), nb.Dense(3)],
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
# Layers between whose calls Python looks at values.
APART = {
    "ghost batches": lambda: nb.BatchNorm(virtual_batch_size=4),
    "renormalised": lambda: nb.BatchNorm(renorm=nb.Renorm()),
    "deferred": lambda: nb.BatchNorm(update="deferred"),
    "cumulative": lambda: nb.BatchNorm(decay=None),
    "warm decay": lambda: nb.BatchNorm(warm_decay=True),
    "zero debias": lambda: nb.BatchNorm(zero_debias=True),
    "spatial dropout": lambda: nb.Dropout(0.4, spatial=True),
}


class Doubled(nb.Layer):
    """A user's layer: Python of its own, in which every step is another one."""

    calls = 0

    def forward(self, x, train=False):
        self.calls += train
        return x * np.asarray(self.calls, x.dtype), self.calls

    def backward(self, dy, saved, need_dx=True):
        return dy * np.asarray(saved, dy.dtype)


def trainer(layers, backend="parallel", dtype="float32", replayed=True, **options):
    model = nb.Sequential(layers)
    model.build((7, 6, 3), backend=backend, dtype=dtype, seed=3)
    return nb.Trainer(model, optimizer=nb.Adam(0.01), replay=replayed, **options)


def batch(rows=8, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 7, 6, 3)).astype(dtype), rng.integers(0, 3, rows)


def recordings(trainer):
    return list(trainer._passes._recordings.values())


def state(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state().items()}


def both(layers, steps, **options):
    """Two trainers, one that plays back and one that does not, after the same steps(trainer), which gives metrics."""
    replayed, plain = trainer(layers(), **options), trainer(layers(), replayed=False, **options)
    assert steps(replayed) == steps(plain)
    assert state(replayed) == state(plain)
    assert not recordings(plain)
    return replayed


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

    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i)) for i in range(4)]

    (recording,) = recordings(both(NETWORKS["all in one pass"], steps))
    assert len(recording.calls_backward) > 8 * 4  # for each of 8 images two kernels and the sums of weight and bias


def live(trainer):
    """The names of the stages that run live in the only recording."""
    (recording,) = recordings(trainer)
    return [stage.name for stage in recording.live]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", APART)
def test_layers_that_look_at_values_run_live(name, dtype):
    """They alone: the layers around them are replayed, and the results have the same bits."""

    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i, dtype=dtype)) for i in range(6)]

    layers = lambda: [nb.Conv2D(4, 3), nb.Tanh(), APART[name](), nb.Flatten(), nb.Dense(3), nb.BatchNorm()]  # noqa: E731
    replayed = both(layers, steps, dtype=dtype)
    (stage,) = live(replayed)
    assert stage.startswith("2.")
    (recording,) = recordings(replayed)
    assert len(recording.calls_forward) > 4


def test_a_fused_step_with_a_layer_that_looks_at_values_runs_live():
    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i)) for i in range(6)]

    layers = lambda: [nb.Conv2D(4, 3), nb.BatchNorm(renorm=nb.Renorm()), nb.ReLU(), nb.Flatten(), nb.Dense(3)]  # noqa: E731
    assert "0.conv2d, 1.batchnorm, 2.relu" in live(both(layers, steps))


def test_a_live_layer_within_a_residual():
    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i)) for i in range(6)]

    layers = lambda: [nb.Residual([nb.Conv2D(3, 3), Doubled(), nb.Tanh()]), nb.Flatten(), nb.Dense(3)]  # noqa: E731
    assert live(both(layers, steps)) == ["0.residual.body.1.doubled"]


def test_a_live_layer_that_becomes_replayable_is_recorded():
    """And the other way round: renormalisation that is turned off and on again."""

    def steps(trainer):
        norm, result = trainer.model.layers[1], []
        for i in range(12):
            if i % 4 == 0:
                norm.renorm = None if i == 4 else nb.Renorm()
            result.append(trainer.train_batch(*batch(seed=i)))
            if i % 4 == 3 and trainer.replay:
                assert live(trainer) == ([] if i == 7 else ["1.batchnorm"])
        return result

    both(lambda: [nb.Tanh(), nb.BatchNorm(), nb.Flatten(), nb.Dense(3)], steps)


def test_the_numpy_backend_is_run():
    numpy = trainer(NETWORKS["dropout"](), backend="numpy")
    for i in range(3):
        numpy.train_batch(*batch(seed=i))
    assert not recordings(numpy)


def test_layers_of_users_run_live():
    class Own(nb.Dense):
        def forward(self, x, train=False):
            return super().forward(x, train)

    patched = nb.Dense(3)
    patched.forward = lambda x, train=False: nb.Dense.forward(patched, x, train)
    doubled = Doubled()
    for layer in (Own(3), patched, doubled):
        t = trainer([nb.Flatten(), layer, nb.Dense(3)])
        for i in range(4):
            t.train_batch(*batch(seed=i))
        assert live(t) == [layer.name]
    assert doubled.calls == 4


class Own(nb.Tanh):
    def backward(self, dy, saved, need_dx=True):
        return super().backward(dy, saved, need_dx)


class Named(nb.Tanh):
    def __init__(self):
        super().__init__()


class DeclaredAgain(Own):
    replayable = True


class Mixin:
    def forward(self, x, train=False):
        return super().forward(x, train)


class Mixed(Mixin, nb.Tanh):
    pass


class AssignedLater(nb.Tanh):
    pass


AssignedLater.forward = lambda self, x, train=False: nb.Tanh.forward(self, x, train)


@pytest.mark.parametrize(
    ("kind", "replayed"),
    [(nb.Tanh, True), (nb.LeakyReLU, True), (Own, False), (Named, True), (DeclaredAgain, True), (Mixed, False), (AssignedLater, False)],
)
def test_a_class_is_replayable_only_if_its_own_code_was_declared_so(kind, replayed):
    layer = kind()
    layer.build((3,), backend="serial")
    assert can_replay(layer, layer.backend) == replayed


class Scaled(nb.Layer):
    """A user's layer that is replayable: y = scale * x, by kernels alone."""

    replayable = True

    def __init__(self):
        super().__init__()
        self.scale = 2.0

    def forward(self, x, train=False):
        x = self.check_input(x)
        y = self.backend.empty(x.shape, x.dtype)
        self.backend.kernel("array.scale")(x.reshape(-1), self.scale, y.reshape(-1))
        return y, () if train else None

    def backward(self, dy, saved, need_dx=True):
        return self.forward(dy)[0]


def test_a_replayable_layer_of_a_user():
    def steps(trainer):
        result = []
        for i in range(8):
            trainer.model.layers[0].scale = 2.0 if i < 4 else 0.5
            result.append(trainer.train_batch(*batch(seed=i)))
        return result

    assert live(both(lambda: [Scaled(), nb.Flatten(), nb.Dense(3)], steps)) == []


class Remembers(nb.Layer):
    """Adds the mean of the last inputs: it keeps the arrays that it gets."""

    kept = ()

    def forward(self, x, train=False):
        if train:
            self.kept = (*self.kept[-2:], x)
        return x + np.mean([each.mean(axis=0) for each in self.kept], axis=0).astype(x.dtype), None

    def backward(self, dy, saved, need_dx=True):
        return dy


class Twice(nb.Layer):
    """Twice as many rows, and half of them."""

    def forward(self, x, train=False):
        return np.concatenate([x, x * x]), x

    def backward(self, dy, saved, need_dx=True):
        return dy[: len(saved)] + 2 * saved * dy[len(saved) :]


class Half(nb.Layer):
    def forward(self, x, train=False):
        half = len(x) // 2
        return x[:half] - x[half:], None

    def backward(self, dy, saved, need_dx=True):
        return np.concatenate([dy, -dy])


@dataclass
class Settings(nb.Layer):
    """A layer without a hash."""

    factor: float = 2.0

    def __post_init__(self):
        super().__init__()

    def forward(self, x, train=False):
        return x * x.dtype.type(self.factor), None

    def backward(self, dy, saved, need_dx=True):
        return dy * dy.dtype.type(self.factor)


SHARED = {"own": Doubled, "nbnet's": lambda: nb.Dropout(0.3, noise_shape=(None, 1))}
USERS = {
    "keeps its input": lambda: [nb.Flatten(), nb.Dense(5), nb.Tanh(), Remembers(), nb.Dense(3)],
    "changes the batch": lambda: [nb.Flatten(), nb.Dense(5), Twice(), nb.Dense(4), Half(), nb.Dense(3)],
    "has no hash": lambda: [nb.Flatten(), nb.Dense(5), Settings(), nb.Dense(3)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", USERS)
def test_whatever_a_live_layer_does(name, dtype):
    def steps(trainer):
        return [trainer.train_batch(*batch(seed=i, dtype=dtype)) for i in range(6)]

    assert len(live(both(USERS[name], steps, dtype=dtype))) in (1, 2)


@pytest.mark.parametrize("name", SHARED)
def test_a_live_layer_in_two_places(name):
    def layers():
        shared = SHARED[name]()
        return [nb.Flatten(), nb.Dense(5), nb.Sequential([shared]), nb.Dense(5), nb.Sequential([shared]), nb.Dense(3)]

    both(layers, lambda trainer: [trainer.train_batch(*batch(seed=i)) for i in range(6)])


class Pair(nb.Layer):
    """A container that says that it is replayable, and hides its layers in a tuple."""

    replayable = True

    def __init__(self):
        super().__init__()
        self.parts = nb.Dense(4), nb.Tanh()

    def _build(self, input_shape, context):
        super()._build(input_shape, context)
        self.output_shape = self.parts[1]._build(self.parts[0]._build(input_shape, context.child("a")), context.child("b"))
        self._params = {f"a.{name}": param for name, param in self.parts[0].params.items()}
        return self.output_shape

    def forward(self, x, train=False):
        tape = []
        for part in self.parts:
            x, saved = part.forward(x, train)
            tape.append(saved)
        return x, tape

    def backward(self, dy, saved, need_dx=True):
        for part, of_part in zip(reversed(self.parts), reversed(saved)):
            dy = part.backward(dy, of_part)
        return dy


def test_a_container_that_hides_its_layers_runs_live():
    layers = lambda: [nb.Flatten(), Pair(), nb.Dense(3)]  # noqa: E731
    assert live(both(layers, lambda trainer: [trainer.train_batch(*batch(seed=i)) for i in range(5)])) == ["1.pair"]


class Wrong(nb.Layer):
    """Its gradient has another shape from the third time on."""

    calls = 0

    def forward(self, x, train=False):
        return x, None

    def backward(self, dy, saved, need_dx=True):
        self.calls += 1
        return dy if self.calls < 3 else dy.sum(axis=0, keepdims=True)


def test_a_live_layer_whose_results_change_is_one_clear_error():
    t = trainer([nb.Flatten(), nb.Dense(5), Wrong(), nb.Dense(3)])
    for i in range(2):
        t.train_batch(*batch(seed=i))
    before = state(t)
    with pytest.raises(nb.errors.ShapeError, match=r"layer 2.wrong: backward returned shape \(1, 5\) .*, expected shape \(8, 5\)"):
        t.train_batch(*batch())
    assert state(t) == before


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

    assert len(recordings(both(NETWORKS["all in one pass"], steps))) == KEPT


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
    "built again": lambda model: model.layers[1].build((7, 6, 3), seed=9),
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
    t.model = other.model
    assert not other.model.params["5.dense.weight"].grad.any()
    t.train_batch(*batch())
    assert other.model.params["5.dense.weight"].grad.any()


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
