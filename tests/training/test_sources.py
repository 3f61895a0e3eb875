"""Data that is not in memory, batches of one's own, and a share of the data for validation."""

import copy
import threading
from functools import partial

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.augment.pipeline import Pipeline
from nbnet.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError
from nbnet.preprocessing import stratified_split
from nbnet.runtime import lazy
from nbnet.training.augmented import own_batches

from .small import bits, small_trainer
from .sources import Loader, Shared, Stored, Tensor

MIXING = [(), ["flip", "crop"], ["flip", nb.augment.MixUp(), nb.augment.CutMix(probability=0.5), nb.augment.Normalize(0.2, 0.5)]]


@pytest.fixture(params=[True, False], ids=["read ahead", "no thread"])
def read_ahead(request, monkeypatch):
    monkeypatch.setattr(lazy, "READ_AHEAD", request.param)
    yield request.param
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbnet-read-ahead")]


def fit(data, epochs=2, batch_size=16, trainer=None, augment=(), **options):
    trainer = trainer or small_trainer(augment=augment)
    trainer.fit(data, epochs, batch_size, progress=False, **options)
    return trainer


def same(one, other):
    drop = {"seconds"}
    histories = [{key: column for key, column in trainer.history.items() if key not in drop} for trainer in (one, other)]
    return bits(one) == bits(other) and histories[0] == histories[1]


def mapped(x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


# ------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("augment", MIXING, ids=["plain", "augmented", "mixed"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_rows_that_are_read_give_the_bits_of_rows_in_memory(data, augment, dtype, read_ahead, tmp_path):
    x, y = data[0] if dtype == "uint8" else (data[0] / 255).astype(dtype), data[1]
    stored = Stored(x)
    plain = fit((x, y), augment=augment, validation=(x, y))
    assert same(plain, fit((stored, y), augment=augment, validation=(Stored(x), y)))
    assert same(plain, fit((mapped(x, tmp_path), y), augment=augment, validation=(x, y)))
    assert stored.most <= 16


def test_other_uses_of_rows_that_are_read(data):
    x, y = data
    stored, trainer = Stored(x), fit(data)
    assert np.array_equal(trainer.model.predict(stored, 8), trainer.model.predict(x, 8))
    assert trainer.evaluate(stored, y, 8) == trainer.evaluate(x, y, 8)
    assert str(trainer.report(stored, y)) == str(trainer.report(x, y))
    assert stored.most == len(x)
    other = copy.deepcopy(trainer)
    assert trainer.train_batch(Stored(x / 255), y) == other.train_batch(x / 255, y)


def test_several_inputs_that_are_read(rng, read_ahead):
    def run(kind):
        model = nb.Sequential([nb.Parallel([nb.Dense(3), nb.Dense(4)]), nb.Concat(), nb.Dense(2)])
        model.build(((5,), (4,)), backend="serial", dtype="float64", seed=1)
        return fit(((kind(a), b), y), trainer=nb.Trainer(model, optimizer=nb.Adam(0.01)))

    a, b, y = rng.random((40, 5)), rng.random((40, 4)), rng.integers(0, 2, 40)
    assert same(run(Stored), run(lambda x: x))


def test_values_are_checked_when_they_are_read(data, read_ahead):
    x, trainer = data[0] / 255, small_trainer()
    x[9, 1, 2, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"^x\[9, 1, 2, 0\] is nan: expected finite numbers"):
        fit((Stored(x), data[1]), trainer=trainer)
    assert trainer.epoch == 0
    assert np.isfinite(trainer.model.predict(data[0])).all()


def test_rows_that_do_not_fit(data):
    x, y = data
    before = small_trainer()
    for stored, labels, error, message in (
        (Stored(x[:, :5]), y, ShapeError, r"^data: layer sequential got x of shape \(70, 5, 6, 1\), expected \(N, 6, 6, 1\)"),
        (Stored(x.astype(int)), y, DTypeError, "^data: layer sequential got x of dtype int64, expected float64"),
        (Stored(x), y[1:], ShapeError, r"^data: x has shape \(70, 6, 6, 1\) but y has shape \(69,\)"),
    ):
        with pytest.raises(error, match=message):
            fit((stored, labels), trainer=before)
    wrong = Stored(x)
    wrong.dtype = np.dtype(np.float32)
    with pytest.raises(DataError, match=r"^16 rows of x are uint8 \(16, 6, 6, 1\), expected float32 \(16, 6, 6, 1\)$"):
        fit((wrong, y), trainer=before)
    assert same(before, small_trainer())


def test_the_third_part_is_the_sample_weight(data, rng):
    weights = rng.random(70)
    assert same(fit((*data, weights)), fit(data, sample_weight=weights))
    with pytest.raises(ArgumentError, match=r"^data has three parts .x, y, sample_weight., and sample_weight= is given too"):
        fit((*data, weights), sample_weight=weights)
    with pytest.raises(ShapeError, match=r"^data: sample_weight has shape \(69,\), expected \(70,\)"):
        fit((*data, weights[1:]))


# --------------------------------------------------------------------------------------------- validation_split


@pytest.mark.parametrize("kind", ["memory", "map", "stored"])
def test_a_share_for_validation(data, rng, kind, tmp_path):
    x, y = data
    weights = rng.random(70)
    train, held_out = stratified_split(y, 0.2, 0)
    expected = fit((x[train], y[train], weights[train]), validation=(x[held_out], y[held_out], weights[held_out]))
    given = {"memory": x, "map": mapped(x, tmp_path), "stored": Stored(x)}[kind]
    assert same(expected, fit((given, y, weights), validation_split=0.2))


def test_a_share_for_validation_where_nothing_has_a_class(rng):
    def run(**options):
        model = nb.Sequential([nb.Dense(2)])
        model.build((3,), backend="serial", seed=0)
        return fit((x, y), trainer=nb.Trainer(model, "mean_squared_error", nb.SGD(0.1), seed=4), **options)

    x, y = rng.random((20, 3)), rng.random((20, 2))
    train, held_out = stratified_split(np.zeros(20, int), 0.1, 4)
    assert len(held_out) == 2
    split = run(validation_split=0.1)
    x, y, pair = x[train], y[train], (x[held_out], y[held_out])
    assert same(split, run(validation=pair))


def test_the_share_is_the_same_when_a_run_goes_on(data, tmp_path):
    whole, part = fit(data, 3, validation_split=0.2), small_trainer()
    fit(data, 3, trainer=part, validation_split=0.2, callbacks=[StopAt(6)])
    part.save(tmp_path / "run")
    resumed = small_trainer(seed=0)
    resumed.restore(tmp_path / "run")
    assert same(whole, fit(data, 3, trainer=resumed, validation_split=0.2))


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop("enough")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.1, "validation": True}, "^validation_split=0.1 and validation= are both given: expected one of them$"),
        ({"validation_split": 1}, "^validation_split=1: expected a number between 0 and 1, such as 0.1$"),
        ({"validation_split": "0.1"}, "^validation_split='0.1': expected a number"),
        ({"steps_per_epoch": 3}, "^steps_per_epoch=3 is for batches of your own, got arrays: leave it out: an epoch is all rows$"),
    ],
)
def test_options_that_do_not_fit_arrays(data, options, message):
    trainer = small_trainer()
    with pytest.raises(ArgumentError, match=message):
        fit(data, trainer=trainer, **options | ({"validation": data} if "validation" in options else {}))
    assert same(trainer, small_trainer())


def test_a_share_that_has_no_row(data):
    x, y = data
    rows = [int((y == label).argmax()) for label in range(3)]
    with pytest.raises(DataError, match=r"^validation_split=0.1 leaves none of 3 rows: expected at least two rows of some class$"):
        fit((x[rows], y[rows]), validation_split=0.1)


# --------------------------------------------------------------------------------------- batches of one's own


def by_hand(loader, epochs=2):
    trainer = small_trainer()
    for _ in range(epochs):
        for batch in loader:
            trainer.train_batch(*[np.from_dlpack(part) if isinstance(part, Shared) else np.asarray(part) for part in batch])
    return trainer


@pytest.mark.parametrize("kind", [Tensor, Shared, np.asarray])
def test_batches_of_a_loader(data, kind, read_ahead):
    loader = Loader(*data, np.linspace(0, 1, 70), size=16, kind=kind)
    trainer = fit(loader, validation=loader)
    assert bits(trainer) == bits(by_hand(loader))
    assert trainer.step == 10
    assert trainer.history["val_loss"][-1] == trainer.evaluate(*data, sample_weight=np.linspace(0, 1, 70), batch_size=16)["loss"]


def test_a_list_of_batches_and_a_generator(data, read_ahead):
    x, y = data
    batches = [(x[start : start + 10], y[start : start + 10]) for start in range(0, 70, 10)]
    assert bits(fit(batches)) == bits(by_hand(batches))
    assert bits(fit(iter(2 * batches), steps_per_epoch=7)) == bits(by_hand(batches))
    assert bits(fit(batches, steps_per_epoch=3)) == bits(by_hand(batches[:3]))
    assert bits(fit(iter(batches), 3, steps_per_epoch=2)) == bits(by_hand(batches[:6], 1))


def test_batches_are_evaluated(data, rng, read_ahead):
    x, y = data
    weights = rng.random(70)
    trainer = small_trainer(metrics=["f1"])
    batches = [tuple(part[start : start + 16] for part in (x, y, weights)) for start in range(0, 70, 16)]
    expected = trainer.evaluate(x, y, batch_size=16, sample_weight=weights)
    assert trainer.evaluate(batches) == trainer.evaluate((x, y, weights), batch_size=16) == expected
    assert trainer.evaluate((x, y), batch_size=16, sample_weight=weights) == expected
    assert str(trainer.report(batches)) == str(trainer.report((x, y))) == str(trainer.report(x, y))
    with pytest.raises(DataError, match=r"^evaluation data, batch 2: label 3 of row 0 is not a class: expected 0 to 2"):
        trainer.evaluate([(x, y), (x, y * 0 + 3)])
    with pytest.raises(ArgumentError, match=r"^evaluation data: generator can be iterated only once: expected an object that can be"):
        trainer.evaluate(batch for batch in batches)
    for use, words in (
        (trainer.report, r"report data: .*, got ndarray: write report\(x, y\)"),
        (trainer.evaluate, r"evaluation data: .*, got ndarray: write evaluate\(x, y\)"),
        (partial(nb.lr_range_test, trainer), r"data of lr_range_test: .*, got ndarray: write lr_range_test\(trainer, \(x, y\)\)"),
    ):
        with pytest.raises(ArgumentError, match=f"^{words}$"):
            use(x)


@pytest.mark.parametrize("transforms", [["flip", "crop"], ["flip", nb.augment.MixUp(0.7, 0.5)]], ids=["moved", "mixed"])
def test_augmented_batches_of_ones_own(data, transforms):
    """Rows are numbered as they come in the epoch, and partners are of the same batch."""
    x, y = data
    trainer = small_trainer(augment=transforms)
    halves = [(x[:30], y[:30], None), (x[30:], y[30:], None)]
    (first, targets, _, rows), (second, _, weights, _) = own_batches(trainer, halves, 0)
    assert rows == 30
    moved = nb.augment.apply(transforms[:2] if targets.ndim == 1 else transforms[:1], x, backend="serial", dtype="float64")
    assert weights is None
    if targets.ndim == 1:
        assert np.array_equal(np.concatenate([first, second]), moved)
        return
    assert np.array_equal(first, nb.augment.apply(transforms, x[:30], backend="serial", dtype="float64"))
    assert_close(targets, nb.augment.mixed_targets(transforms, y[:30], 3, (6, 6, 1)), "elementwise")
    how = Pipeline(trainer.augment, (6, 6, 1)).mixed(np.arange(30, 70), 0, 0, 40, 30)
    assert 0 < (how.partners == np.arange(30, 70)).sum() < 40
    assert how.partners.min() >= 30
    share = how.share[:, None, None, None]
    assert_close(second, share * moved[30:] + (1 - share) * moved[how.partners], "elementwise")


def test_an_iterable_that_ends_early(data, read_ahead):
    x, y = data
    trainer = small_trainer()
    batches = [(x[:10], y[:10])] * 3
    with pytest.raises(DataError, match=r"^data: batch 4 of epoch 1 is missing: expected 5 batches; the iterable ended after 3$"):
        fit(iter(batches), trainer=trainer, steps_per_epoch=5)
    assert trainer.step == trainer.position.batches == 3
    assert bits(trainer) == bits(by_hand(batches, 1))
    assert trainer.epoch == 0


def test_a_batch_that_does_not_fit(data, read_ahead):
    x, y = data
    trainer = small_trainer()
    with pytest.raises(DataError, match=r"^data, batch 2 of epoch 1: label 3 of row 0 is not a class: expected 0 to 2"):
        fit([(x[:10], y[:10]), (x[:10], y[:10] * 0 + 3)], trainer=trainer)
    assert bits(trainer) == bits(by_hand([(x[:10], y[:10])], 1))
    with pytest.raises(ShapeError, match=r"^validation, batch 1: x has shape"):
        fit([(x[:10], y[:10])], validation=[(x[:10], y[:9])])


def test_what_an_iterable_raises_is_raised_by_fit(data, read_ahead):
    def broken():
        yield data
        raise ZeroDivisionError("in the loader")

    trainer = small_trainer()
    with pytest.raises(ZeroDivisionError, match="in the loader") as caught:
        fit(broken(), trainer=trainer, steps_per_epoch=2)
    assert trainer.step == 1
    assert caught.traceback[-1].name == "broken"


def test_a_stop_within_an_epoch(data, read_ahead, tmp_path):
    """The batches that were done are skipped when it goes on."""
    loader = Loader(*data, size=16)
    whole, trainer = fit(loader), small_trainer()
    fit(loader, trainer=trainer, callbacks=[StopAt(7)])
    assert trainer.position.batches == 2
    trainer.save(tmp_path / "run")
    resumed = small_trainer()
    resumed.restore(tmp_path / "run")
    assert same(whole, fit(loader, trainer=resumed))
    message = "stopped within an epoch of 5 batches of your own: it cannot continue with 70 rows in batches of 16; use the same data"
    with pytest.raises(ArgumentError, match=message):
        fit(data, trainer=trainer)


def test_an_interrupt_ends_the_thread(data):
    class Interrupted:
        def on_batch_end(self, trainer):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        fit((Stored(data[0]), data[1]), callbacks=[Interrupted()])
    assert caught.tb is not None  # whose frames are alive
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbnet-read-ahead")]


def test_a_thread_reads_ahead(data, monkeypatch):
    seen = set()

    class Watched(Stored):
        def __getitem__(self, rows):
            seen.add(threading.current_thread() is threading.main_thread())
            return super().__getitem__(rows)

    for switch, main in ((True, {False}), (False, {True})):
        monkeypatch.setattr(lazy, "READ_AHEAD", switch)
        seen.clear()
        fit((Watched(data[0]), data[1]))
        assert seen == main


class NoLength:
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (iter(()), {}, "^data: tuple_iterator can be iterated only once: give steps_per_epoch=, or an object that can be iterated again"),
        (NoLength(), {}, "^data: NoLength does not tell how many batches it has: give steps_per_epoch=$"),
        (NoLength(), {"steps_per_epoch": 0}, "^steps_per_epoch=0: expected a whole number, at least 1$"),
        (
            [(1, 2)],
            {"validation": iter(())},
            "^validation: tuple_iterator can be iterated only once: expected an object that can be iterated again",
        ),
        ([(1, 2)], {"validation": NoLength()}, r"^validation: NoLength does not tell how many batches it has: expected one with len\(\)$"),
        (
            [(1, 2)],
            {"sample_weight": [1]},
            r"^sample_weight= is for arrays, got batches of your own: expected batches \(x, y, sample_weight\)$",
        ),
        ([(1, 2)], {"validation_split": 0.1}, "^validation_split=0.1 is for arrays, got batches of your own: write validation= with other"),
        ({"x": 1}, {}, r"^data: expected a pair \(x, y\) of arrays, got dict"),
    ],
)
def test_what_gives_no_batches(given, options, message):
    trainer = small_trainer()
    with pytest.raises(ArgumentError, match=message):
        fit(given, trainer=trainer, **options)
    assert same(trainer, small_trainer())


def test_an_empty_loader():
    with pytest.raises(DataError, match=r"^data: Loader has no batch, expected at least one$"):
        fit(Loader(np.zeros((0, 2))))
