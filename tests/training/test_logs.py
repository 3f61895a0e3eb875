"""Callbacks that pass on what training measures: the event files of TensorBoard, read back, and an experiment tracker."""

import math
import pickle
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, DataError, ExtraError, NbnetError

pytest.importorskip("tensorboardX")

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (12, 8, 8, 1), np.uint8), np.arange(12) % 3


def trainer(augment=()):
    model = nb.Sequential([nb.Flatten(), nb.Dense(4), nb.BatchNorm(), nb.ReLU(), nb.Dense(3)])
    model.build((8, 8, 1), seed=0)
    return nb.Trainer(model, optimizer="adam", augment=augment)


def events(folder):
    """The events of all files of a folder, in order: each is a length, a checksum, the event and a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def values(folder):
    """The summaries by tag: a list of (step, value)."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    return found


class Tracker:
    def __init__(self):
        self.logged = []

    def log_metric(self, name, value, step):
        self.logged.append((name, value, step))


def test_a_tracker_gets_the_history():
    run, tracker = trainer(), Tracker()
    history = run.fit((X, Y), 2, validation=(X, Y), callbacks=[nb.callbacks.Logger(tracker)])
    assert tracker.logged == [(name, column[epoch], epoch + 1) for epoch in range(2) for name, column in history.items()]


def test_a_tracker_gets_no_gaps():
    run, tracker = trainer(), Tracker()
    run.fit((X, Y), 1, validation=(X, Y))
    run.fit((X, Y), 2, callbacks=[nb.callbacks.Logger(tracker)])  # no validation: its columns have NaN
    assert math.isnan(run.history["val_loss"][1])
    assert sorted(name for name, _, _ in tracker.logged) == ["accuracy", "loss", "lr", "seconds"]


def test_something_else_is_no_tracker():
    with pytest.raises(ArgumentError, match=r"run=3: expected an object with log_metric\(name, value, step=\)"):
        nb.callbacks.Logger(3)


def test_scalars_and_histograms(tmp_path):
    run = trainer()
    history = run.fit((X, Y), 3, validation=(X, Y), callbacks=[nb.callbacks.TensorBoard(tmp_path / "board")])
    found = values(tmp_path / "board")
    for name, column in history.items():
        assert [step for step, _ in found[name]] == [1, 2, 3]
        np.testing.assert_allclose([value.simple_value for _, value in found[name]], column, rtol=1e-6)
    expected = {f"{kind}/{name}" for kind in ("parameters", "gradients") for name in run.model.params}
    expected |= {f"buffers/{name}" for name in run.model.buffers}
    assert {tag for tag, pairs in found.items() if pairs[0][1].HasField("histo")} == expected
    step, value = found["parameters/1.dense.weight"][-1]
    weight = np.asarray(run.model.params["1.dense.weight"].value, np.float64)
    assert step == 3
    np.testing.assert_allclose([value.histo.min, value.histo.max, value.histo.sum], [weight.min(), weight.max(), weight.sum()], rtol=1e-5)


def test_without_histograms(tmp_path):
    trainer().fit((X, Y), 1, callbacks=[nb.callbacks.TensorBoard(tmp_path, histograms=False)])
    assert sorted(values(tmp_path)) == ["accuracy", "loss", "lr", "seconds"]


def picture(value):
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(value.image.encoded_image_string)))


def test_pictures(tmp_path):
    run = trainer(augment=["crop", nb.augment.Normalize([0.5], [0.25])])
    board = nb.callbacks.TensorBoard(tmp_path, train=X, validation=(X, Y), class_names=["cat", "dog", "emu"])
    run.fit((X, Y), 2, callbacks=[board])
    found = values(tmp_path)
    assert [step for step, _ in found["augmented"]] == [1, 2, 3]  # of the epoch that begins
    seen = nb.augment.apply(["crop"], X[:8], epoch=1, seed=run.seed)
    assert picture(found["augmented"][1][1]).shape[:2] == (8, 64)  # eight images of 8 x 8 in a row
    np.testing.assert_allclose(picture(found["augmented"][1][1])[:, :8, 0], 255 * seen[0, ..., 0], atol=1.01)
    assert [step for step, _ in found["mistakes"]] == [1, 2]
    assert picture(found["mistakes"][0][1]).std() > 5


def test_a_run_that_goes_on_replaces_what_a_later_epoch_wrote(tmp_path):
    """TensorBoard drops what an earlier file has from the step of a SessionLog START on."""
    run = trainer()
    run.fit((X, Y), 2, callbacks=[nb.callbacks.TensorBoard(tmp_path)])
    run.save(tmp_path.with_suffix(".safetensors"))
    again = trainer()
    again.restore(tmp_path.with_suffix(".safetensors"))
    again.fit((X, Y), 3, callbacks=[nb.callbacks.TensorBoard(tmp_path)])
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [1, 3]
    assert [step for step, _ in values(tmp_path)["loss"]] == [1, 2, 3]


def state(run):
    return {name: np.asarray(array).tobytes() for name, array in run.model.state().items()}


def test_the_bits_are_the_same_with_and_without(tmp_path):
    runs = [trainer(), trainer()]
    for run, callbacks in zip(runs, ([], [nb.callbacks.TensorBoard(tmp_path, train=X, validation=(X, Y))])):
        run.fit((X, Y), 2, callbacks=callbacks)
    assert state(runs[0]) == state(runs[1])


def test_bad_options(tmp_path):
    with pytest.raises(ArgumentError, match=r"validation=ndarray: expected a pair \(x, y\) of images and class numbers"):
        nb.callbacks.TensorBoard(tmp_path, validation=X)
    (tmp_path / "file").touch()
    run = trainer()
    before = state(run)
    with pytest.raises(DataError, match=r"cannot write event files to .*file"):
        run.fit((X, Y), 1, callbacks=[nb.callbacks.TensorBoard(tmp_path / "file")])
    assert before == state(run)


WRONG = {
    "numbers": ({"train": 3}, r"train has shape \(\), expected images \(N, H, W, 1 or 3\)"),
    "two channels": ({"train": np.zeros((4, 8, 8, 2))}, r"train has shape \(4, 8, 8, 2\), expected images \(N, H, W, 1 or 3\)"),
    "rows": ({"validation": (X.reshape(12, 64), Y)}, r"x of validation has shape \(12, 64\), expected images"),
    "too few": ({"validation": (X, Y[:3])}, r"validation has 12 images and labels of shape \(3,\), expected \(12,\)"),
    "one-hot": ({"validation": (X, np.eye(3)[Y])}, r"labels of shape \(12, 3\), expected \(12,\)"),
    "classes": ({"validation": (X, Y + 1)}, "label 3 of row 2 is not a class: expected 0 to 2"),
    "text": ({"validation": (X, Y.astype(str))}, "labels have dtype <U"),
    "names": ({"validation": (X, Y), "class_names": ["a"]}, r"class_names=\['a'\]: expected 3 names"),
    "names in text": ({"validation": (X, Y), "class_names": "abc"}, "class_names='abc': expected 3 names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_pictures_are_noticed_before_training(tmp_path, case):
    options, message = WRONG[case]
    run = trainer()
    before = state(run)
    with pytest.raises(NbnetError, match=message) as caught:
        run.fit((X, Y), 1, callbacks=[nb.callbacks.TensorBoard(tmp_path / "board", **options)])
    assert "\n" not in str(caught.value)
    assert before == state(run)
    assert run.epoch == 0
    assert not (tmp_path / "board").exists()


def test_files_are_closed_after_an_exception(tmp_path):
    class Stop(nb.callbacks.Callback):
        def on_epoch_end(self, trainer):
            raise KeyError("stop")

    def writers():
        return [thread for thread in threading.enumerate() if type(thread).__module__.startswith("tensorboardX")]

    before = len(writers())
    run, board = trainer(), nb.callbacks.TensorBoard(tmp_path)
    with pytest.raises(KeyError):
        run.fit((X, Y), 1, callbacks=[board, Stop()])
    assert pickle.loads(pickle.dumps(board))._writer is None  # a file cannot be copied
    run.fit((X, Y), 3, callbacks=[board])
    assert [step for step, _ in values(tmp_path)["loss"]] == [1, 2, 3]
    assert len(writers()) == before


def test_the_same_callback_twice_is_refused(tmp_path):
    board = nb.callbacks.TensorBoard(tmp_path / "board")
    with pytest.raises(ArgumentError, match="callbacks has the same TensorBoard twice, expected different objects: leave one out"):
        trainer().fit((X, Y), 1, callbacks=[board, board])


class WithoutStep:
    def log_metric(self, name, value):
        pass


@pytest.mark.parametrize("run", [WithoutStep(), Tracker], ids=["without step", "a class"])
def test_a_tracker_that_does_not_take_steps(run):
    with pytest.raises(ArgumentError, match=r": expected an object with log_metric\(name, value, step=\)"):
        nb.callbacks.Logger(run)


@pytest.mark.parametrize("kind", [nb.callbacks.CSVLogger, nb.callbacks.TensorBoard, nb.callbacks.ModelCheckpoint])
@pytest.mark.parametrize("path", [None, 3, b"x"], ids=str)
def test_what_is_no_path(kind, path):
    name = "folder" if kind is nb.callbacks.TensorBoard else "path"
    with pytest.raises(ArgumentError, match=f"^{name}={path!r}: expected a path, such as "):
        kind(path)


def test_without_the_package():
    code = """
import sys
import nbnet as nb
assert "tensorboardX" not in sys.modules
sys.modules["tensorboardX"] = None
try:
    nb.callbacks.TensorBoard("board")
except nb.errors.ExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TensorBoard needs tensorboardX (")
    assert done.stdout.endswith("pip install 'nbnet[tensorboard]'\n")
    assert issubclass(ExtraError, ImportError)
