"""Arrays on the GPU, or in the simulator, and the errors of backends."""

import gc
import weakref

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BackendError, KernelError

pytestmark = pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
F = nb.functional


@pytest.fixture
def be():
    return nb.get_backend("cuda")


def placed(be, *shape):
    host = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return be.place(host), host


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3), slice(2, None), slice(0, 4, 2), slice(1, None, 2), slice(2, 2)], ids=str)
@pytest.mark.parametrize("width", [1, 3, 4])
def test_rows(be, width, rows):
    """Aligned to 16 bytes or not, consecutive or not, read and written."""
    array, host = placed(be, 5, width)
    assert_close(np.asarray(array[rows]), host[rows], "exact")
    array[rows] = -host[rows]
    host[rows] *= -1
    assert_close(np.asarray(array), host, "exact")
    array[rows] = be.place(2 * host[rows])
    host[rows] *= 2
    assert_close(np.asarray(array), host, "exact")


def test_reshape_is_a_view(be):
    array, _ = placed(be, 2, 6)
    view = array.reshape(3, -1)
    assert view.shape == (3, 4)
    array[:] = 5
    assert_close(np.asarray(view), np.full((3, 4), 5.0, np.float32), "exact")
    with pytest.raises(ValueError, match=r"cannot reshape \(2, 6\) to \(5,\)"):
        array.reshape(5)


def test_a_copy_is_its_own(be):
    array, host = placed(be, 7)
    twin = array.copy()
    array[...] = np.float32(0)
    assert_close(np.asarray(twin), host, "exact")


def test_numpy_does_not_copy_behind_ones_back(be):
    array, host = placed(be, 3)
    with pytest.raises(TypeError):
        np.add(host, array)
    with pytest.raises(TypeError):
        array + 1
    with pytest.raises(IndexError, match="expected a slice of its rows"):
        array[0]


def test_a_block_is_used_again_when_its_last_view_has_died(be):
    pool = be.pool
    array = be.empty((120, 45), np.float32)
    block = array.lease.block
    view = array.reshape(45, 120)[1:]
    del array
    gc.collect()
    assert be.empty((120, 45), np.float32).lease.block is not block
    del view
    gc.collect()
    misses = pool.misses
    assert be.empty((45, 120), np.float32).lease.block.bytes is not None
    assert pool.misses == misses


def test_the_garbage_collector_frees_no_memory_that_the_pool_hands_out_again(be):
    """It calls what frees memory, a callback of a weak reference, before the lease in the same cycle gives the block back."""
    freed = []
    array = be.empty((77, 13), np.float32)
    weakref.finalize(array.lease.block.bytes, freed.append, "memory")
    cycle = [array]
    cycle.append(cycle)
    del array, cycle
    gc.collect()
    assert freed == []
    be.empty_cache()
    gc.collect()
    assert freed == ["memory"]


def test_many_uploads_arrive(be):
    """More uploads than there are pinned blocks, without waiting."""
    arrays = [be.place(np.full(100, i, np.float32)) for i in range(12)]
    assert [float(np.asarray(a)[99]) for a in arrays] == list(range(12))


@pytest.fixture
def log(be, monkeypatch):
    """The operations of uploads on the two streams, in order."""
    device, log = be.device, []
    names = {device.stream(): "kernels", device.copy_stream(): "copies"}

    class Event:
        def record(self, stream):
            log.append(f"record {names[stream]}")

        def wait(self, stream):
            log.append(f"{names[stream]} wait")

    class Staging:
        def upload(self, array, flat, on):
            log.append(f"copy on {names[on]}")

    monkeypatch.setattr(device.cuda, "event", Event)
    monkeypatch.setattr(device.transfers, "staging", Staging)
    return log


ORDERED = ["record kernels", "copies wait", "copy on copies", "record copies"]


def test_an_upload_beside_the_kernels_is_ordered_by_events(be, log):
    """The copy waits for earlier launches, and launches that use the array wait for the copy."""
    upload = be.device.Upload(np.ones(50, np.float32))
    assert log == ORDERED
    upload.arrived()
    assert log == [*ORDERED, "kernels wait"]


def test_the_block_of_an_upload_that_is_dropped_is_used_after_the_copy(be, log):
    upload = be.device.Upload(np.ones(50, np.float32))
    block = upload._array.lease.block
    del upload
    gc.collect()
    assert log == [*ORDERED, "kernels wait"]
    assert be.empty((50,), np.float32).lease.block is block


def test_uploads_beside_the_kernels_arrive(be):
    uploads = [be.device.Upload(np.full(100, i, np.float32)) for i in range(12)]
    assert [float(np.asarray(upload.arrived())[99]) for upload in uploads] == list(range(12))


def test_cpu_backends_refuse_arrays_on_the_gpu(be):
    x, _ = placed(be, 4, 3)
    with pytest.raises(BackendError, match="the backend is 'serial': use backend='cuda'"):
        F.dense_forward(x, np.zeros((3, 2), np.float32), backend="serial")


def test_functional_calls_take_either_and_give_arrays_on_the_gpu(be):
    x, host = placed(be, 4, 3)
    weight = np.ones((3, 2), np.float32)
    for argument in (x, host):
        y, saved = F.dense_forward(argument, weight, backend="cuda")
        assert_close(np.asarray(y), host @ weight, "matmul")
    _, _, dbias = F.dense_backward(np.ones((4, 2), np.float32), saved)
    assert_close(np.asarray(dbias), np.full(2, 4.0), "matmul", "float32")
    mean, var = F.moments(x, 0, backend="cuda")
    assert_close(mean, host.mean(axis=0), "reduction")
    assert_close(var, host.var(axis=0), "reduction")


def test_out_of_memory_is_one_line(be, monkeypatch):
    class Exhausted(Exception):
        pass

    def fail(*args):
        raise Exhausted("Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(be.device.cuda, "device_array", fail)
    with pytest.raises(BackendError, match=r"out of memory: 4,096\.0 MiB were requested, .* MiB are free .*: use a smaller batch"):
        be.empty((1024, 1024, 1024), np.float32)


def test_kernels_are_found_by_the_rule():
    with pytest.raises(KernelError, match="did you mean 'moments'"):
        nb.get_backend("cuda").kernel("batchnorm.momets")
