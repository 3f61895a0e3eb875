"""The caching pool."""

import threading

import numpy as np

from nbnet.runtime.memory import Pool, Scratch


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
