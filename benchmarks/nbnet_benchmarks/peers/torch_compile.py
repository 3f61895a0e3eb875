"""PyTorch with torch.compile, which fuses what lies between convolutions. It needs a C++ compiler."""

from __future__ import annotations

from typing import Any

from nbnet_benchmarks import workloads
from nbnet_benchmarks.peers import torch_eager

TITLE = "torch.compile"
PACKAGE = "torch"
ENVIRONMENT = torch_eager.ENVIRONMENT
OPS = (*workloads.STEPS, "batchnorm", "dropout", "softmax")  # the other kernels are library calls, the same as without it
SWEEPS = False


class Contender(torch_eager.Contender):
    """Compiled: the forward pass with its loss; backward follows from it."""

    @staticmethod
    def wrap(function: Any) -> Any:
        import torch

        torch._dynamo.reset()
        return torch.compile(function, dynamic=False)
