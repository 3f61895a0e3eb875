"""Transposition through registers, for weights that a backward pass reads in the other order.

One number at a time it takes four to eight times as long, since each store goes to another cache line. Here a block with as many rows
as a register has lanes is loaded row by row and stored column by column. In between, each stage interleaves the lanes of vectors i and
i + n / 2. Written as (row, lane) in bits, a stage rotates an element's position left by one bit; after log2 n stages rows and lanes
have changed places.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.target import WIDTH
from nbnet.kernels.cpu.vector import address_of


@intrinsic
def _block(context, source, at, stride, target, to, target_stride):
    """Transpose a block of lanes x lanes numbers."""

    def generate(context, builder, signature, args):
        source, at, stride, target, to, target_stride = args
        bits = signature.args[0].dtype.bitwidth
        n = WIDTH * 8 // bits
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), n)

        def rows(array_type, array, first, stride):
            for row in range(n):
                index = builder.add(first, builder.mul(stride, stride.type(row)))
                yield builder.bitcast(address_of(context, builder, array_type, array, index), vector.as_pointer())

        block = []
        for pointer in rows(signature.args[0], source, at, stride):
            block.append(builder.load(pointer))
            block[-1].align = bits // 8
        low = ir.Constant(ir.VectorType(ir.IntType(32), n), [i // 2 + i % 2 * n for i in range(n)])
        high = ir.Constant(low.type, [i // 2 + i % 2 * n + n // 2 for i in range(n)])
        for _ in range(n.bit_length() - 1):
            pairs = list(zip(block[: n // 2], block[n // 2 :]))
            block = [builder.shuffle_vector(*pair, half) for pair in pairs for half in (low, high)]
        for pointer, value in zip(rows(signature.args[3], target, to, target_stride), block):
            builder.store(value, pointer).align = bits // 8
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@body
def transpose(source, at, stride, rows, columns, target, to, target_stride):
    """target[to + column * target_stride + row] = source[at + row * stride + column], for row < rows and column < columns; both flat."""
    n = lanes(source)
    whole_rows, whole_columns = rows // n * n, columns // n * n
    for row in range(0, whole_rows, n):
        for column in range(0, whole_columns, n):
            _block(source, at + row * stride + column, stride, target, to + column * target_stride + row, target_stride)
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            target[to + column * target_stride + row] = source[at + row * stride + column]
