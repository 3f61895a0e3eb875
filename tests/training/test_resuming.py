"""A run that stops and continues is the same run, bit for bit; unusable checkpoints change nothing."""

import json

import numpy as np
import pytest
import safetensors.numpy

import nbnet as nb
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.training import checkpoint

from .small import bits, small_model, small_trainer


class StopAt(nb.callbacks.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop("test")


@pytest.mark.parametrize("optimizer", [nb.Adam, nb.SGD, nb.RMSProp, nb.AdamW])
@pytest.mark.parametrize("step", [1, 5, 7, 10])
def test_a_resumed_run_is_the_same_run(data, tmp_path, step, optimizer):
    def make(seed):
        model = small_model("serial", "float32", seed)
        return nb.Trainer(model, optimizer=optimizer(1e-3), schedule="one_cycle", seed=seed)

    whole = make(seed=4)
    whole.fit(data, epochs=3, batch_size=16, validation=data)
    first = make(seed=4)
    first.fit(data, epochs=3, batch_size=16, validation=data, callbacks=[StopAt(step)])
    assert (first.step, first.stop_reason) == (step, "test")
    first.save(tmp_path / "run.safetensors")
    second = make(seed=9)
    second.restore(tmp_path / "run.safetensors")
    second.fit(data, epochs=3, batch_size=16, validation=data)
    assert bits(second) == bits(whole)
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "lr"):
        assert second.history[key] == whole.history[key]


def test_resuming_within_an_epoch_needs_the_same_data(data, tmp_path):
    trainer = small_trainer()
    trainer.fit(data, epochs=2, batch_size=16, callbacks=[StopAt(2)])
    with pytest.raises(ArgumentError, match="70 rows in batches of 16: it cannot continue with 70 rows in batches of 8"):
        trainer.fit(data, epochs=2, batch_size=8)


def test_a_foreign_or_broken_checkpoint_changes_nothing(data, tmp_path):
    trainer = small_trainer()
    trainer.fit(data, epochs=1)
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    whole = path.read_bytes()
    other = nb.Sequential([nb.Flatten(), nb.Dense(3)])
    other.build((6, 6, 1), backend="serial", dtype="float64")
    cases = [
        (nb.Trainer(other, optimizer=nb.Adam(1e-3)), whole, "belongs to another model"),
        (small_trainer(optimizer=nb.SGD(0.1)), whole, "was trained with Adam, this trainer has SGD"),
        (small_trainer(dtype="float32"), whole, "float64, expected .* float32"),
        (small_trainer(), whole[: len(whole) // 2], "truncated or not a safetensors file"),
        (small_trainer(), b"", "truncated or not a safetensors file"),
        (small_trainer(), b"GIF89a" + bytes(100), "truncated or not a safetensors file"),
    ]
    for victim, content, message in cases:
        victim.optimizer.prepare(victim.model.params)
        path.write_bytes(content)
        before = bits(victim)
        with pytest.raises(CheckpointError, match=message):
            victim.restore(path)
        assert bits(victim) == before
        assert (victim.step, victim.epoch, victim.history) == (0, 0, {})
    with pytest.raises(CheckpointError, match="No such file"):
        small_trainer().restore(tmp_path / "missing.safetensors")
    trainer.model.save_weights(path)
    with pytest.raises(CheckpointError, match="use load_weights"):
        trainer.restore(path)


def test_a_state_goes_from_trainer_to_trainer(data):
    first, second = small_trainer(seed=4), small_trainer(seed=9)
    first.fit(data, epochs=2, batch_size=16, callbacks=[StopAt(7)])
    state = first.state()
    assert json.loads(json.dumps(state.run)) == state.run
    second.load_state(state)
    assert bits(second) == bits(first)
    for trainer in (first, second):
        trainer.fit(data, epochs=2, batch_size=16)
    assert bits(second) == bits(first)
    assert second.history["loss"] == first.history["loss"]


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.pop("seed"),
        lambda run: run.update(step="seven"),
        lambda run: run.update(history=[1.0]),
        lambda run: run["position"].update(rows_left=3),
        lambda run: run.update(step=10**40),
        lambda run: run.update(step=True),
        lambda run: run.update(seed=-1),
        lambda run: run.update(epoch=5),
        lambda run: run.update(epoch=10**400),
        lambda run: run.update(optimizer=["Adam"]),
        lambda run: run["history"].update(loss=[10**400]),
        lambda run: run["history"].update(loss=["0.1"]),
        lambda run: run["history"].update({"loss\n": []}),
        lambda run: run.update(extra=1),
        lambda run: run.update(position=None),
        lambda run: run["position"].update(rows=3),
        lambda run: run["position"].update(batches=1),
        lambda run: run["position"].update(batches=1, rows=64, data_rows=70, batch_size="64"),
        lambda run: run["position"].update(batches=1, rows=63, data_rows=70, batch_size=64),
        lambda run: run["position"].update(batches=3, rows=70, data_rows=70, batch_size=64),
        lambda run: run["position"].update(batches=1, rows=64, data_rows=70, batch_size=64, correct=65),
        lambda run: run["position"].update(batches=1, rows=64, data_rows=70, batch_size=64, loss="0"),
        lambda run: run["position"].update(batches=1, rows=64, data_rows=70, batch_size=64, lr=float("inf")),
        lambda run: run["position"].update(batches=1, rows=0, data_rows=0, batch_size=0),
        lambda run: run["position"].update(batches=1, rows=0, data_rows=70, batch_size=0),
        lambda run: run["position"].update(batches=1, rows=0, data_rows=0, batch_size=64),
    ],
)
def test_a_damaged_state_changes_nothing(data, change):
    first, second = small_trainer(), small_trainer()
    first.fit(data, epochs=1)
    before = bits(second), second.step
    state = first.state()
    change(state.run)
    with pytest.raises(CheckpointError, match=r"^the state: the description of the run is damaged"):
        second.load_state(state)
    assert (bits(second), second.step) == before


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "is not a checkpoint of a run .format None"),
        ({"format": checkpoint.FORMAT}, "is damaged: it is not JSON"),
        ({"format": checkpoint.FORMAT, "run": "[" * 100_000}, "is damaged: it is not JSON: maximum recursion depth"),
        ({"format": checkpoint.FORMAT, "run": "[1]"}, r"is damaged: it is \[1\], expected an object"),
        ({"format": checkpoint.FORMAT, "run": '{"step": 1e400}'}, "is damaged: it has no 'optimizer', expected the keys optimizer, "),
    ],
)
def test_damaged_metadata_changes_nothing(data, tmp_path, metadata, words):
    trainer, path = small_trainer(), tmp_path / "run.safetensors"
    before = bits(trainer)
    arrays = {name: np.asarray(array) for name, array in trainer.state().arrays.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    with pytest.raises(CheckpointError, match=words) as caught:
        trainer.restore(path)
    assert "\n" not in str(caught.value)
    assert bits(trainer) | before == bits(trainer)
    assert (trainer.step, trainer.epoch, trainer.history) == (0, 0, {})


def test_what_a_loss_of_ones_own_counts_can_be_saved(data, tmp_path):
    """Its numbers may be NumPy's, which JSON does not know."""

    def loss(prediction, target, *, rows=None, backend):
        found = nb.losses.softmax_cross_entropy(prediction, target, rows=rows, backend=backend)
        return nb.losses.LossResult(np.float32(found.total), np.int64(found.correct), found.gradient)

    trainer = small_trainer(loss=loss, seed=np.int64(4))
    trainer.fit(data, epochs=2, batch_size=16, callbacks=[StopAt(7)])
    trainer.save(tmp_path / "run.safetensors")
    small_trainer(loss=loss).restore(tmp_path / "run.safetensors")


def test_weights_load_from_a_checkpoint(data, tmp_path):
    trainer = small_trainer()
    trainer.fit(data, epochs=1)
    trainer.save(tmp_path / "run.safetensors")
    model = small_model(seed=5)
    model.load_weights(tmp_path / "run.safetensors")
    assert np.array_equal(model.predict(data[0]), trainer.model.predict(data[0]))


def test_foreign_weights_change_nothing(tmp_path):
    model, other = small_model(), nb.Sequential([nb.Flatten(), nb.Dense(3)])
    other.build((6, 6, 1), backend="serial", dtype="float64")
    other.save_weights(tmp_path / "other.safetensors")
    before = {name: array.tobytes() for name, array in model.state().items()}
    with pytest.raises(CheckpointError, match=r"has no '0\.conv2d\.bias': it belongs to another model"):
        model.load_weights(tmp_path / "other.safetensors")
    assert {name: array.tobytes() for name, array in model.state().items()} == before


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    trainer = small_trainer()
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    old = path.read_bytes()

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    trainer.step = 99
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left on device"):
        trainer.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="No such file or directory"):
        trainer.save(tmp_path / "missing" / "run.safetensors")


def test_rates_of_numpy(data, tmp_path):
    """Of a schedule of the user's: the run can be saved and continued, in an epoch and after one."""
    trainer = small_trainer("serial", "float32", schedule=lambda progress: np.float32(1 - progress / 2))
    for step in (3, 7):
        trainer.fit(data, 2, 16, callbacks=[StopAt(step)])
        assert trainer.position.batches
        trainer.save(tmp_path / "run.safetensors")
        trainer.load_state(trainer.state())
        trainer.restore(tmp_path / "run.safetensors")
    assert {type(lr) for lr in (*trainer.history["lr"], trainer.position.lr)} == {float}


def test_a_callback_s_own_column(data, tmp_path):
    """Of any length: a run that was saved can be restored."""
    first, second = (small_trainer("serial", "float32") for _ in range(2))
    first.fit(data, 2, 20)
    first.history["gradient norm"] = [1.0] * 7
    first.save(tmp_path / "run.safetensors")
    second.restore(tmp_path / "run.safetensors")
    assert second.history["gradient norm"] == [1.0] * 7
    first.history["lr"].append(0.1)
    first.save(tmp_path / "run.safetensors")
    with pytest.raises(CheckpointError, match="epoch is 2, but the history has 3 epochs"):
        second.restore(tmp_path / "run.safetensors")
