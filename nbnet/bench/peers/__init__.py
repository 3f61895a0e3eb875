"""The frameworks that nbnet is compared with, one module each.

A peer is a module with TITLE, PACKAGE (what must be importable), ENVIRONMENT (of its process; {threads} is filled in) and
Contender(threads), which has the methods of `nbnet.bench.ours.Contender`. It may have tuned_step (the fastest of several ways to make a
step) and exact_step (used for the comparison without dropout where compiling the network a second time takes too long). Importing the
module imports no framework: that happens in Contender, in the peer's own process. Every peer follows its own performance guide and
uses as many threads as nbnet.

OPS lists the operations it takes part in. SWEEPS says whether it is in the charts of cost against size and threads; peers that
compile for a long time at each size are not.
"""

PEERS = {
    "torch": "torch_eager",
    "torch-kept": "torch_kept",
    "torch-compile": "torch_compile",
    "jax": "jax_jit",
    "tensorflow": "tensorflow_function",
}
QUICK = ("torch", "torch-kept")  # the peers of a quick run: the others take too long to start or compile
