"""The frameworks that nbnet is compared with, one module each.

A peer is a module with TITLE, PACKAGE (what must be importable), ENVIRONMENT (of its process; {threads} is filled in) and
Contender(threads), which has the methods of `nbnet.bench.ours.Contender`. It may have tuned_step (of several ways to make a
step, the fastest) and exact_step (where compiling a network a second time, to compare it without dropout, takes too long). Importing
the module imports no framework: that happens in Contender, in the peer's own process. Every peer runs as its own guide advises, on as
many threads as nbnet.

OPS is what it takes part in, SWEEPS whether it is in the charts of cost against size and threads: not where
each size takes long to compile.
"""

PEERS = {
    "torch": "torch_eager",
    "torch-kept": "torch_kept",
    "torch-compile": "torch_compile",
    "jax": "jax_jit",
    "tensorflow": "tensorflow_function",
}
QUICK = ("torch", "torch-kept")  # the peers of a quick run: the others start or compile too long for a minute
