"""The caching pool."""

import threading

import numpy as np
import pytest

import nbnet as nb
from nbnet.runtime.memory import HELD, Arena, Pool, Scratch


def test_a_dead_block_is_used_again():
    pool = Pool()
    address = pool.empty((1000, 100), np.float32).ctypes.data
    again = pool.empty((1000, 100), np.float32)
    assert again.ctypes.data == address
    assert (pool.hits, pool.misses) == (1, 1)


def test_a_view_keeps_its_block():
    pool = Pool()
    array = pool.empty((1000, 100), np.float32)
    array[:] = 7
    view = array.T[3:].reshape(-1, order="A")[5:].view(np.int32)
    del array
    other = pool.empty((1000, 100), np.float32)
    other[:] = 0
    assert not np.shares_memory(view, other)
    assert (view.view(np.float32) == 7).all()
    del view
    assert pool.empty((1000, 100), np.float32).shape == (1000, 100)
    assert pool.misses == 2


def test_live_arrays_never_share(rng):
    pool = Pool()
    live = {}
    for i in range(500):
        shape = (int(rng.integers(1, 9)), 1000)
        array = pool.empty(shape, np.float64)
        array[:] = i
        live[i] = array
        if rng.random() < 0.7:
            live.pop(int(rng.choice(list(live))))
    assert len(live) > 50
    assert all((array == i).all() for i, array in live.items())


def test_arrays_are_aligned_and_contiguous():
    pool = Pool()
    for shape in [(1025,), (33, 47), (5, 6, 7, 8)]:
        array = pool.empty(shape, np.float64)
        assert array.ctypes.data % 4096 == 0 or array.nbytes < 4096
        assert array.flags.c_contiguous
        assert type(array) is np.ndarray


def test_clear_gives_memory_back():
    pool = Pool()
    kept = pool.empty((5000,), np.float32)
    pool.empty((9000,), np.float32)
    size = pool.bytes
    pool.clear()
    assert 0 < pool.bytes < size
    kept[:] = 1
    del kept
    assert pool.empty((5000,), np.float32).size == 5000
    assert pool.hits == 1


def test_threads_share_a_pool():
    pool, failures = Pool(), []

    def work(number):
        for _ in range(300):
            array = pool.empty((3000,), np.int64)
            array[:] = number
            if not (array == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool.misses <= 8


def test_scratch_grows_and_is_shared_by_calls_of_a_purpose():
    scratch = Scratch(Pool())
    small = scratch.array("strips", (10, 10), np.float32)
    assert scratch.array("strips", (10, 10), np.float32) is small
    other = scratch.array("partials", (10, 10), np.float32)
    assert not np.shares_memory(small, other)
    large = scratch.array("strips", (1000, 10), np.float64)
    assert (large.shape, large.dtype, large.flags.c_contiguous) == ((1000, 10), np.float64, True)
    again = scratch.array("strips", (10, 10), np.float32)
    assert np.shares_memory(again, large)
    assert scratch.array("strips", (0, 3, 5), np.float64).shape == (0, 3, 5)


def test_threads_have_scratch_of_their_own():
    scratch = Scratch(Pool())
    mine, others = scratch.array("strips", (5000,), np.float32), []
    thread = threading.Thread(target=lambda: others.append(scratch.array("strips", (5000,), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])


def step(pool, rows):
    """Arrays as a pass over a batch makes them: some live until backward, others die at once."""
    live = []
    for channels in (300, 1200, 1200, 600, 600, 20):
        live.append(pool.empty((rows, channels), np.float32))
        pool.empty((rows, channels // 2), np.float32)
    while live:
        pool.empty(live.pop().shape, np.float32)


def test_batches_of_all_sizes_need_little_more_than_the_largest(rng):
    alone = Pool()
    for _ in range(3):
        step(alone, 512)
    pool = Pool()
    for rows in rng.integers(1, 513, 500):
        step(pool, int(rows))
        assert pool.bytes <= HELD * pool.peak
    assert pool.bytes <= HELD * alone.bytes
    for rows in (64, 300):
        step(pool, rows)
        before = pool.bytes, pool.misses
        for _ in range(3):
            step(pool, rows)
        assert (pool.bytes, pool.misses) == before


def test_blocks_that_are_not_used_go_when_others_are_needed():
    """The same memory, in ever smaller pieces, too small for the blocks before."""
    pool = Pool()
    for pieces in (10, 25, 64, 160, 400):
        live = [pool.empty((4000 // pieces, 4096), np.uint8) for _ in range(pieces)]
        assert pool.bytes <= HELD * pool.peak < 1.3 * HELD * 4000 * 4096
        before = pool.misses
        del live
        live = [pool.empty((4000 // pieces, 4096), np.uint8) for _ in range(pieces)]
        assert pool.misses == before
        del live


def test_a_small_array_takes_no_large_block():
    pool = Pool()
    pool.empty((100, 4096), np.uint8)
    kept = pool.empty((40, 4096), np.uint8)
    assert (pool.hits, pool.misses) == (0, 2)
    pool.empty((60, 4096), np.uint8)
    assert (pool.hits, pool.misses) == (1, 2)
    assert kept.size == 40 * 4096


def test_an_arena_returns_blocks_to_where_they_came_from():
    pool = Pool()
    address = pool.empty((1000, 100), np.float64).ctypes.data
    arena = Arena(pool)
    array = arena.empty((1000, 100), np.float64)
    alias = arena.alias(array)
    assert alias is not array
    assert array.ctypes.data == address
    del array, alias
    assert arena.empty((1000, 100), np.float64).ctypes.data == address
    assert (pool.hits, pool.misses) == (1, 1)
    del arena
    assert pool.empty((1000, 100), np.float64).ctypes.data == address


@pytest.mark.parametrize("larger", [0, 20])
def test_an_arena_needs_the_same_memory_whatever_the_pool_has(larger):
    """It holds no blocks larger than requests, and as many as are in use at once."""
    pool = Pool()
    held = [pool.empty((1 << 22,), np.uint8) for _ in range(larger)]
    del held
    arena = Arena(pool)
    for live in (1, 3):
        for _ in range(15):
            arrays = [arena.empty((1 << 21,), np.uint8) for _ in range(live)]
            del arrays
        assert {size: len(blocks) for size, blocks in arena._free.items()} == {1 << 21: live}
    assert pool.misses == larger + 3
    assert pool.bytes == 3 * (1 << 21) + max(larger - 3, 0) * (1 << 22)  # in place of larger ones


def test_empty_cache():
    x = np.ones((1000, 300), np.float32)
    backend = nb.get_backend("serial")
    nb.functional.batch_norm_forward(np.ones((8000, 300), np.float32), None, None, backend="serial")
    y = nb.functional.batch_norm_forward(x, None, None, backend="serial")[0]
    expected = y.copy()
    before = backend.pool.bytes
    nb.empty_cache()
    assert x.nbytes <= backend.pool.bytes <= before - 8 * x.nbytes  # y is alive, and what other tests keep
    assert not any(backend.pool._free.values())
    assert np.array_equal(y, expected)
    assert np.array_equal(nb.functional.batch_norm_forward(x, None, None, backend="serial")[0], expected)
