"""The demonstrations without training: what they would train returns made-up numbers, so that all they say and draw is known."""

import zlib

import numpy as np
from PIL import Image

import nbnet as nb
from nbnet import demos
from nbnet.demos import animation, convergence, deep_tanh, dropout_overfit, feature_scaling, moving_average, moving_modes


def falling(count, *key, start=9.0, end=0.1):
    """A series that falls from start to about end with some noise, which depends on the key alone."""
    noise = np.random.default_rng(zlib.crc32(repr(key).encode())).uniform(0.7, 1.4, count)
    return np.geomspace(start, end, count) * noise


def one(*key, low=0.0, high=1.0):
    return float(np.random.default_rng(zlib.crc32(repr(key).encode())).uniform(low, high))


class Calls(list):
    """What the demonstration asked for: lines of text."""

    def note(self, *words):
        self.append("asked for " + ", ".join(map(str, words)))


def install(name, monkeypatch, calls):
    """Replace what a demonstration trains."""
    KINDS[name](monkeypatch, calls)


def _deep_tanh(monkeypatch, calls):
    def train(seed, batch_norm, steps, backend, advance):
        calls.note("train", seed, batch_norm, steps, backend)
        advance(steps)
        key, checks = ("tanh", seed, batch_norm), deep_tanh.checked(steps)
        x = np.linspace(-7, 10, 200)[:, None]
        layers = []
        for i in range(len(checks)):
            spread = np.linspace(0.002, 4, deep_tanh.UNITS) * (1 + i)
            into = [np.sin(x + layer + seed) * spread[::-1] ** (layer % 3) / (1 + layer) for layer in range(deep_tanh.LAYERS)]
            layers.append([(x, x / 6), *((each, np.tanh(each)) for each in into)])
        losses = list(falling(len(checks), *key, start=900, end=100 if batch_norm else 650 + 40 * seed))
        return deep_tanh.Run(checks, losses, x[:, 0] ** 2 + falling(200, *key), layers)

    def frame(figure):
        calls.note("frame", figure.get_suptitle(), f"{figure.dpi} dpi")
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(deep_tanh, "train", train)
    monkeypatch.setattr(animation, "frame", frame)
    monkeypatch.setattr(animation, "save", lambda frames, path, times: calls.note("animation", len(frames), path.name, times))


def _convergence(monkeypatch, calls):
    def train(seed, batch_norm, start, backend, advance):
        calls.note("train", seed, batch_norm, *start, backend)
        advance(start.epochs + 1)
        key = (seed, batch_norm, start.key)
        # Some levels are reached at every seed, some at none, some at one.
        train = falling(start.epochs + 1, *key, start=30, end=0.07 if batch_norm else (3, 0.6, 0.05)[seed])
        return convergence.Run(train, falling(len(convergence.seen(start.epochs)), *key, "test", start=40), one(*key, low=1, high=9))

    times = {
        f"{name}_{key}": demos.drawing.spread([i + 1.5, i + 2])
        for i, name in enumerate(("nbnet", "pytorch"))
        for key in ("without", "with")
    }
    found = {"unit": "ms a step", "pytorch": "2.0", "threads": 3} | times
    monkeypatch.setattr(convergence, "train", train)
    monkeypatch.setattr(convergence, "beside_pytorch", lambda backend: calls.note("beside_pytorch", backend) or found)


def _cifar_cnn(monkeypatch, calls):
    class Trainer:
        def __init__(self, model, **options):
            calls.note("trainer", model.backend.name, options["optimizer"], options["seed"])
            self.history = {name: [] for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")}
            self.key = (len(model.layers), options["seed"])

        def fit(self, data, epochs, batch_size, validation, progress):
            calls.note("fit", *(array.shape for array in (*data, *validation)), epochs, batch_size, progress)
            for name, values in self.history.items():
                value = one(name, epochs, *self.key, low=0.2) if "loss" not in name else 4 / epochs**3 * one(name, *self.key, low=0.3)
                values.append(value * (9 if epochs == 1 and name == "seconds" else 1))

        def evaluate(self, x, y):
            calls.note("evaluate", x.shape, y.shape)
            return {"loss": one("evaluated", *self.key), "accuracy": 0.75}

    def predict_proba(model, x):
        calls.note("predict_proba", x.shape)
        found = np.full((len(x), 10), 0.01)
        found[np.arange(len(x)), np.arange(len(x)) % 10] = np.linspace(0.2, 0.95, len(x))
        return found

    monkeypatch.setattr(nb, "Trainer", Trainer)
    monkeypatch.setattr(nb.Sequential, "predict_proba", predict_proba)


def _dropout_overfit(monkeypatch, calls):
    def train(rate, seed, steps, backend, advance, batch=dropout_overfit.POINTS):
        calls.note("train", rate, seed, steps, backend, batch)
        advance()
        key = (rate, seed, batch)
        history = {
            name: falling(dropout_overfit.EVALUATIONS, name, *key, start=2, end=0.05 + rate / 9) for name in ("train", "test", "average")
        }
        x = dropout_overfit.GRID[:, 0]
        fits = [(0.8 + one(part, *key, high=0.4)) * x + 0.2 * x**3 for part in ("fit", "average")]
        return dropout_overfit.Run(history, *fits, one(*key, low=0.05, high=0.2), f"model {rate} {seed}")

    def expectation(model, seed, counts):
        calls.note("expectation", model, seed, counts)
        return {kind: counts**-0.5 * one(kind, seed, low=0.8, high=1.2) for kind in ("inverted", "vanilla")}

    monkeypatch.setattr(dropout_overfit, "train", train)
    monkeypatch.setattr(dropout_overfit, "expectation", expectation)


def _feature_scaling(monkeypatch, calls):
    factors = {feature_scaling.RAW: 2e-5, feature_scaling.SCALED: 0.9, feature_scaling.NORMED: 0.8}

    def measure(kind, seed, size, settings, advance):
        calls.note("measure", kind, seed, *size, settings.backend)
        advance(size.bisections + 1)
        largest = factors[kind] * one(kind, seed, low=0.8, high=1.2)
        path = np.stack([np.linspace(0, top, feature_scaling.PATH + 1) for top in (2.6, 0.9, 0.1)], axis=1)
        losses = falling(len(feature_scaling.moments(size.steps)), kind, seed, start=4e4, end=5 if kind == feature_scaling.RAW else 0.7)
        return feature_scaling.Run(largest, factors[kind], path, losses, 1 + seed / 50)

    monkeypatch.setattr(feature_scaling, "measure", measure)


def _moving_average(monkeypatch, calls):
    def train(seed, steps, data, backend, advance):
        calls.note("train", seed, steps, len(data.x), backend)
        advance()
        names, count = (*moving_average.DECAYS, moving_average.BY_BATCH), steps // moving_average.LOOK
        return moving_average.Training({name: list(1 - falling(count, name, seed, start=0.6, end=0.02)) for name in names}, f"model {seed}")

    def restore(trained, seed, data, backend):
        calls.note("restore", trained, seed, len(data.x), backend)
        names = ("before", moving_average.COMPLETE, moving_average.FORGOTTEN, moving_average.RECALIBRATED)
        return {name: share - seed / 50 for name, share in zip(names, (0.95, 0.95, 0.2, 0.94))}

    def fine_tune(trained, seed, settings, advance):
        calls.note("fine_tune", trained, seed, settings.backend)
        advance()
        names = moving_modes.SWITCHES
        return {name: {measure: one(name, measure, seed) for measure in moving_modes.MEASURES} for name in names}

    def train_small(kind, size, one_class, steps, seed, data, settings):
        calls.note("train_small", kind, size, one_class, steps, seed, len(data.x), settings.backend)
        return one(kind, size, one_class, seed)

    monkeypatch.setattr(moving_average, "train", train)
    monkeypatch.setattr(moving_average, "restore", restore)
    monkeypatch.setattr(moving_modes, "fine_tune", fine_tune)
    monkeypatch.setattr(moving_modes, "_train_small", train_small)


KINDS = {
    "deep-tanh": _deep_tanh,
    "convergence": _convergence,
    "cifar-cnn": _cifar_cnn,
    "dropout-overfit": _dropout_overfit,
    "feature-scaling": _feature_scaling,
    "moving-average": _moving_average,
}
