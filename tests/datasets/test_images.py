"""Images that are kept up to a memory limit, and decoded when they are needed beyond it."""

import copy
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

import nbnet as nb
from nbnet import datasets, progress
from nbnet.datasets import images
from nbnet.errors import ArgumentError, DataError

from .samples import paint, pets

PET = 4 * 6 * 3  # bytes of one image


@pytest.fixture
def root(tmp_path):
    return pets(tmp_path)


@pytest.mark.parametrize("limit", [0, 5 * PET, 13 * PET + 1, 15 * PET])
def test_the_same_pixels_within_any_limit(root, limit, monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 4)
    whole, found = datasets.from_folder(root), datasets.from_folder(root, memory_limit=limit)
    order = np.array([3, 0, 2, 2, -1])
    for (x, y), (lazy, labels) in zip(whole[:2], found[:2]):
        assert isinstance(lazy, np.ndarray) == (limit == 15 * PET)
        assert np.array_equal(y, labels)
        assert (lazy.shape, lazy.dtype, len(lazy)) == (x.shape, x.dtype, len(x))
        assert np.array_equal(np.asarray(lazy), x)
        assert np.array_equal(lazy[1:3], x[1:3])
        assert np.array_equal(lazy[-1], x[-1])
        assert np.array_equal(lazy[y == 1], x[y == 1])
        assert np.array_equal(lazy[order % len(x)], x[order % len(x)])
    assert found[2] == whole[2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbnet-images")]


def test_copies(root):
    (x, _), _, _ = datasets.from_folder(root, memory_limit=3 * PET)
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert np.array_equal(other[:], x[:])
    assert repr(x) == "<Images, uint8 (12, 4, 6, 3), read when it is indexed>"


def test_grey_images_in_colour_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(4):
            Image.fromarray(np.full((4, 5, 3), 10 * n + 1, np.uint8)).save(tmp_path / name / f"{n}.png")
    whole, found = datasets.from_folder(tmp_path), datasets.from_folder(tmp_path, memory_limit=70)
    assert found[0][0].shape == (6, 4, 5, 1)
    assert np.array_equal(found[0][0][:], whole[0][0])


def test_training(root):
    def run(limit):
        (x, y), test, _ = datasets.from_folder(root, memory_limit=limit)
        model = nb.Sequential([nb.Flatten(), nb.Dense(2)])
        model.build((4, 6, 3), backend="serial", seed=0)
        trainer = nb.Trainer(model, optimizer=nb.Adam(0.01), augment=["flip"])
        history = trainer.fit((x, y), 3, 5, validation=test, progress=False)
        return history["loss"], history["val_loss"], model.predict(test[0]).tolist()

    assert run(3 * PET) == run(images.MEMORY)


def test_a_file_that_is_damaged_later(root):
    (x, _), _, _ = datasets.from_folder(root, memory_limit=0)
    x.source.files[2].write_bytes(b"x")
    with pytest.raises(DataError, match="is not an image that nbnet reads"):
        x[:]
    paint(x.source.files[2], (1, 2, 3), (9, 9))
    with pytest.raises(DataError, match=r"has 9x9 pixels but .* has 4x6: expected one size"):
        x[1:4]


@pytest.mark.parametrize("limit", [0, images.MEMORY])
def test_the_first_file_that_cannot_be_read_is_named(root, limit):
    (x, _), _, _ = datasets.from_folder(root, memory_limit=0)
    damaged = x.source.files[3:14:3]
    for file in damaged:
        file.write_bytes(b"x")
    for _ in range(5):
        with pytest.raises(DataError, match=rf"{damaged[0].parent.name}.{damaged[0].name} is not an image that nbnet reads"):
            datasets.from_folder(root, channels=3, memory_limit=limit)


def test_the_limit_is_a_number(root):
    with pytest.raises(ArgumentError, match=r"^memory_limit=-1: expected a whole number, at least 0$"):
        datasets.from_folder(root, memory_limit=-1)


def test_a_progress_bar(root, monkeypatch):
    seen = []

    class Bar(progress.Bar):
        def __init__(self, total, columns, name, *, show):
            super().__init__(total, columns, name, show=False)
            seen.append((total, show))

        def update(self, done, text="", name=None):
            seen.append(done)

    monkeypatch.setattr(images, "Bar", Bar)
    for show in (None, True, False):
        datasets.from_folder(root, progress=show)
        assert seen == [(15, show), *range(1, 16)]
        seen.clear()
