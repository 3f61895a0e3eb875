"""Training: the loop, its metrics, callbacks, and its errors."""

import math

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, DataError, NonFiniteError, ShapeError
from nbnet.training.epoch import parts

from .small import bits, small_model, small_trainer

# ---------------------------------------------------------------------------------------------------- training


def test_fit_learns_and_reports(data):
    trainer = small_trainer()
    history = trainer.fit(data, epochs=12, batch_size=16, validation=data)
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert all(len(column) == 12 for column in history.values())
    assert history["val_accuracy"][-1] > 0.95
    assert history["loss"][-1] < history["loss"][0] / 2
    assert (trainer.epoch, trainer.step) == (12, 12 * 5)
    assert trainer.evaluate(*data) == {"loss": history["val_loss"][-1], "accuracy": history["val_accuracy"][-1]}


def test_epochs_count_from_the_start_of_the_run(data):
    trainer = small_trainer()
    trainer.fit(data, epochs=2)
    assert len(trainer.fit(data, epochs=3)["loss"]) == 3
    with pytest.warns(
        UserWarning, match="nothing to train: 3 epochs are complete, and epochs=2 counts .*; for 2 more write epochs=5"
    ) as said:
        assert len(trainer.fit(data, epochs=2)["loss"]) == 3
    assert said[0].filename == __file__


def test_a_finished_schedule_that_goes_on_says_what_the_rate_does(data):
    trainer = small_trainer(optimizer=nb.Adam(1e-2), schedule="one_cycle")
    trainer.fit(data, epochs=2, batch_size=16)
    before = bits(trainer)
    wanted = r"the learning rate jumps from 4e-08 to 0\.00764: nb\.schedules\.one_cycle\(\) now spans 4 epochs; for small steps"
    with pytest.raises(UserWarning, match=wanted):  # before anything is trained
        trainer.fit(data, epochs=4, batch_size=16)
    assert bits(trainer) == before
    with pytest.warns(UserWarning, match=wanted):
        trainer.fit(data, epochs=4, batch_size=16, callbacks=[StopAt(12)])
    assert trainer.position.batches == 2
    trainer.fit(data, epochs=4, batch_size=16, callbacks=[StopAt(14)])  # the same schedule
    with pytest.warns(UserWarning, match="now spans 3 epochs"):
        trainer.fit(data, epochs=3, batch_size=16)


def test_only_a_schedule_that_spans_other_steps_makes_the_rate_jump(data, tmp_path):
    """Not what the user changed, nor what is in the history; after a restart too."""
    for schedule in ("constant", lambda progress: np.float32(0.5)):
        trainer = small_trainer(schedule=schedule)
        trainer.fit(data, epochs=1)
        trainer.optimizer.lr /= 10
        trainer.fit(data, epochs=2)
    first = small_trainer(optimizer=nb.Adam(1e-2), schedule="one_cycle")
    first.fit(data, epochs=3, batch_size=16, callbacks=[StopAt(7)])
    first.save(tmp_path / "run.safetensors")
    trainer = small_trainer(optimizer=nb.Adam(1e-3), schedule="one_cycle")
    with pytest.warns(UserWarning, match=r"settings differ: lr is 0\.01 as in the file, not 0\.001$"):
        trainer.restore(tmp_path / "run.safetensors")
    trainer.fit(data, epochs=3, batch_size=16, callbacks=[StopAt(10)])
    trainer.optimizer.lr = 1e-4
    trainer.fit(data, epochs=3, batch_size=16, callbacks=[StopAt(12)])
    trainer.history["lr"][-1] = math.nan
    trainer.save(tmp_path / "run.safetensors")
    other = small_trainer(schedule="one_cycle")
    with pytest.warns(UserWarning, match=r"lr is 0\.0001 as in the file"):
        other.restore(tmp_path / "run.safetensors")
    with pytest.warns(UserWarning, match="now spans 4 epochs"):
        other.fit(data, epochs=4, batch_size=16)


class StopAt(nb.callbacks.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop("test")


def test_ten_steps_agree_on_every_backend(data):
    x, y = data
    runs = {}
    for backend, dtype in [
        ("numpy", "float64"),
        ("serial", "float64"),
        ("parallel", "float64"),
        ("serial", "float32"),
        ("parallel", "float32"),
    ]:
        trainer = small_trainer(backend, dtype, optimizer=nb.SGD(0.05, momentum=0.9))
        runs[backend, dtype] = np.array([trainer.train_batch(x[i * 7 : i * 7 + 7], y[i * 7 : i * 7 + 7])["loss"] for i in range(10)])
    for dtype in ("float64", "float32"):
        assert np.array_equal(runs["serial", dtype], runs["parallel", dtype])
        assert_close(runs["serial", dtype].astype(dtype), runs["numpy", "float64"], "training")


def test_metrics_of_a_batch(data):
    x, y = data
    trainer = small_trainer(optimizer=nb.SGD(1e-12))
    probabilities = trainer.model.predict(x)
    probabilities = np.exp(probabilities - probabilities.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    metrics = trainer.evaluate(x, y, batch_size=9)
    assert_close(np.array(metrics["loss"]), -np.log(probabilities[np.arange(70), y]).mean(), "training")
    assert metrics["accuracy"] == np.mean(probabilities.argmax(axis=1) == y)


def test_regression(rng):
    x = rng.standard_normal((200, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.3
    for loss in ("mean_squared_error", "sum_squared_error"):
        model = nb.Sequential([nb.Dense(1)])
        model.build((3,), backend="serial", dtype="float64")
        history = nb.Trainer(model, loss, nb.SGD(0.1)).fit((x, y), epochs=30)
        assert list(history) == ["loss", "lr", "seconds"]
        assert_close(model.params["0.dense.weight"].value[:, 0], np.array([1.0, -2.0, 0.5]), "training")


def test_accumulation_is_the_whole_batch(rng):
    x, y = rng.standard_normal((24, 5)), rng.integers(0, 3, 24)
    grads = []
    for count in (1, 5):
        model = nb.Sequential([nb.Dense(6), nb.Tanh(), nb.Dense(3)])
        model.build((5,), backend="serial", dtype="float64")
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1), accumulate=count)
        trainer.train_batch(x, y)
        grads.append({name: param.grad.copy() for name, param in model.params.items()})
    for name, grad in grads[0].items():
        assert_close(grads[1][name], grad, "reduction")


def test_clipping_bounds_the_norm(rng):
    x, y = 50 * rng.standard_normal((24, 5)), rng.integers(0, 3, 24)
    norms = []
    for limit in (None, 0.5, 1e9):
        model = nb.Sequential([nb.Dense(3)])
        model.build((5,), backend="serial", dtype="float64")
        nb.Trainer(model, optimizer=nb.SGD(0.1), clip_norm=limit).train_batch(x, y)
        norms.append(math.sqrt(sum((param.grad**2).sum() for param in model.params.values())))
    assert norms[0] > 1
    assert norms[2] == norms[0]
    assert_close(np.array(norms[1]), 0.5, "reduction")


def test_a_last_batch_of_one_row_joins_the_one_before(data):
    x, y = data
    trainer = small_trainer()
    trainer.fit((x[:33], y[:33]), epochs=1, batch_size=16)
    assert trainer.step == 2


def test_frozen_parameters_stay(data):
    trainer = small_trainer()
    frozen = trainer.model.params["0.conv2d.weight"]
    frozen.trainable = False
    before = frozen.value.copy()
    trainer.fit(data, epochs=1)
    assert np.array_equal(frozen.value, before)
    assert trainer.model.params["7.dense.weight"].grad.any()


def test_steady_state_allocates_no_block(data):
    trainer = small_trainer("serial", "float32")
    x, y = np.repeat(data[0], 8, axis=0)[:512], np.repeat(data[1], 8)[:512]
    for _ in range(2):
        trainer.train_batch(x, y)
    pool = trainer.model.backend.pool
    misses = pool.misses
    for _ in range(5):
        trainer.train_batch(x, y)
    assert pool.misses == misses
    assert pool.hits > 100


def test_schedule_runs_over_the_whole_fit(data):
    trainer = small_trainer(schedule="cosine")
    history = trainer.fit(data, epochs=4, batch_size=16)
    assert history["lr"][-1] < 1e-6 < history["lr"][0] < 3e-3
    seen = []
    trainer = small_trainer(schedule=lambda progress: seen.append(progress) or 1.0)
    trainer.fit(data, epochs=2, batch_size=35)
    assert_close(np.array(seen), np.arange(4) / 3, "elementwise")


# --------------------------------------------------------------------------------------------------- callbacks


def test_early_stopping(data):
    trainer = small_trainer(optimizer=nb.SGD(1e-12))
    stopping = nb.callbacks.EarlyStopping("val_loss", patience=2, min_delta=1e-3)
    trainer.fit(data, epochs=50, validation=data, callbacks=[stopping])
    assert 3 <= trainer.epoch < 50
    assert trainer.stop_reason == "val_loss has not improved for 2 epochs"


def test_best_checkpoint_is_the_best_epoch(data, tmp_path):
    path = tmp_path / "best.safetensors"
    trainer = small_trainer(optimizer=nb.SGD(0.3))
    history = trainer.fit(data, epochs=8, validation=data, callbacks=[nb.callbacks.ModelCheckpoint(path, "val_loss")])
    best = small_trainer(optimizer=nb.SGD(0.3))
    best.restore(path)
    assert best.evaluate(*data)["loss"] == min(history["val_loss"])
    assert best.epoch == 1 + int(np.argmin(history["val_loss"]))


def test_csv_log(data, tmp_path):
    path = tmp_path / "log.csv"
    history = small_trainer().fit(data, epochs=3, callbacks=[nb.callbacks.CSVLogger(path)])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "epoch,loss,accuracy,lr,seconds"
    assert [float(line.split(",")[1]) for line in lines[1:]] == history["loss"]
    with pytest.raises(DataError, match="cannot write"):
        small_trainer().fit(data, epochs=1, callbacks=[nb.callbacks.CSVLogger(tmp_path / "missing" / "log.csv")])


def test_a_callback_without_its_column_is_an_error(data):
    with pytest.raises(ArgumentError, match="pass validation= to fit"):
        small_trainer().fit(data, epochs=1, callbacks=[nb.callbacks.EarlyStopping("val_loss")])
    with pytest.raises(ArgumentError, match="expected loss, accuracy"):
        nb.callbacks.EarlyStopping("speed")


# --------------------------------------------------------------------------------------------------- bad input


def test_bad_data_changes_nothing(data):
    x, y = data
    trainer = small_trainer(dtype="float32")
    trainer.optimizer.prepare(trainer.model.params)
    before = bits(trainer)
    floats = x / np.float32(255)
    holed = floats.copy()
    holed[5, 0, 0, 0] = np.nan
    cases = [
        ((x[..., 0], y), r"expected \(N, 6, 6, 1\)"),
        ((np.repeat(x, 3, axis=3), y), r"expected \(N, 6, 6, 1\)"),
        ((x[:0], y[:0]), "it is empty"),
        ((x, y[:-1]), "70.*69"),
        ((x, y + 1), "label"),
        ((x, y - 1), "label"),
        ((x, y.astype(float)), "label"),
        ((holed, y), r"NaN|finite"),
        ((x.astype(np.int32), y), "int32"),
        (x, "pair"),
    ]
    for case, message in cases:
        with pytest.raises(nb.NbnetError, match=message):
            trainer.fit(case, epochs=1)
        assert bits(trainer) == before
        assert trainer.step == 0
    with pytest.raises(ShapeError, match="validation"):
        trainer.fit(data, epochs=1, validation=(np.repeat(x, 3, axis=3), y))
    with pytest.raises(ArgumentError, match="batch_size=0"):
        trainer.fit(data, epochs=1, batch_size=0)


def test_a_loss_that_is_not_finite_stops_and_names_the_layer(data, tmp_path):
    trainer = small_trainer(dtype="float32", optimizer=nb.SGD(0.1))
    trainer.fit(data, epochs=1, callbacks=[nb.callbacks.ModelCheckpoint(tmp_path / "best.safetensors", "loss")])
    kept = (tmp_path / "best.safetensors").read_bytes()
    trainer.model.layers[4].body.layers[0].params["weight"].value[0, 0, 0, 0] = np.inf
    before = bits(trainer)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 2: the parameters of layer 4\.residual are not finite"):
        trainer.fit(data, epochs=2)
    assert bits(trainer) == before
    assert (tmp_path / "best.safetensors").read_bytes() == kept


def test_overflow_names_the_layer(data):
    x, y = data
    trainer = small_trainer(dtype="float32", optimizer=nb.SGD(0.1))
    trainer.model.layers[7].params["weight"].value[:] = 3e38
    with pytest.raises(NonFiniteError, match=r"layer 7\.dense gives NaN or infinity; lower the learning rate"):
        trainer.train_batch(x, y)


def test_a_trainer_needs_a_built_model_and_an_optimizer():
    with pytest.raises(BuildError, match=r"call model\.build"):
        nb.Trainer(nb.Sequential([nb.Dense(2)]), optimizer=nb.Adam())
    model = small_model()
    with pytest.raises(ArgumentError, match="expected an optimiser"):
        nb.Trainer(model)
    with pytest.raises(ArgumentError, match="the class Adam: expected an optimiser such as"):
        nb.Trainer(model, optimizer=nb.Adam)
    with pytest.raises(ArgumentError, match="unknown optimizer 'adm': did you mean 'adam'"):
        nb.Trainer(model, optimizer="adm")
    assert repr(nb.Trainer(model, optimizer="Adam").optimizer) == "nb.Adam(0.001)"
    with pytest.raises(ArgumentError, match="did you mean 'softmax_cross_entropy'"):
        nb.Trainer(model, "softmax_crossentropy", nb.Adam())
    with pytest.raises(ArgumentError, match="did you mean 'one_cycle'"):
        nb.Trainer(model, optimizer=nb.Adam(), schedule="onecycle")
    with pytest.raises(ArgumentError, match="lr=-1"):
        nb.Adam(-1)


# ------------------------------------------------------------------------------------------- rows that are divided


@pytest.mark.parametrize("rows", range(1, 12))
@pytest.mark.parametrize("count", range(1, 6))
def test_no_part_has_a_single_row(rows, count):
    """Unless there is only one: on vectors it has no variance to normalise by."""
    found = parts(rows, count)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == rows
    sizes = [stop - start for start, stop in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(2, rows)
    assert len(found) == min(count, max(1, rows // 2))


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize(
    ("rows", "batch_size", "options", "norm"),
    [
        (67, 64, {"accumulate": 2}, {}),
        (65, 64, {"accumulate": 3}, {}),
        (67, 64, {"accumulate": 64}, {}),
        (61, 20, {}, {"virtual_batch_size": 4}),
        (63, 18, {"accumulate": 2}, {"virtual_batch_size": 4}),
        (3, 2, {"accumulate": 2}, {"virtual_batch_size": 2}),
    ],
)
def test_batch_norm_on_vectors_trains_on_any_number_of_rows(rng, backend, rows, batch_size, options, norm):
    x, y = rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(0, 3, rows)
    model = nb.Sequential([nb.Dense(8, use_bias=False), nb.BatchNorm(**norm), nb.ReLU(), nb.Dense(3)])
    model.build((6,), backend=backend)
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-2), **options)
    trainer.fit((x, y), epochs=2, batch_size=batch_size)
    nb.recalibrate(model, x, batch_size=batch_size)
    assert trainer.epoch == 2
