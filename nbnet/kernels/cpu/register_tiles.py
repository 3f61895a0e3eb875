"""Vector register tiles: the inner loop of convolution and dense layers, as LLVM vector code in @njit functions.

A tile holds ROWS x VECTORS accumulators in registers and runs

    c[r, :] = init[r, :] + sum_{o < outer} sum_{k < inner} a[o, r, k] * b[o, k, :]

where a, b, c are flat arrays, read by offsets and strides. So one loop serves y = x @ w (a_r = row, a_k = 1), dw = x.T @ dy
(a_r = 1, a_k = row) and a direct convolution over a padded image, whose rows of patches overlap in memory: no im2col.
LLVM's own vectoriser stops at 256 bits and keeps such accumulators in memory. Written out, the loop runs at 250 GFLOP/s; a loop of
only FMA runs at 287 (one core of Zen 5, 6 x 4 vectors of 16 float32).

A vector fills a register: 64, 32 or 16 bytes. A tail of columns shorter than a vector is loaded and stored under a mask, by separate
tiles: a mask costs time even if it is full.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.compile import body, inlined
from nbnet.kernels.cpu.target import REGISTERS, WIDTH

MAX_VECTORS = 4 if REGISTERS == 32 else 2
SHORT = 64  # terms of a sum up to which tiles of 4 x 4 vectors are at least as fast as 6 x 4, which read b less often


@intrinsic
def lanes(context, numbers):
    """Numbers per vector register, for an array or a pointer: a compile-time constant, unlike an array's itemsize."""
    count = WIDTH * 8 // numbers.dtype.bitwidth
    return types.intp(numbers), lambda context, builder, signature, args: ir.Constant(ir.IntType(64), count)


# ------------------------------------------------------------------------------------------------- the generator


class _Emitter:
    """Emits one tile: loads, two loops with their accumulators, stores. tail: the index of the masked vector."""

    def __init__(self, builder, element, bits, rows, vectors, masked):
        self.builder = builder
        self.rows, self.vectors = rows, vectors
        self.tail = vectors - 1 if masked else None
        self.lanes = WIDTH * 8 // bits
        self.element, self.bits, self.align = element, bits, bits // 8
        self.vector = ir.VectorType(element, self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)

    def number(self, value, bits=64):
        return ir.Constant(ir.IntType(bits), value)

    def external(self, name, result, arguments):
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def splat(self, value, vector):
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, self.number(0, 32))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    def set_mask(self, columns):
        """Set the mask: the lanes of the last vector that are inside `columns` columns."""
        index_type = ir.VectorType(ir.IntType(64), self.lanes)
        index = ir.Constant(index_type, [self.number(i) for i in range(self.lanes)])
        inside = self.builder.sub(columns, self.number((self.vectors - 1) * self.lanes))
        self.mask = self.builder.icmp_signed("<", index, self.splat(inside, index_type))

    def load(self, pointer, masked):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if not masked:
            value = self.builder.load(pointer)
            value.align = self.align
            return value
        name = f"llvm.masked.load.v{self.lanes}f{self.bits}.p0"
        load = self.external(name, self.vector, [pointer.type, ir.IntType(32), self.mask_type, self.vector])
        return self.builder.call(load, [pointer, self.number(self.align, 32), self.mask, ir.Constant(self.vector, [0.0] * self.lanes)])

    def store(self, value, pointer, masked):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if not masked:
            self.builder.store(value, pointer).align = self.align
            return
        name = f"llvm.masked.store.v{self.lanes}f{self.bits}.p0"
        store = self.external(name, ir.VoidType(), [self.vector, pointer.type, ir.IntType(32), self.mask_type])
        self.builder.call(store, [value, pointer, self.number(self.align, 32), self.mask])

    def cells(self, pointer, row_stride):
        """Pointers to the tile's vectors in memory, and whether each is masked."""
        for r in range(self.rows):
            row = self.builder.gep(pointer, [self.builder.mul(row_stride, self.number(r))])
            for v in range(self.vectors):
                yield self.builder.gep(row, [self.number(v * self.lanes)]), v == self.tail

    def row_offsets(self, a_r):
        """Offsets of the rows of a from the first. Hide from LLVM that row offsets are multiples of one stride; otherwise it builds a
        serial chain of additions on the critical path."""
        kind, offsets = ir.FunctionType(a_r.type, [a_r.type]), [self.number(0)]
        for r in range(1, self.rows):
            if r % 2 == 0:
                offsets.append(self.builder.shl(offsets[r // 2], self.number(1)))  # folded into the load instruction
            else:
                offsets.append(self.builder.asm(kind, "", "=r,0", [self.builder.mul(a_r, self.number(r))], False))
        return offsets

    def step(self, a, offsets, b, sums):
        """One k: for each row, the vectors of b times one number of a."""
        fma = self.external(f"llvm.fmuladd.v{self.lanes}f{self.bits}", self.vector, [self.vector] * 3)  # see vecmath.fma
        cells = [self.builder.gep(b, [self.number(v * self.lanes)]) for v in range(self.vectors)]
        columns = [self.load(cell, v == self.tail) for v, cell in enumerate(cells)]
        out = []
        for r in range(self.rows):
            number = self.splat(self.builder.load(self.builder.gep(a, [offsets[r]])), self.vector)
            out += [self.builder.call(fma, [number, columns[v], sums[r * self.vectors + v]]) for v in range(self.vectors)]
        return out

    def loop(self, count, carried, emit, name):
        """for _ in range(count), at least once: carried = emit(carried). Return the final values."""
        before = self.builder.block
        start = self.builder.append_basic_block(name)
        self.builder.branch(start)
        self.builder.position_at_end(start)
        index = self.builder.phi(ir.IntType(64))
        index.add_incoming(self.number(0), before)
        values = [self.builder.phi(value.type) for value in carried]
        for phi, value in zip(values, carried):
            phi.add_incoming(value, before)
        results = emit(values)
        following = self.builder.add(index, self.number(1))
        last = self.builder.block
        index.add_incoming(following, last)
        for phi, value in zip(values, results):
            phi.add_incoming(value, last)
        done = self.builder.append_basic_block(f"{name}.done")
        self.builder.cbranch(self.builder.icmp_signed("<", following, count), start, done)
        self.builder.position_at_end(done)
        return results


# ------------------------------------------------------------------------------------------------------ pointers


@intrinsic
def further(context, pointer, numbers):
    """The pointer, advanced by that many numbers."""

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), generate


# --------------------------------------------------------------------------------------------------------- a tile


def make_tile(rows, vectors, masked):
    """The intrinsic of one tile shape. A masked tile reads and writes nothing beyond the first `columns` numbers of rows of b, init and
    c."""

    @intrinsic
    def tile(context, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
        signature = types.void(a, *[types.intp] * 3, b, *[types.intp] * 4, init, types.intp, c, *[types.intp] * 2)

        def generate(context, builder, signature, args):
            # Unrolling the two loops would triple the machine code and take 1.6 times as long to compile, for almost no gain in speed.
            builder.function.attributes.add("optsize")
            a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns = args
            dtype = signature.args[0].dtype
            emit = _Emitter(builder, context.get_value_type(dtype), dtype.bitwidth, rows, vectors, masked)
            if masked:
                emit.set_mask(columns)
            sums, offsets = [emit.load(cell, tail) for cell, tail in emit.cells(init, init_r)], emit.row_offsets(a_r)

            def one_outer(carried):
                a, b, *sums = carried

                def one_inner(carried):
                    a, b, *sums = carried
                    return [builder.gep(a, [a_k]), builder.gep(b, [b_k]), *emit.step(a, offsets, b, sums)]

                _, _, *sums = emit.loop(inner, [a, b, *sums], one_inner, "inner")
                return [builder.gep(a, [a_outer]), builder.gep(b, [b_outer]), *sums]

            _, _, *sums = emit.loop(outer, [a, b, *sums], one_outer, "outer")
            for (cell, tail), value in zip(emit.cells(c, c_r), sums):
                emit.store(value, cell, tail)
            return context.get_dummy_value()

        return signature, generate

    return tile


# -------------------------------------------------------------------------------------------------------- the rows


def tile_rows(vectors, masked):
    """Rows of the tiles with this many vectors, the largest first: enough accumulators to hide the latency of FMA, few enough to leave
    registers for a, b and a mask. The gradient of a 3 x 3 kernel has three rows per input channel."""
    if vectors == 1 or (vectors == 2 and REGISTERS == 32):
        return 8, 3, 1
    return (4, 3, 1) if masked else (6, 4, 3, 1)


def _make_rows(vectors, masked):
    """A body that runs tiles of `vectors` vectors over `rows` rows of a and c, largest tiles first."""
    *six, most, _, _ = tile_rows(vectors, masked)
    largest, three, one = (make_tile(size, vectors, masked) for size in (most, 3, 1))

    @body
    def run(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
        while rows >= most:
            largest(a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
            a, init, c = further(a, most * a_r), further(init, most * init_r), further(c, most * c_r)
            rows -= most
        while rows >= 3:
            three(a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
            a, init, c = further(a, 3 * a_r), further(init, 3 * init_r), further(c, 3 * c_r)
            rows -= 3
        while rows >= 1:
            one(a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
            a, init, c = further(a, a_r), further(init, init_r), further(c, c_r)
            rows -= 1

    return _six_first(make_tile(6, vectors, masked), run, SHORT if vectors == 4 else 0) if six else run


def _six_first(six, rest, short):
    """A body that runs tiles of six rows first, for sums of more than `short` terms. It leaves 7 and 8 rows to the others, which split them
    into 4 + 3 and 4 + 4."""

    @body
    def run(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
        while outer * inner > short and (rows == 6 or rows > 8):
            six(a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
            a, init, c = further(a, 6 * a_r), further(init, 6 * init_r), further(c, 6 * c_r)
            rows -= 6
        rest(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)

    return run


def make_rows(vectors):
    """A body for any number of columns: whole tiles if the columns fill `vectors` vectors, else masked ones."""
    whole, tail = _make_rows(vectors, masked=False), _make_rows(vectors, masked=True)

    @inlined
    def run(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
        if columns >= vectors * lanes(c):
            whole(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
        else:
            tail(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)

    return run


rows_of_4 = make_rows(MAX_VECTORS)
rows_of_2 = make_rows(2)
rows_of_1 = make_rows(1)
