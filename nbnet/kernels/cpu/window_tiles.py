"""Sums of products over windows of one array, several windows at a time: the inner loop of depthwise convolution, as LLVM vector code.

    z[i, j] += sum_{r < rows} sum_{t < taps} x[at + i * over + j * apart + r * down + t * step] * w[w_at + r * w_down + t * w_step]

Each x and w is a vector of neighbouring numbers. The sums stay in registers and share the vectors of w. Neighbouring outputs of a
convolution have their windows side by side (1 x 4). The gradient of the weights has a sum for each tap (3 x 3); there w is dy, and the sum
runs over pixels. The loops run a few times only: unrolled, with a pointer for each sum, they would take longer to set up; hence optsize.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.vector import Vector, address_of, read_whole, write_whole


def make_windows(columns):
    """The intrinsic of sums side by side: returns them as a tuple; all start from `init`."""

    @intrinsic
    def windows(context, x, at, apart, down, step, w, w_at, w_down, w_step, rows, taps, init):
        number = types.intp
        signature = types.UniTuple(Vector(x.dtype), columns)(x, *[number] * 4, w, *[number] * 5, init)

        def generate(context, builder, signature, args):
            x, at, apart, down, step, w, w_at, w_down, w_step, rows, taps, init = args
            pointers = address_of(context, builder, signature.args[0], x, at), address_of(context, builder, signature.args[5], w, w_at)
            sums = [cgutils.alloca_once_value(builder, init) for _ in range(columns)]
            _add_products(builder, pointers, apart.type(0), apart, (down, step), (w_down, w_step), rows, taps, sums, columns)
            return context.make_tuple(builder, signature.return_type, [builder.load(place) for place in sums])

        return signature, generate

    return windows


def make_sums(rows_of_sums, columns):
    """The intrinsic that adds to sums in memory: z[i, j] is the vector z[z_at + i * z_over + j * z_apart]."""

    @intrinsic
    def add(context, x, at, over, apart, step, w, w_at, w_step, taps, z, z_at, z_over, z_apart):
        number = types.intp
        signature = types.void(x, *[number] * 4, w, *[number] * 3, z, *[number] * 3)

        def generate(context, builder, signature, args):
            x, at, over, apart, step, w, w_at, w_step, taps, z, z_at, z_over, z_apart = args
            pointers = address_of(context, builder, signature.args[0], x, at), address_of(context, builder, signature.args[5], w, w_at)
            vector = context.get_value_type(Vector(signature.args[0].dtype))
            first = address_of(context, builder, signature.args[9], z, z_at)
            cells = [builder.gep(first, [offset]) for offset in _offsets(builder, z_over, z_apart, rows_of_sums, columns)]
            sums = [cgutils.alloca_once_value(builder, read_whole(builder, cell, vector)) for cell in cells]
            none, one = step.type(0), step.type(1)
            _add_products(builder, pointers, over, apart, (none, step), (none, w_step), one, taps, sums, columns)
            for place, cell in zip(sums, cells):
                write_whole(builder, builder.load(place), cell)
            return context.get_dummy_value()

        return signature, generate

    return add


def _add_products(builder, pointers, over, apart, steps, w_steps, rows, taps, sums, columns):
    """The two loops. pointers: to the first x and w; sums: pointers to vectors on the stack, which LLVM keeps in registers."""
    builder.function.attributes.add("optsize")
    vector = sums[0].type.pointee
    kind = ir.FunctionType(vector, [vector] * 3)
    suffix = "f32" if isinstance(vector.element, ir.FloatType) else "f64"
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{vector.count}{suffix}")  # see vecmath.fma
    offsets = [*_offsets(builder, over, apart, len(sums) // columns, columns)]
    here, there = (cgutils.alloca_once(builder, pointer.type) for pointer in pointers)
    with cgutils.for_range(builder, rows) as row:
        for place, pointer, step in ((here, pointers[0], steps[0]), (there, pointers[1], w_steps[0])):
            builder.store(builder.gep(pointer, [builder.mul(row.index, step)]), place)
        with cgutils.for_range(builder, taps):
            x, w = builder.load(here), builder.load(there)
            factor = read_whole(builder, w, vector)
            for place, offset in zip(sums, offsets):
                value = read_whole(builder, builder.gep(x, [offset]), vector)
                builder.store(builder.call(fma, [value, factor, builder.load(place)]), place)
            builder.store(builder.gep(x, [steps[1]]), here)
            builder.store(builder.gep(w, [w_steps[1]]), there)


def _offsets(builder, over, apart, rows, columns):
    """i * over + j * apart, whose origin is hidden from LLVM: it would keep a pointer for each sum, in more registers than there are."""
    kind = ir.FunctionType(over.type, [over.type])
    for i in range(rows):
        for j in range(columns):
            offset = builder.add(builder.mul(over, over.type(i)), builder.mul(apart, over.type(j)))
            yield builder.asm(kind, "", "=r,0", [offset], False) if i or j else over.type(0)
