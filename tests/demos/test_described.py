"""All that the demonstrations say and draw, from made-up numbers, beside tests/described/; and the numbers of short trainings."""

import json
import re
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest
from descriptions import check
from drawn import caught, number, numbers
from progress_bar import Bar

from nbnet import cli, demos
from nbnet.demos import cifar_cnn, convergence, deep_tanh, dropout_overfit, feature_scaling, moving_average, moving_modes

from . import made_up

NOISE = {"seconds", "versions"}  # what differs from run to run
PRINTED = {"summary", "title", "command"}  # what is printed too
SPREAD = {"median", "min", "max", "mean", "deviation", "seeds"}  # the keys of one figure over the seeds


@pytest.mark.parametrize("name", demos.DEMOS)
def test_a_demo_on_made_up_numbers(name, tmp_path, monkeypatch, capsys, request):
    """In short with two seeds, and in full with one."""
    lines, drawn = [], caught(monkeypatch)
    monkeypatch.chdir(tmp_path)
    three = [["--quick", "--seeds", "3", "--backend", "numpy"]] if name == "convergence" else []
    for words in (["--quick"], ["--seeds", "1", "--backend", "serial"], *three):
        calls = made_up.Calls()
        with monkeypatch.context() as patch:
            made_up.install(name, patch, calls)
            patch.setattr(demos, "Bar", Bar)
            assert cli.main(["demo", name, *words]) == 0
        lines += [f"=== {' '.join(words)}", *dict.fromkeys(f"{line} ({calls.count(line)} times)" for line in calls)]
        for bar in Bar.made:
            assert bar.updates[-1] == (bar.total,)
            lines.append(f"progress: {bar.total} {bar.words}, {numbers([done for (done,) in bar.updates])}")
        Bar.made.clear()
        lines += re.sub(r"in [\d.]+ s", "in # s", capsys.readouterr().out.replace("\\", "/")).splitlines()
        report = json.loads((tmp_path / "demos" / name / "results.json").read_text(encoding="utf-8"))
        assert report.keys() > NOISE | PRINTED
        assert report["summary"] == [line[2:] for line in lines if line.startswith("- ")][-len(report["summary"]) :]
        assert f"{report['title']} ({report['command']})" in lines
        lines += _flat({key: value for key, value in report.items() if key not in NOISE | PRINTED})
        lines += drawn
        drawn.clear()
    check(request.config, f"demo-{name}", lines)


def test_filters_of_colour_images(tmp_path, monkeypatch, request):
    drawn = caught(monkeypatch)
    weights = {kind: np.linspace(-1 - i, 1, 3 * 2 * 3 * 11).reshape(3, 2, 3, 11) for i, kind in enumerate(cifar_cnn.COLOURS)}
    cifar_cnn._draw_filters(weights, demos.Settings(tmp_path, 1, True, "serial"))
    check(request.config, "demo-filters", drawn)


def test_when_a_rate_converges(monkeypatch):
    """The last ten losses are lower than the first, and none was more than a hundred times as large."""

    def converges(*losses):
        each = iter(losses)
        trainer = SimpleNamespace(train_batch=lambda x, y: {"loss": next(each)})
        monkeypatch.setattr(feature_scaling, "make_trainer", lambda *given: trainer)
        x = np.zeros((1000, 2))
        return feature_scaling.converges("kind", 0.1, x, x, len(losses), "serial")

    assert converges(1.0, 100.0, *[0.9] * 10)
    assert not converges(1.0, 100.5, *[0.9] * 10)
    assert not converges(1.0, *[1.0] * 10)
    assert not converges(1.0, 0.1, *[1.01] * 10)
    assert converges(1.0, 90.0, *[0.99] * 10)


def test_the_data_of_cifar_cnn(tmp_path, monkeypatch, request):
    """Small images are enlarged; a folder's have 32 x 32 pixels."""
    asked = []

    def open_data(*arguments, **options):
        asked.append((*arguments, options))
        size = 32 if arguments[0] == "cifar10" else 10
        return (np.arange(2 * size * size).reshape(2, size, size, 1), [0, 1]), (np.zeros((1, size, size, 1)), [1]), ["a", "b"]

    monkeypatch.setattr(cifar_cnn.nb.datasets, "open_data", open_data)
    lines = []
    for name in (None, "cifar10", "photos"):
        found = cifar_cnn._data(demos.Settings(tmp_path, 1, True, "serial", name, "here"))
        lines += [f"{array.shape} {numbers(array)}" for array in (found[0][0], found[1][0])]
    check(request.config, "demo-data", [*lines, *map(str, asked)])


def _flat(value, path=""):
    """A line for each number and text in a report."""
    if isinstance(value, dict) and value.keys() == SPREAD:
        return [f"{path}: {_numbers(list(value.values())[:3])} of {_numbers(value['seeds'])}"]
    if isinstance(value, dict):
        return [line for key, each in value.items() for line in _flat(each, f"{path}/{key}".replace("\n", " "))]
    if isinstance(value, list) and any(isinstance(each, (dict, list, str)) for each in value):
        return [line for i, each in enumerate(value) for line in _flat(each, f"{path}/{i}")]
    return [f"{path}: {_numbers(value) if isinstance(value, list) else value}"]


def _numbers(values):
    return ", ".join("none" if value is None else number(value) for value in values)


# -------------------------------------------------------------------------------------------------- short trainings


class Advance:
    """Counts the steps of a progress bar."""

    def __init__(self):
        self.steps = 0

    def __call__(self, steps=1):
        self.steps += steps


def _deep_tanh(advance):
    yield from deep_tanh.make_data(1)
    for batch_norm in (False, True):
        yield deep_tanh.network(batch_norm)
        # Biases before a batch norm get no gradient but roundings, which Adam enlarges: what it sees in evaluation then differs.
        found = deep_tanh.train(1, batch_norm, 0 if batch_norm else 6, "serial", advance)
        yield from (found.steps, found.losses, found.fit, found.layers[-1])


def _convergence(advance):
    yield from convergence.make_data(1)
    yield convergence.linear_fit(1)
    for batch_norm in (False, True):
        yield convergence.network(batch_norm, 0.5)
        found = convergence.train(1, batch_norm, convergence.Start("a", 0.5, 5, ""), "serial", advance)
        assert 0 < found.seconds < 60
        yield from (found.train, found.test)


def _cifar_cnn(advance):
    for kind in cifar_cnn.COLOURS:
        yield cifar_cnn.network(kind, 7)


def _dropout_overfit(advance):
    yield from dropout_overfit.make_data(1)
    for rate, batch in ((0.0, 5), (0.5, 20)):
        found = dropout_overfit.train(rate, 1, 100, "serial", advance, batch)
        yield from (found.model, found.history, found.fit, found.average_fit, found.ensemble)
    yield dropout_overfit.expectation(found.model, 1, np.array([1, 2, 4]))


def _feature_scaling(advance):
    yield from feature_scaling.make_data(1)
    yield feature_scaling.moments(300)
    yield [x for x, _ in feature_scaling.batches(np.arange(1000), np.arange(1000), 12)]
    for kind in feature_scaling.COLOURS:
        yield feature_scaling.make_trainer(kind, 0.25, "serial").model
        yield from feature_scaling.measure(kind, 1, feature_scaling.Size(5, 20, 30), _settings(), advance)


def _moving_average(advance):
    data = moving_modes.digits()
    few = data._replace(x_test=data.x_test[:100], y_test=data.y_test[:100])
    yield from (*data, moving_modes.digits(0.4).x, moving_average.averages(1))
    found = moving_average.train(1, 20, few, "serial", advance)
    yield from (found.model, found.accuracy)
    yield moving_average.restore(found.model, 1, data, "serial")
    yield moving_modes.fine_tune(found.model, 1, _settings(), advance)
    for kind in moving_modes.COLOURS:
        yield from (moving_modes.dense(kind, 40), moving_modes.dense(kind, 39))
        yield [moving_modes._train_small(kind, 8, one_class, 40, 1, data, _settings()) for one_class in (False, True)]


def _settings():
    return demos.Settings(None, 1, True, "serial")


TRAININGS = (_deep_tanh, _convergence, _cifar_cnn, _dropout_overfit, _feature_scaling, _moving_average)


@pytest.mark.parametrize("name", ["deep-tanh", "convergence", "cifar-cnn", "dropout-overfit", "feature-scaling", "moving-average"])
def test_short_trainings(name, request):
    """The numbers of a few steps, which differ a little between processors."""
    advance = Advance()
    found = {each.__name__: each for each in TRAININGS}[f"_{name.replace('-', '_')}"](advance)
    lines = [line for value in found for line in _lines(value)]
    check(request.config, f"training-{name}", [*lines, f"advanced by {advance.steps}"], "described training")


def _lines(value):
    """A line for each array in a value."""
    if isinstance(value, dict):
        return [f"{key!r}: {line}" for key, each in value.items() for line in _lines(each)]
    if isinstance(value, (list, tuple)) and any(isinstance(each, (Iterable, dict)) for each in value):
        return [line for each in value for line in _lines(each)]
    if isinstance(value, (np.ndarray, list, tuple, float, int)):
        kind = f"{value.dtype} " if isinstance(value, np.ndarray) and value.dtype.kind == "f" else ""
        return [f"{kind}{numbers(np.asarray(value))}"]
    return [repr(value)]
