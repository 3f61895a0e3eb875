"""Launches: configurations are kept, and those that kernels cannot number are refused."""

import numpy as np
import pytest
from cuda_machine import GPU

from nbnet.errors import KernelError

pytestmark = pytest.mark.skipif(not GPU, reason="there is no GPU: use --cuda=executor")


def test_every_configuration_is_made_once(monkeypatch):
    """Numba keeps 128 of all kernels; a network may use more in each step."""
    from nbnet.kernels.array import cuda as array
    from nbnet.kernels.gpu import compile as compiling
    from nbnet.kernels.gpu import device

    kernel, made = array._add, []
    get = type(kernel).__getitem__
    monkeypatch.setattr(type(kernel), "__getitem__", lambda self, where: (made.append(where), get(self, where))[1])
    for _ in range(2):
        for grid in range(1001, 3001):
            compiling.configured(kernel, grid, 64, device.stream())
    assert len(made) == 2000


@pytest.mark.parametrize(("grid", "block"), [(2**24 + 1, 256), ((2**24, 2), (32, 8))])
def test_threads_beyond_32_bits_are_refused(grid, block):
    from nbnet.kernels.array import cuda as array
    from nbnet.kernels.gpu import compile as compiling
    from nbnet.kernels.gpu import device

    with pytest.raises(
        KernelError, match=r"^got [\d,]+ elements or threads, expected at most 4,294,967,296 on backend 'cuda': use a smaller"
    ):
        compiling.configured(array._swap, grid, block, device.stream())
    compiling.configured(array._swap, 2**24, 256, device.stream())


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_group_norm_refuses_what_it_cannot_number(name):
    from nbnet.kernels.groupnorm import cuda as groupnorm

    class Large:
        shape, size = (1, 2**20, 2**13), 2**33

    rest = {"forward": (1, None, None, 1e-5, True, None, None, None, Large), "backward": (Large, 1, *[None] * 8)}[name]
    with pytest.raises(KernelError, match=r"^got 8,589,934,592 elements"):
        getattr(groupnorm, name)(Large, *rest)


class Images:
    """An array with more pixels than 32 bits count, as far as checks look at it."""

    shape = (2**16, 2**8, 2**8, 4)
    size, dtype = 2**34, np.dtype("float32")


PIXEL = (1, 1), (1, 1), (0, 0), (1, 1)


@pytest.mark.parametrize("name", ["convolve", "correlate", "max_forward", "gather", "depthwise", "apply_max_pool"])
def test_pixels_beyond_32_bits_are_refused(name):
    from nbnet.kernels.batchnorm import cuda_max_pool
    from nbnet.kernels.depthwise import cuda as depthwise
    from nbnet.kernels.gpu import products
    from nbnet.kernels.pool import cuda as pool
    from nbnet.kernels.resample import cuda as resample

    calls = {
        "convolve": lambda: products.convolve(Images, None, None, 1.0, *PIXEL, Images),
        "correlate": lambda: products.correlate(Images, Images, *PIXEL, Images, Images),
        "max_forward": lambda: pool.max_forward(Images, 1, 1, 1, 1, 0, 0, Images),
        "gather": lambda: resample.gather(Images, Images, Images, Images, Images, Images),
        "depthwise": lambda: depthwise.forward(Images, Images, None, 1.0, *(1,) * 6, Images, None, None, None),
        "apply_max_pool": lambda: cuda_max_pool.apply_max_pool(Images, None, None, None, 0.0, Images),
    }
    with pytest.raises(KernelError, match=r"^got 4,294,967,296 elements or threads, expected at most 2,147,48\d,\d{3} on backend 'cuda'"):
        calls[name]()
