"""Layers that cannot be recorded run live within a recording, and give the bits that they give without one."""

from dataclasses import dataclass

import numpy as np
import pytest

import nbnet as nb
from nbnet.runtime.stage import can_replay

from .passes import Doubled, batch, both, live, recordings, state, trainer

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
