"""PyTorch, eager, with a malloc that keeps freed memory instead of giving it back to the system: the fastest way to run it that does
not change the program. As installed, page faults are a large part of a step."""

from nbnet.bench.peers import torch_eager

TITLE = "PyTorch, memory kept"
PACKAGE = "torch"
# glibc's malloc: no block is mapped on its own, and the heap is never trimmed (both in bytes).
ENVIRONMENT = torch_eager.ENVIRONMENT | {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
OPS = torch_eager.OPS
SWEEPS = True
Contender = torch_eager.Contender
