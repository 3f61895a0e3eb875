"""Metrics of a Trainer: exact over an epoch, in the history, the evaluation and the progress bar; reports."""

import copy
import re

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError

from .small import bits, small_trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = RNG.integers(0, 3, 30)
W = RNG.integers(0, 3, 30)
NONE = 1e-300  # a learning rate that changes nothing
NAMES = ["accuracy", "top_5_accuracy", "precision", "recall", "f1", "auc"]


def trainer_of(loss="softmax_cross_entropy", outputs=3, lr=0.1, **options):
    model = nb.Sequential([nb.Dense(5), nb.Tanh(), nb.Dense(outputs)])
    model.build((4,), backend=options.pop("backend", "serial"), dtype="float64", seed=3)
    return nb.Trainer(model, loss, nb.SGD(lr), **options)


def found(name, prediction, target, weight=None, threshold=None):
    metric = nb.metrics.get(name, threshold)
    metric.update(prediction, target, weight)
    return metric.result()


def gap(y, prediction):
    """A function of the user's, of all rows."""
    return np.median(prediction[np.arange(len(y)), y] - prediction.mean(axis=1))


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("weights", [None, W])
def test_metrics_are_exact_over_the_epoch(backend, accumulate, weights):
    """Without learning, all batches see the same model, and the metrics are those of one pass over all rows."""
    trainer = trainer_of(lr=NONE, backend=backend, metrics=[*NAMES, gap], accumulate=accumulate)
    history = trainer.fit((X, Y), 2, 7, validation=(X, Y, weights), progress=False, sample_weight=weights)
    prediction = trainer.model.predict(X)
    for name in NAMES:
        wanted = found(name, prediction, Y, weights)
        for column in (history[name], history[f"val_{name}"]):
            assert_close(column, np.full(2, wanted), "reduction")
        assert_close(trainer.evaluate(X, Y, 11, sample_weight=weights)[name], wanted, "reduction")
        assert_close(trainer.train_batch(X, Y, sample_weight=weights)[name], wanted, "reduction")
    assert_close(history["gap"] + history["val_gap"], np.full(4, gap(Y, prediction)), "reduction")
    assert list(history) == ["loss", *NAMES, "gap", "val_loss", *(f"val_{name}" for name in NAMES), "val_gap", "lr", "seconds"]


@pytest.mark.parametrize("replay", [True, False])
def test_metrics_change_nothing_else(data, replay):
    runs = [small_trainer(replay=replay, metrics=metrics) for metrics in ((), ["f1", "auc"])]
    histories = [run.fit(data, 3, 16, validation=data, progress=False) for run in runs]
    assert bits(runs[0]) == bits(runs[1])
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert histories[0][key] == histories[1][key]
    assert list(histories[0]) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]


LOSSES = {  # name: the loss, outputs, targets, threshold, metrics
    "binary": (nb.losses.binary_cross_entropy, 1, Y % 2, 0.0, ["accuracy", "f1", "auc"]),
    "several bits": (nb.losses.focal, 3, np.eye(3)[Y], 0.0, ["accuracy", "f1", "auc"]),
    "hinge": (nb.losses.hinge, 1, 1 - 2 * (Y % 2), 0.0, ["accuracy", "recall"]),
    "numbers": (nb.losses.huber, 3, X[:, :3], None, ["mae", "r2"]),
    "probabilities": (nb.losses.kl_divergence, 3, np.eye(3)[Y] * 0.7 + 0.1, None, ["accuracy", "f1", "top_5_accuracy"]),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_metrics_of_other_losses(kind):
    loss, outputs, target, threshold, names = LOSSES[kind]
    trainer = trainer_of(loss, outputs, NONE, metrics=names)
    history = trainer.fit((X, target), 1, 7, validation=(X, target), progress=False)
    for name in names:
        wanted = found(name, trainer.model.predict(X), target, threshold=threshold)
        assert_close([history[name][0], history[f"val_{name}"][0]], [wanted] * 2, "reduction")


def test_ignored_rows_are_not_measured():
    keep = Y != 1
    trainer = trainer_of(nb.losses.SoftmaxCrossEntropy(ignore_index=1), lr=NONE, metrics=["f1", "accuracy"])
    history = trainer.fit((X, Y), 1, 7, progress=False, sample_weight=W)
    wanted = found("f1", trainer.model.predict(X)[keep], Y[keep], W[keep])
    assert_close(history["f1"][0], wanted, "reduction")


def test_a_run_that_stops_within_an_epoch():
    """It continues; a run that is restored there has not seen all rows, and says so."""

    class Stop(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            trainer.stop("enough")

    through, stopped = (trainer_of(metrics=["f1", gap]) for _ in range(2))
    history = through.fit((X, Y), 2, 7, progress=False)
    stopped.fit((X, Y), 2, 7, callbacks=[Stop()], progress=False)
    restored = trainer_of(metrics=["f1", gap])
    restored.load_state(stopped.state())
    for run in (copy.deepcopy(stopped), stopped):
        assert run.fit((X, Y), 2, 7, progress=False)["f1"] == history["f1"]
    again = restored.fit((X, Y), 2, 7, progress=False)
    assert np.isnan([again["f1"][0], again["gap"][0]]).all()
    assert (again["f1"][1], again["gap"][1], again["loss"]) == (history["f1"][1], history["gap"][1], history["loss"])


def test_a_step_that_fails_is_not_measured():
    calls = []

    class Interrupted(nb.metrics.Metric):
        """Counts rows, and fails once."""

        name = "rows"

        def reset(self):
            self.count = 0

        def update(self, prediction, target, weight=None):
            self.count += len(target)
            calls.append(self.count)
            if len(calls) == 3:
                raise KeyboardInterrupt

        def result(self):
            return self.count

    trainer = trainer_of(metrics=["f1", Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit((X, Y), 1, 7, progress=False)
    assert trainer.step == 2
    history = trainer.fit((X, Y), 1, 7, progress=False)
    assert history["rows"] == [30]
    assert history["f1"] == trainer_of(metrics=["f1"]).fit((X, Y), 1, 7, progress=False)["f1"]


def test_the_history_is_saved(tmp_path):
    trainer = trainer_of(metrics=["f1"])
    trainer.fit((X, Y), 2, 7, validation=(X, Y), progress=False)
    trainer.save(tmp_path / "run")
    other = trainer_of(metrics=["f1"])
    other.restore(tmp_path / "run")
    assert other.history == trainer.history


def test_the_progress_bar_has_them(capsys):
    trainer_of(metrics=["f1", gap]).fit((X, Y), 1, 30, progress=True)
    assert re.search(r"loss \d\.\d{4}  accuracy \d\.\d{4}  f1 \d\.\d{4}  gap -?\d", capsys.readouterr().err.replace("\n", " "))


class Nameless:
    def reset(self): ...
    def update(self, prediction, target, weight=None): ...
    def result(self): ...


def loss(y, prediction):
    return 0.0


def text(y, prediction):
    return "high"


BAD = [
    (["acuracy"], {}, r"unknown metric 'acuracy': did you mean 'accuracy'\? choose one of accuracy, "),
    ("accuracy", {}, r"metrics='accuracy': expected a list, such as metrics=\['accuracy'\]"),
    ([3], {}, "unknown metric 3"),
    ([nb.metrics.F1], {}, r"metrics has the class F1, expected a metric object: use F1\(\)"),
    ([Nameless()], {}, "the metric Nameless has no name"),
    ([lambda y, prediction: 0.0], {}, "a function named <lambda>: define it with def"),
    (["f1", nb.metrics.F1()], {}, "two columns of the history would have the name 'f1'"),
    ([loss], {}, "two columns of the history would have the name 'loss'"),
    (["mae"], {}, "the metric 'mae' is for numbers, the loss softmax_cross_entropy has classes: use 'accuracy' or 'f1'"),
    (["f1"], {"loss": "huber"}, "the metric 'f1' is for classes, the loss huber has none: use 'mae' or 'r2'"),
    (["top_5_accuracy"], {"loss": "focal"}, "the metric 'top_5_accuracy' is for rows with one class, each output of focal is one"),
]


@pytest.mark.parametrize(("metrics", "options", "message"), BAD)
def test_bad_metrics(metrics, options, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        trainer_of(**options, metrics=metrics)
    assert "\n" not in str(caught.value)


def test_several_outputs():
    model = nb.Sequential([nb.Parallel([[nb.Dense(3)], [nb.Dense(2)]])])
    model.build((4,), backend="serial", dtype="float64")
    losses = ("softmax_cross_entropy", "mean_squared_error")
    with pytest.raises(ArgumentError, match=r"'f1' is for one output, the model has 2: expected a function of \(y, prediction\)"):
        nb.Trainer(model, losses, nb.SGD(0.1), metrics=["f1"])

    def both(y, prediction):
        return (prediction[0].argmax(axis=1) == y[0]).mean() + abs(prediction[1] - y[1]).mean()

    trainer = nb.Trainer(model, losses, nb.SGD(NONE), metrics=[both])
    history = trainer.fit((X, (Y, X[:, :2])), 1, 7, progress=False)
    assert_close(history["both"][0], both((Y, X[:, :2]), model.predict(X)), "reduction")


def test_a_function_that_returns_no_number():
    with pytest.raises(ArgumentError, match="the metric text returned str, expected a number"):
        trainer_of(metrics=[text]).evaluate(X, Y)


# ----------------------------------------------------------------------------------------------------------- reports


def test_the_report():
    trainer = trainer_of()
    report = trainer.report(X, Y, ["cat", "dog", "mouse"], batch_size=7)
    said = trainer.model.predict(X).argmax(axis=1)
    assert report.matrix.tolist() == [[int(((i == Y) & (said == j)).sum()) for j in range(3)] for i in range(3)]
    assert report.accuracy == trainer.evaluate(X, Y)["accuracy"]
    lines = str(report).splitlines()
    assert re.fullmatch(r" +precision  recall      f1  support", lines[0])
    assert [line.split()[0] for line in lines[1:4]] == ["cat", "dog", "mouse"]
    assert lines[1].split()[1:] == [f"{report.precision[0]:.4f}", f"{report.recall[0]:.4f}", f"{report.f1[0]:.4f}", str((Y == 0).sum())]
    assert lines[-1].split() == ["mouse", *map(str, report.matrix[2])]
    assert repr(report).startswith("<Report of 30 rows, 3 classes, accuracy 0.")


def test_reports_of_two_classes_and_of_ignored_rows():
    trainer = trainer_of("binary_cross_entropy", 1)
    report = trainer.report(X, Y % 2)
    said = trainer.model.predict(X)[:, 0] > 0
    assert report.matrix.tolist() == [[int(((i == Y % 2) & (said == j)).sum()) for j in range(2)] for i in range(2)]
    ignoring = trainer_of(nb.losses.SoftmaxCrossEntropy(ignore_index=1))
    assert ignoring.report(X, Y).support.tolist() == [(Y == 0).sum(), 0, (Y == 2).sum()]


def test_bad_reports():
    for loss_name, y in (("huber", X[:, :3]), ("focal", np.eye(3)[Y])):
        with pytest.raises(ArgumentError, match=f"report is for rows with one class, the loss {loss_name} with outputs of shape"):
            trainer_of(loss_name).report(X, y)
    with pytest.raises(ArgumentError, match="class_names has 2 names, expected 3, one for each class"):
        trainer_of().report(X, Y, ["a", "b"])
    with pytest.raises(nb.NbnetError, match=r"^report data: label 3 of row"):
        trainer_of().report(X, Y + 1)
