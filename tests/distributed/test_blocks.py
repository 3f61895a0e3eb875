"""A row has the same bits in every batch, for all layers that run on several slices together."""

from itertools import pairwise

import numpy as np
import pytest
from layers.test_layers import LAYERS, make

import nbnet as nb
from nbnet.distributed import blocks

CUTS = [0, 1, 18, 40, 61]
LARGER = {
    "winograd": (lambda: nb.Conv2D(40, 3), (9, 7, 24)),
    "winograd of many": (lambda: nb.Conv2D(64, 3, activation="gelu"), (5, 5, 128)),
    "pointwise": (lambda: nb.Conv2D(33, 1), (6, 6, 20)),
    "strided": (lambda: nb.Conv2D(40, 3, stride=2), (9, 8, 24)),
    "lines": (lambda: nb.Conv1D(32, 5), (40, 32)),
    "nested lines": (lambda: nb.Conv1D(32, 9), (40, 32)),
    "wide": (lambda: nb.Dense(513), (65,)),
    "deep": (lambda: nb.Dense(10), (1500,)),
    "mish": (lambda: nb.Mish(), (7, 9, 37)),
    "softmax": (lambda: nb.Softmax(), (37,)),
    "max pool": (lambda: nb.MaxPool2D(2), (9, 9, 33)),
}


def results(layer, x, dy):
    y, saved = layer.forward(x, train=True)
    return y.copy(), layer.backward(dy, saved).copy()


ALL = {f"larger {name}": value for name, value in LARGER.items() if name != "nested lines"} | LAYERS
TOGETHER = [name for name, (factory, _) in ALL.items() if type(factory()) in (blocks.BY_ROWS - {nb.Dropout}) | set(blocks.PRODUCTS)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TOGETHER)
def test_a_row_has_the_same_bits_in_every_batch(name, dtype, monkeypatch, rng):
    monkeypatch.setitem(LAYERS, name, ALL[name])
    layer, x = make(name, "parallel", dtype, CUTS[-1])
    assert blocks.is_by_rows(layer) or blocks.is_product(layer)
    dy = rng.normal(size=(len(x), *layer.output_shape)).astype(dtype)
    y, dx = results(layer, x, dy)
    for start, stop in pairwise(CUTS):
        own_y, own_dx = results(layer, x[start:stop], dy[start:stop])
        assert np.array_equal(own_y, y[start:stop])
        assert np.array_equal(own_dx, dx[start:stop])


def test_what_runs_on_slices_together():
    def of(layer, shape):
        layer.build(shape)
        return layer

    assert blocks.is_product(of(nb.Conv1D(32, 5), (40, 32)))
    assert not blocks.is_product(of(nb.Conv1D(32, 9), (40, 32)))  # whose algorithm depends on the number of rows
    assert not blocks.is_product(of(nb.Conv2D(32, (1, 7)), (4, 40, 32)))
    assert blocks.is_product(of(nb.Conv2D(32, (7, 1)), (40, 4, 32)))
    assert not blocks.is_by_rows(nb.Dropout(0.1, noise_shape=(8, None)))
    assert blocks.is_by_rows(nb.Dropout(0.1, noise_shape=(None, 1)))
    assert not blocks.is_by_rows(nb.PReLU())
    assert not blocks.is_by_rows(type("Own", (nb.ReLU,), {})())


@pytest.mark.parametrize("name", ["lines", "nested lines"])
def test_a_network_of_nested_lines(name, rng):
    """The same bits whether slices run together or not: as on more ranks."""
    x, y = rng.normal(size=(32, 40, 32)).astype(np.float32), rng.integers(0, 3, 32)
    found = []
    for together in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not together:
                patch.setattr(blocks, "COMPILED", ())
            model = nb.Sequential([LARGER[name][0](), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.3), nb.Dense(3)])
            model.build((40, 32))
            trainer = nb.Trainer(model, optimizer=nb.SGD(0.1), slices=4)
            losses = [trainer.train_batch(x, y)["loss"] for _ in range(3)]
            found.append([losses, *(param.value for param in model.params.values())])
    for one, other in zip(*found):
        assert np.array_equal(one, other)
