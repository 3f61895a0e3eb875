"""PyTorch, eager, with a malloc that keeps freed memory instead of returning it to the system: the fastest way to run it without
changing the program. As installed, page faults are a large part of a step."""

from nbnet.bench.peers import torch_eager

TITLE = "PyTorch, memory kept"
PACKAGE = "torch"
# glibc's malloc: no block gets a mapping of its own, and the heap is never trimmed (both in bytes).
ENVIRONMENT = torch_eager.ENVIRONMENT | {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
OPS = torch_eager.OPS
SWEEPS = True
Contender = torch_eager.Contender
