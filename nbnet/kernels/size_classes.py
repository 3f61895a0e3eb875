"""Sizes of the blocks of memory that pools keep, on the CPU (nbnet.runtime.memory) and on the GPU (nbnet.kernels.gpu.device)."""


def size_class(nbytes: int, granularity: int) -> int:
    """The size of the block for so many bytes: a multiple of `granularity` bytes, and of an eighth to a quarter of nbytes.

    There are four sizes per power of two, so that batches of nearly the same size share blocks. The block is at most a quarter too large,
    or one granule.
    """
    step = max(granularity, 1 << max(0, nbytes.bit_length() - 3))
    return max(1, -(-nbytes // step)) * step
