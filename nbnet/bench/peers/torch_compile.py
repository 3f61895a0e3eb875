"""PyTorch with torch.compile, which fuses the operations between convolutions. It needs a C++ compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbnet.bench import workloads
from nbnet.bench.networks import Network
from nbnet.bench.peers import torch_eager

TITLE = "torch.compile"
PACKAGE = "torch"
ENVIRONMENT = torch_eager.ENVIRONMENT
OPS = (*workloads.STEPS, "batchnorm", "dropout", "softmax")  # the other kernels are the same library calls as without it
SWEEPS = False


class Contender(torch_eager.Contender):
    """The forward pass with its loss is compiled; backward follows from it."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.eager = torch_eager.Contender(threads)

    @staticmethod
    def wrap(function: Any) -> Any:
        import torch

        torch._dynamo.reset()
        return torch.compile(function, dynamic=False)

    def exact_step(self, network: Network, rows: int) -> Callable[[], float]:
        """Not compiled, since compiling takes longest here. The compiled network with dropout is checked by its first loss."""
        return self.eager.step(network, rows)
