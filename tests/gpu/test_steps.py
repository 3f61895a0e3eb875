"""A training step on compiled kernels that is recorded as a list of launches and played gives the bits of ordinary steps."""

import cuda_machine
import numpy as np
import pytest

import nbnet as nb
from nbnet.training import graph

from .test_training_step import CASES, ROWS

pytestmark = pytest.mark.skipif(not cuda_machine.GPU, reason="there is no GPU: use --cuda=executor")
OPTIMIZERS = {"momentum": lambda: nb.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.01), "adamw": lambda: nb.AdamW(1e-3)}
STEPS = 4  # one layer by layer, one that is recorded, two that are played
LABELS = np.arange(ROWS)


def play_by_list(recording):
    from nbnet.kernels.gpu.launches import stream

    return lambda: recording.play(stream())


def batch(rng, shape, loss):
    pair = isinstance(shape[0], tuple)
    x = tuple(rng.normal(size=(ROWS, *each)).astype("float32") for each in (shape if pair else (shape,)))
    y = rng.permutation(LABELS) if loss == "softmax_cross_entropy" else rng.uniform(size=(ROWS, *shape)).astype("float32")
    return x if pair else x[0], y


def bits(trainer):
    return {name: np.asarray(array).tobytes() for name, array in (trainer.model.state() | trainer.optimizer.state).items()}


def recorded(trainer):
    """The recordings of a trainer."""
    return [step.recording for step in trainer.graphs.passes._recordings.values() if step is not None]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_played_steps_have_the_bits_of_ordinary_ones(monkeypatch, rng, name, optimizer):
    network, shape, loss = CASES[name]
    monkeypatch.setattr(graph, "capture", play_by_list)
    trainers = []
    for graphs in (False, True):
        model = network()
        model.build(shape, backend="cuda", dtype="float32", seed=7)
        trainers.append(nb.Trainer(model, loss, optimizer=OPTIMIZERS[optimizer](), graph=graphs))
    for step in range(STEPS):
        x, y = batch(rng, shape, loss)
        for trainer in trainers:
            trainer.optimizer.lr *= 0.9  # as a schedule would
        losses = [trainer.train_batch(x, y) for trainer in trainers]
        assert losses[0] == losses[1], step
    ordinary, played = map(bits, trainers)
    assert [key for key, value in ordinary.items() if played[key] != value] == []
    assert len(recorded(trainers[1])) == 1
