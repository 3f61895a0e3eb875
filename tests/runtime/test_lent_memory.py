"""Memory that is lent: what a recording, a view or another process has is not touched."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet.runtime.memory import Arena, Pool

FORKS = """
import os
import numpy as np
import nbnet as nb
from nbnet.runtime.memory import Pool

arrays = [Pool().empty((size,), np.uint8) for size in (5000, 1 << 20, 3 << 20)] + [nb.get_backend("numpy").pool.empty((9000,), np.float32)]
for array in arrays:
    array[:] = 1
for _ in range(2):
    child = os.fork()
    if child == 0:
        seen = all((array == 1).all() for array in arrays)
        for array in arrays:
            array[:] = 2
        os._exit(0 if seen else 3)
    assert os.waitpid(child, 0)[1] == 0, "the child does not see the parent's numbers"
    assert all((array == 1).all() for array in arrays), "the child wrote into the parent's arrays"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_children_write_into_arrays_of_their_own():
    result = subprocess.run([sys.executable, "-c", FORKS], cwd=Path(nb.__file__).parents[1], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_alias_of_an_arenas_array_gives_its_block_back():
    """The arena may lend the block again while the alias is there; other arrays it leaves as they are."""
    pool = Pool()
    arena, other = Arena(pool), Arena(pool)
    array = arena.empty((3000,), np.float64)
    for view in (array, array[1000:], array.reshape(30, 100).T, array[::2], array.view(np.int64)[5:].reshape(-1, 5)):
        alias = arena.alias(view)
        assert alias is not view
        assert (alias.shape, alias.dtype, alias.strides) == (view.shape, view.dtype, view.strides)
        assert alias.ctypes.data == view.ctypes.data
    address = array.ctypes.data
    del array, view
    again = arena.empty((3000,), np.float64)
    assert again.ctypes.data == address
    for foreign in (pool.empty((3000,), np.float64), other.empty((3000,), np.float64), np.ones(3000), np.ones(5)):
        assert arena.alias(foreign) is foreign


def test_an_alias_of_anothers_array_keeps_its_block():
    """Or a recording would write into memory that somebody else has by now."""
    pool = Pool()
    arena = Arena(pool)
    array = pool.empty((3000,), np.float64)
    array[:] = 7
    alias = arena.alias(array[100:])
    address = array.ctypes.data
    del array
    others = [source.empty((3000,), np.float64) for source in (pool, arena, pool)]
    assert address not in {other.ctypes.data for other in others}
    for other in others:
        other[:] = 0
    assert (alias == 7).all()


def test_an_arena_gives_its_blocks_back_when_the_last_array_dies():
    pool = Pool()
    arena = Arena(pool)
    array = arena.empty((3000,), np.float64)
    arena.empty((9000,), np.float64)  # free in the arena
    del arena
    assert pool.empty((9000,), np.float64).size == 9000
    assert (pool.hits, pool.misses) == (1, 2)
    array[:] = 7
    other = pool.empty((3000,), np.float64)
    assert not np.shares_memory(array, other)
    del array
    assert pool.hits + pool.misses == 4
    taken = pool.empty((3000,), np.float64)
    assert pool.misses == 3
    assert not np.shares_memory(taken, other)


def layers():
    return [nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dense(3)]


def batch(seed, rows=32):
    rng = np.random.default_rng(seed)
    return rng.random((rows, 8, 8, 1), dtype=np.float32), rng.integers(0, 3, rows)


@pytest.mark.parametrize("backend", ["serial", "parallel"])
def test_arrays_that_a_user_keeps_survive_replays(backend):
    """Outputs of evaluation, of the model beside the recording, and of another model on the same backend."""
    model, other = nb.Sequential(layers()), nb.Sequential(layers())
    for each in (model, other):
        each.build((8, 8, 1), backend=backend)
    trainer, beside = (nb.Trainer(each, optimizer=nb.SGD(0.01)) for each in (model, other))
    kept = []
    for i in range(6):
        trainer.train_batch(*batch(i))
        y, tape = model.forward(batch(i)[0], train=True)
        dx = model.backward(np.ones_like(y), list(tape))
        kept += [(array, array.copy()) for array in (y, dx, model.forward(batch(i)[0])[0])]
        beside.train_batch(*batch(50 + i))
        kept.append((borrowed := model.backend.empty((500, 9), np.float32), np.full((500, 9), i, np.float32)))
        borrowed[:] = i
        del borrowed
    assert all(np.array_equal(now, then) for now, then in kept)


STRIDED = {
    "a value": lambda model: setattr(model.params["4.dense.bias"], "value", np.ones(6, np.float32)[::2]),
    "a weight in Fortran's order": lambda model: setattr(
        model.params["4.dense.weight"], "value", np.asfortranarray(model.params["4.dense.weight"].value)
    ),
    "a buffer": lambda model: model.layers[1].buffers.update(moving_var=np.ones(8, np.float32)[::2]),
    "a buffer that forward reads": lambda model: (
        setattr(model.layers[1], "use_batch_statistics", False) or model.layers[1].buffers.update(moving_mean=np.ones(8, np.float32)[::2])
    ),
}


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("fuse", [False, True])
def test_arrays_that_kernels_copy_are_read_anew(name, fuse):
    """A recording has the addresses of arrays. One that a kernel would get as a copy is read in each step: what was written into it
    since counts, and so do the gradients and statistics that the step writes."""
    runs = []
    for replay in (False, True):
        model = nb.Sequential(layers())
        model.build((8, 8, 1), backend="serial", fuse=fuse)
        STRIDED[name](model)
        model.params["4.dense.bias"].trainable = model.params["4.dense.weight"].trainable = False
        trainer, seen = nb.Trainer(model, optimizer=nb.SGD(0.05), replay=replay), []
        for i in range(6):
            loss = trainer.train_batch(*batch(i))["loss"]
            arrays = {key: (param.value.copy(), param.grad.copy()) for key, param in model.params.items()}
            seen.append((loss, arrays, {key: array.copy() for key, array in model.buffers.items()}))
            for param in (model.params["4.dense.bias"], model.params["4.dense.weight"]):
                param.value[...] = param.value + np.float32(0.25)
        runs.append(seen)
    for (loss, arrays, buffers), (wanted, wanted_arrays, wanted_buffers) in zip(*runs):
        assert loss == wanted
        for key, pair in arrays.items():
            assert all(map(np.array_equal, pair, wanted_arrays[key]))
        assert all(np.array_equal(array, wanted_buffers[key]) for key, array in buffers.items())
    assert len({loss for loss, *_ in runs[0]}) == 6
