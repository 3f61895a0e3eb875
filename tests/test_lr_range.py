"""The learning rate range test."""

import re

import numpy as np
import pytest
from tolerances import assert_close
from training.small import bits, small_trainer

import nbnet as nb
from nbnet import plots
from nbnet.errors import ArgumentError, DataError, NonFiniteError
from nbnet.training.epoch import batches

DATA = np.random.default_rng(0).random((40, 6, 6, 1)), np.arange(40) % 3


def test_the_losses_are_those_of_steps_with_these_rates():
    options = {"schedule": "cosine", "clip_norm": 1.0, "seed": 3}
    trainer, other = (small_trainer(optimizer=nb.SGD(0.1, momentum=0.9), average=nb.Lookahead(2), **options) for _ in range(2))
    trainer.fit(DATA, epochs=1, batch_size=16)
    trainer.lr_factor = 0.5
    before = bits(trainer), trainer.state().run, {name: array.copy() for name, array in trainer.average.state().items()}
    found = nb.lr_range_test(trainer, DATA, low=1e-4, high=1e-2, steps=6, batch_size=16)
    after = bits(trainer), trainer.state().run, trainer.average.state()
    assert before[:2] == after[:2]
    assert all(np.array_equal(array, after[2][name]) for name, array in before[2].items())
    assert_close(found.rates, 10 ** np.linspace(-4, -2, 6), "elementwise")
    other.load_state(trainer.state())
    other.lr_factor = 1.0
    rows = [*batches(40, 16, 3, 1), *batches(40, 16, 3, 2)]
    assert len(rows) == 6
    for rate, loss, batch in zip(found.rates, found.losses, rows, strict=True):
        other.optimizer.lr = rate
        assert other.train_batch(DATA[0][batch], DATA[1][batch])["loss"] == loss


def test_batches_are_those_of_fit():
    """Augmented, weighted, and of the user's own."""
    weights = np.linspace(0.8, 1, 40)
    options = {"low": 1e-3, "high": np.nextafter(1e-3, 1), "steps": 6, "batch_size": 16}
    trainer, twin = (small_trainer(optimizer=nb.SGD(1e-3), augment=["crop"], replay=False) for _ in range(2))
    found = nb.lr_range_test(trainer, (*DATA, weights), **options)
    steps = []
    twin.fit((*DATA, weights), 2, 16, callbacks=[Steps(steps)])
    assert_close(found.losses, np.array(steps), "reduction")
    cuts = [slice(0, 16), slice(16, 40)]
    own = nb.lr_range_test(trainer, [(DATA[0][cut], DATA[1][cut], weights[cut]) for cut in cuts], **options)
    steps.clear()
    twin = small_trainer(optimizer=nb.SGD(1e-3), augment=["crop"])
    twin.fit([(DATA[0][cut], DATA[1][cut], weights[cut]) for cut in cuts], 3, callbacks=[Steps(steps)])
    assert_close(own.losses, np.array(steps), "reduction")
    with pytest.raises(ArgumentError, match=r"^data of lr_range_test: generator can be iterated only once: expected an object that can"):
        nb.lr_range_test(trainer, (batch for batch in [DATA]))


class Steps(nb.callbacks.Callback):
    """Keeps the loss of each step."""

    def __init__(self, losses):
        self.losses, self.before = losses, (0, 0.0, 0)

    def on_batch_end(self, trainer):
        loss, rows = self.before[1:] if self.before[0] == trainer.epoch else (0.0, 0)
        now = trainer.position
        self.losses.append((now.loss - loss) / (now.rows - rows))
        self.before = trainer.epoch, now.loss, now.rows


def test_it_ends_where_training_diverges():
    found = nb.lr_range_test(small_trainer(optimizer=nb.SGD(0.1)), DATA, low=1e-3, high=1e12, steps=60)
    assert 2 < len(found.rates) == len(found.losses) < 60
    assert np.isfinite(found.losses).all()
    assert (found.losses[:-1] <= 4 * np.minimum.accumulate(found.losses[:-1])).all()


def test_a_first_loss_that_is_not_finite():
    trainer = small_trainer()
    trainer.model.params["7.dense.weight"].value[...] = np.nan
    with pytest.raises(NonFiniteError):
        nb.lr_range_test(trainer, DATA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0}, "low=0: expected a number above 0"),
        ({"high": np.inf}, "high=inf: expected a number above 0"),
        ({"low": 1.0, "high": 1.0}, "low=1.0, high=1.0: expected low below high"),
        ({"steps": 1}, "steps=1: expected a whole number, at least 2"),
        ({"batch_size": 0}, "batch_size=0: expected a whole number, at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        nb.lr_range_test(small_trainer(), DATA, **options)


def test_the_plot(tmp_path, monkeypatch):
    saved, save = [], plots.save
    monkeypatch.setattr(plots.figures, "save", lambda figure, path: (saved.append(figure), save(figure, path)))
    rates = np.geomspace(1e-4, 1, 30)
    nb.lr_range_test(small_trainer(), DATA, steps=5).plot(tmp_path / "rates.png")
    plots.rates(rates, 1 + (np.log10(rates) + 2) ** 2, tmp_path / "valley.png")
    plots.rates(rates[:1], [2.0], tmp_path / "one.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("rates", "valley", "one"))
    raw, smooth = (line.get_ydata() for line in saved[1].axes[0].get_lines())
    wanted = [np.average(raw[: i + 1], weights=0.8 ** np.arange(i, -1, -1)) for i in range(len(raw))]
    assert_close(smooth, np.array(wanted), "reduction")
    with pytest.raises(DataError, match="there are no finite losses"):
        plots.rates([], [], tmp_path / "none.png")
