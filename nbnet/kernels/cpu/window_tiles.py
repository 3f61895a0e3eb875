"""Sums of products over windows of one array, several windows at a time: the inner loop of depthwise convolution, as LLVM vector code.

    z[k] = init + sum_{r < rows} sum_{t < taps} x[at + k * apart + r * down + t * step] * w[w_at + r * w_down + t * w_step]
    z[r, t] += sum_{k < outputs} x[at + k * apart + r * down + t * step] * dy[dy_at + k * dy_apart]

Each x, w, dy and z is a vector of neighbouring numbers. The sums z stay in registers.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.vector import Vector, address_of, read_whole, write_whole


def make_windows(outputs):
    """The intrinsic of z[k] for k < outputs, as a tuple."""

    @intrinsic
    def windows(context, x, at, apart, down, step, w, w_at, w_down, w_step, rows, taps, init):
        number = types.intp
        signature = types.UniTuple(Vector(x.dtype), outputs)(x, *[number] * 4, w, *[number] * 5, init)

        def generate(context, builder, signature, args):
            _, _, apart, down, step, _, _, w_down, w_step, rows, taps, init = args
            x, w = (address_of(context, builder, signature.args[i], args[i], args[i + 1]) for i in (0, 5))
            sums = [cgutils.alloca_once_value(builder, init) for _ in range(outputs)]
            with cgutils.for_range(builder, rows) as row:
                of_x, of_w = _moved(builder, x, row.index, down), _moved(builder, w, row.index, w_down)
                with cgutils.for_range(builder, taps) as tap:
                    vectors = _Vectors(builder, _moved(builder, of_x, tap.index, step), apart, init.type)
                    factor = read_whole(builder, _moved(builder, of_w, tap.index, w_step), init.type)
                    for k, place in enumerate(sums):
                        _add_product(builder, place, vectors[k], factor)
            return context.make_tuple(builder, signature.return_type, [builder.load(place) for place in sums])

        return signature, generate

    return windows


def make_sums(rows, taps):
    """The intrinsic that adds to z[r, t] in memory, the vector z[z_at + r * z_down + t * z_step]."""

    @intrinsic
    def add(context, x, at, apart, down, step, dy, dy_at, dy_apart, outputs, z, z_at, z_down, z_step):
        number = types.intp
        signature = types.void(x, *[number] * 4, dy, *[number] * 3, z, *[number] * 3)

        def generate(context, builder, signature, args):
            _, _, apart, down, step, _, _, dy_apart, outputs, _, _, z_down, z_step = args
            vector = context.get_value_type(Vector(signature.args[0].dtype))
            x, dy, z = (address_of(context, builder, signature.args[i], args[i], args[i + 1]) for i in (0, 5, 9))
            cells = [_Vectors(builder, _moved(builder, z, down.type(r), z_down), z_step, vector) for r in range(rows)]
            sums = [[cgutils.alloca_once_value(builder, cells[r][t]) for t in range(taps)] for r in range(rows)]
            with cgutils.for_range(builder, outputs) as output:
                first = _moved(builder, x, output.index, apart)
                factor = read_whole(builder, _moved(builder, dy, output.index, dy_apart), vector)
                for r in range(rows):
                    vectors = _Vectors(builder, _moved(builder, first, down.type(r), down), step, vector)
                    for t in range(taps):
                        _add_product(builder, sums[r][t], vectors[t], factor)
            for r in range(rows):
                for t in range(taps):
                    write_whole(builder, builder.load(sums[r][t]), cells[r].pointer(t))
            return context.get_dummy_value()

        return signature, generate

    return add


class _Vectors:
    """The vectors at first + i * step, each loaded once, when it is first used."""

    def __init__(self, builder, first, step, vector):
        self.builder, self.first, self.step, self.vector = builder, first, step, vector
        self.loaded = {}

    def pointer(self, i):
        return _moved(self.builder, self.first, self.step.type(i), self.step)

    def __getitem__(self, i):
        if i not in self.loaded:
            self.loaded[i] = read_whole(self.builder, self.pointer(i), self.vector)
        return self.loaded[i]


def _moved(builder, pointer, count, step):
    return builder.gep(pointer, [builder.mul(count, step)])


def _add_product(builder, place, x, w):
    """place += x * w; place is on the stack, which LLVM keeps in registers.

    The loops run a few times only. Unrolled, also after their function has become a part of a larger one, they would need more registers
    than there are.
    """
    for attribute in ("optsize", "noinline"):
        builder.function.attributes.add(attribute)
    kind = ir.FunctionType(x.type, [x.type] * 3)
    suffix = "f32" if isinstance(x.type.element, ir.FloatType) else "f64"
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{x.type.count}{suffix}")  # see vecmath.fma
    builder.store(builder.call(fma, [x, w, builder.load(place)]), place)
