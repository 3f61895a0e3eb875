"""Data that is larger than one wants in memory: it is converted batch by batch, with the bits of data that was converted before."""

import tracemalloc

import numpy as np
import pytest

import nbnet as nb

from .small import bits


def trainer_of(dtype, backend="serial"):
    model = nb.Sequential([nb.BatchNorm(), nb.Dense(3)])
    model.build((60,), backend=backend, dtype=dtype)
    return nb.Trainer(model, optimizer=nb.Adam(1e-2))


def peak(call):
    """Bytes that were in use at once, beyond those before."""
    call()  # what is kept is there then
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


USES = {
    "fit": lambda trainer, x, y: (setattr(trainer, "epoch", 0), trainer.history.clear(), trainer.fit((x, y), 1, progress=False)),
    "evaluate": lambda trainer, x, y: trainer.evaluate(x, y),
    "predict": lambda trainer, x, y: trainer.model.predict(x),
    "recalibrate": lambda trainer, x, y: nb.recalibrate(trainer.model, x),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "columns": lambda x: np.asfortranarray(x),
    "reversed": lambda x: x[::-1],
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("given", "dtype"), [("float64", "float32"), ("float32", "float32"), ("float32", "float64"), ("uint8", "float32")])
def test_no_copy_of_the_whole(rng, use, layout, given, dtype):
    x = LAYOUTS[layout](rng.integers(0, 255, (8000, 60)).astype(given))
    y = np.zeros(8000, np.int64)
    trainer = trainer_of(dtype)
    assert peak(lambda: USES[use](trainer, x, y)) < x.size * np.dtype(dtype).itemsize // 3


def test_a_memory_map_is_read_as_it_is(rng, tmp_path):
    x = rng.standard_normal((500, 60))
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float64, "r", shape=x.shape)
    y = rng.integers(0, 3, 500)
    with_map, plain = trainer_of("float32"), trainer_of("float32")
    assert with_map.fit((mapped, y), 2, progress=False)["loss"] == plain.fit((x.astype(np.float32), y), 2, progress=False)["loss"]
    assert bits(with_map) == bits(plain)


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("given", "dtype"), [("float64", "float32"), ("float32", "float64"), ("float64", "float64"), ("uint8", "float32")])
def test_the_same_bits_as_data_that_was_converted_before(rng, backend, layout, given, dtype):
    x = LAYOUTS[layout]((100 * rng.random((67, 60))).astype(given))
    y, before = rng.integers(0, 3, 67), np.ascontiguousarray(x)
    if given != "uint8":
        before = before.astype(dtype)
    one, other = trainer_of(dtype, backend), trainer_of(dtype, backend)
    for trainer, rows in ((one, x), (other, before)):
        trainer.fit((rows, y), 2, 16, validation=(rows, y), progress=False)
        trainer.train_batch(rows[:16], y[:16])
        nb.recalibrate(trainer.model, rows, 16)
    assert bits(one) == bits(other)
    assert one.evaluate(x, y) == other.evaluate(before, y)
    assert one.history["val_loss"] == other.history["val_loss"]
    assert np.array_equal(one.model.predict(x), other.model.predict(before))
