"""Launches: configurations are kept, and those that kernels cannot number are refused."""

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
