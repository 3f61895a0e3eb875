"""Compile kernels for another processor, without running them: python compile_for.py triple processor written|made

written: those of KERNELS. made: those that are made from tables.

Prints the kernels that call libm's fma. LLVM aborts the process where it refuses something.
"""

import re
import sys
import threading

import llvmlite.binding as llvm
from numba import config, types

WINDOW = "i i i i i i"
# The arguments of each kernel in float32: a number is an array with so many axes. More than one: for code that is chosen by the types.
KERNELS = {
    "activation.softmax_forward": "2 2",
    "activation.softmax_backward": "2 2 2",
    "activation.log_softmax_forward": "2 2",
    "activation.log_softmax_backward": "2 2 2",
    "activation.prelu_forward": "2 1 2",
    "activation.prelu_backward": "2 2 1 wide3 2 1",
    "array.add": "1 1 1",
    "array.multiply": "1 1 1",
    "array.scale": "1 f 1",
    "array.squares": "1 wide1",
    "array.swap": "4 4",
    "array.copy_columns": "2 i 2 i i",
    "array.multiply_rows": "3 2 3",
    "array.multiply_sum": "3 3 2",
    "augment.apply": "bytes4 labels labels index3 index i 3 1 counter 1 1 f index3 4",
    "augment.mix": "4 wide1 index 4",
    "batchnorm.moments": "2 none wide3 wide1 wide1",
    "batchnorm.apply": "2 1 1 1 f 2",
    "batchnorm.backward_reduce": "2 2 none 1 1 1 f wide3 wide1 wide1",
    "batchnorm.backward_apply": "2 2 none 1 1 1 f 1 1 1 2",
    "batchnorm.apply_max_pool": "4 1 1 1 f 4",
    "batchnorm.backward_reduce_max_pool": "4 4 1 1 1 f wide3 wide1 wide1",
    "batchnorm.backward_apply_max_pool": "4 4 1 1 1 f 1 1 1 4",
    "conv2d.forward": "4 4 1 f i i i i i i 2 b 2 4 wide3 wide1 wide1|4 4 1 f i i i i i i 2 b 3 4 wide3 wide1 wide1",
    "conv2d.backward_data": "4 4 i i i i i i 2 2 2 4|4 4 i i i i i i 2 2 3 4",
    "conv2d.backward_weights": "4 4 i i i i i i 2 3 4 1|4 4 i i i i i i 3 3 4 1",
    "depthwise.forward": "4 3 1 f i i i i i i 4 wide3 wide1 wide1",
    "depthwise.backward_data": "4 3 i i i i i i 4",
    "depthwise.backward_weights": "4 4 i i i i i i wide3 3 1",
    "dense.forward": "2 2 1 f 2 wide3 wide1 wide1",
    "dense.backward_data": "2 2 3 2",
    "dense.backward_weights": "2 2 2 1",
    "dense.backward_weights_norm": "2 2 2 2 wide1 1 wide1 1 1 1 3 wide3 2 1",
    "dropout.apply": "1 counter i f f f 1",
    "dropout.relu_backward": "1 1 f 1",
    "groupnorm.forward": "3 i 1 1 f b wide3 wide2 wide2 3",
    "groupnorm.backward": "3 3 i 1 wide2 wide2 b wide3 1 1 3",
    "loss.softmax_cross_entropy": "2 labels f wide1 hits 2",
    "loss.soft_cross_entropy": "2 2 1 f wide1 hits 2",
    "pool.max_forward": f"4 {WINDOW} 4",
    "pool.max_backward": f"4 4 {WINDOW} 4",
    "pool.avg_forward": f"4 {WINDOW} i i 4",
    "pool.avg_backward": f"4 {WINDOW} i i 4",
    "resample.gather": "4 index wide2 index wide2 4",
}

AFTER_NORM = ("tanh", "gelu", "elu")  # of the activations that are fused with batch normalisation, with code like the others


def kernels():
    """KERNELS and those that are made from tables. (nbnet must not be imported before compile_for sets the target.)"""
    from nbnet.kernels import optimizers
    from nbnet.kernels.activations import TABLE
    from nbnet.kernels.loss import TABLE as LOSSES

    found = dict(KERNELS)
    for row in LOSSES.values():
        found[f"loss.{row.name}"] = f"2 2 2 {'f ' * len(row.options)}f f wide1 2"
    for row in TABLE.values():
        options = "f " * len(row.options)
        found |= {f"activation.{row.name}_forward": f"1 {options}1", f"activation.{row.name}_backward": f"1 1 {options}1"}
        if row.name in AFTER_NORM:
            found[f"batchnorm.apply_{row.name}"] = f"2 1 1 1 {options}2"
            found[f"batchnorm.backward_reduce_{row.name}"] = f"2 2 2 1 1 1 {options}wide3 2 wide1 wide1"
    for name, row in optimizers.TABLE.items():
        options = ["b" if option in optimizers.TRUTHS else "f" for option in row.options]
        found[f"optimizer.{name}"] = " ".join(["1", "1", *("1" for _ in row.slots), *options])
    return found


def compile_for(triple, processor, part):
    """Compile a part; return what `target` says of the processor, and the names of kernels that call libm's fma."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: triple
    config.CPU_NAME, config.CPU_FEATURES = processor, ""
    threading.Thread.start = lambda thread: None  # those of the pool, whose machine code cannot run here

    from nbnet.kernels import load
    from nbnet.kernels.cpu import gemm, target

    kinds = {
        **{f"{n}": types.Array(types.float32, n, "C") for n in range(1, 5)},
        **{f"wide{n}": types.Array(types.float64, n, "C") for n in range(1, 4)},
        "labels": types.int64[::1],
        "index": types.int64[:, ::1],
        "index3": types.int64[:, :, ::1],
        "bytes4": types.uint8[:, :, :, ::1],
        "hits": types.uint8[::1],
        "counter": types.uint64[::1],
        "i": types.int64,
        "f": types.float64,
        "b": types.boolean,
        "none": types.none,
    }
    code = {"gemm": gemm._define(types.float32)._library.get_asm_str()}
    for name, arguments in kernels().items():
        if (name in KERNELS) != (part == "written"):
            continue
        kernel = load(name, "parallel")  # serial has the same code but for the loop
        for each in arguments.split("|"):
            kernel.compile(tuple(kinds[kind] for kind in each.split()))
        code[name] = "".join(kernel.inspect_asm().values())
    calls = [name for name, assembly in code.items() if re.search(r"\b_?fmaf?\b", assembly)]
    return target.ARCHITECTURE, target.WIDTH, target.REGISTERS, *calls


if __name__ == "__main__":
    print(*compile_for(*sys.argv[1:]))
