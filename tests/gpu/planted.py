"""Kernels with one fault each, on the line that says FAULT, and kernels without any. They are here, since messages name lines of files."""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu.launch import load4


@cuda.jit
def reads_one_beyond(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x + 1]  # FAULT


@cuda.jit
def writes_one_beyond(x, y):
    y[cuda.threadIdx.x + 1] = x[cuda.threadIdx.x]  # FAULT


@cuda.jit(device=True)
def _neighbour(x, i):
    return x[i + 1]  # FAULT


@cuda.jit
def calls_what_reads_beyond(x, y):
    y[cuda.threadIdx.x] = _neighbour(x, cuda.threadIdx.x)


@cuda.jit
def misses_a_barrier(x, y):
    held = cuda.shared.array(64, np.float32)
    held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = held[cuda.threadIdx.x // 2]  # FAULT


@cuda.jit
def misses_a_barrier_and_reads_ahead(x, y):
    held = cuda.shared.array(64, np.float32)
    held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = held[63 - cuda.threadIdx.x]  # FAULT


@cuda.jit
def threads_write_one_element(x, y):
    y[cuda.threadIdx.x // 2] = x[cuda.threadIdx.x]  # FAULT


@cuda.jit
def blocks_write_one_element(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x]  # FAULT


@cuda.jit
def reads_what_another_block_writes(x, y):
    i = cuda.threadIdx.x
    if cuda.blockIdx.x == 0:
        y[i] = x[i]
    elif y[i] > 0:  # FAULT
        x[i] = 1


@cuda.jit
def loads_four_at_a_place_for_one(x, y):
    four = load4(x, cuda.threadIdx.x % 60)  # FAULT
    y[cuda.threadIdx.x] = four[0] + four[1] * four[2] + four[3]


@cuda.jit
def has_a_barrier_for_some(x, y):
    if cuda.threadIdx.x < 32:
        cuda.syncthreads()  # FAULT
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x]


@cuda.jit
def has_two_barriers(x, y):
    if cuda.threadIdx.x < 32:
        cuda.syncthreads()  # FAULT
        y[cuda.threadIdx.x] = 1
    else:
        y[cuda.threadIdx.x] = 2
        cuda.syncthreads()


@cuda.jit
def reads_shared_memory_before_it_is_written(x, y):
    held = cuda.shared.array(128, np.float32)
    held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = held[64 + cuda.threadIdx.x]  # FAULT


@cuda.jit
def reads_its_output(x, y):
    y[cuda.threadIdx.x] += x[cuda.threadIdx.x]  # FAULT


@cuda.jit
def reads_beyond_a_shared_array(x, y):
    held = cuda.shared.array(64, np.float32)
    held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = held[cuda.threadIdx.x + 1]  # FAULT


@cuda.jit
def shuffles_in_half_a_warp(x, y):
    value = x[cuda.threadIdx.x]
    if cuda.threadIdx.x < 16:
        value = cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)  # FAULT
    y[cuda.threadIdx.x] = value


@cuda.jit
def relies_on_a_shuffle_for_memory(x, y):
    first = x[cuda.threadIdx.x & ~31]
    first = cuda.shfl_xor_sync(0xFFFFFFFF, first, 1)
    x[cuda.threadIdx.x] = 2 * first  # FAULT
    y[cuda.threadIdx.x] = first


@cuda.jit
def adds_in_any_order(x, y):
    if cuda.threadIdx.x == 0:
        y[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(y, 0, x[cuda.threadIdx.x])


@cuda.jit
def reverses(x, y):
    held = cuda.shared.array(64, np.float32)
    held[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = held[63 - cuda.threadIdx.x]


@cuda.jit
def exchanges(x, y):
    i = cuda.threadIdx.x
    v = x[i]
    a, b = cuda.shfl_xor_sync(0xFFFFFFFF, v, 5), cuda.shfl_up_sync(0xFFFFFFFF, v, 3)
    y[i] = a + 100 * b + 10000 * cuda.shfl_down_sync(0xFFFFFFFF, v, 7) + 1000000 * cuda.shfl_sync(0xFFFFFFFF, v, 9)


@cuda.jit
def counts(x, y):
    cuda.atomic.add(y, cuda.threadIdx.x % 4, 1)


@cuda.jit
def says_where_it_is(x, y):
    block = (cuda.blockIdx.z * cuda.gridDim.y + cuda.blockIdx.y) * cuda.gridDim.x + cuda.blockIdx.x
    thread = (cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y) * cuda.blockDim.x + cuda.threadIdx.x
    y[block * cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z + thread] = 100 * block + thread
