"""Vectors as values in @njit functions: load, compute with and store a register of numbers like one number.

    z = (load(x, at, count) - load(center, c, count)) * load(scale, c, count)
    store(y, at, count, where(z > zero(z), z, splat(slope) * z))

LLVM's own vectoriser gives up on inner loops over a dozen arrays, since it would first have to check that none of them overlap, and it
stops at 256 bits. Here the full width of the host is used, and the code still reads like scalar code.

Operators compute what is written; the function that contains them decides what may be reordered or contracted.

`array` is flat, `at` is an offset, and `count` is how many numbers are left: lanes beyond it are read as 0 and not written. With a
count of 0 no memory is accessed, so `at` may be out of bounds.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from nbnet.kernels.cpu.target import WIDTH

_INT = ir.IntType(64)


class Vector(types.Type):
    """Numbers of one dtype that fill a register, or as many float64 as a register has float32."""

    def __init__(self, dtype, lanes=None):
        self.dtype, self.lanes = dtype, lanes or WIDTH * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype} x {self.lanes})")


class Mask(types.Type):
    """One truth value per lane: the result of comparing two vectors."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"Mask({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        element = ir.FloatType() if vector.dtype.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, mask):
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.lanes))


# ---------------------------------------------------------------------------------------------------- operators


def _operator(function, operands, emit):
    """Define a Python operator on two vectors, or two masks, of one type. A comparison returns a mask."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) != 2 or args[0] != args[1] or not isinstance(args[0], operands):
                return None
            return signature(Mask(args[0].lanes) if function in _COMPARISONS else args[0], *args)

    @lower_builtin(function, operands, operands)
    def _lower(context, builder, signature, args):
        return emit(builder, *args)


_COMPARISONS = (operator.gt, operator.ge, operator.ne)
_operator(operator.add, Vector, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, Vector, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, Vector, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, Vector, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.gt, Vector, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.ge, Vector, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_operator(operator.ne, Vector, lambda builder, a, b: builder.fcmp_unordered("!=", a, b))
_operator(operator.and_, Mask, lambda builder, a, b: builder.and_(a, b))
_operator(operator.or_, Mask, lambda builder, a, b: builder.or_(a, b))


@intrinsic
def where(context, mask, a, b):
    """a where the mask is true, else b."""
    return a(mask, a, b), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def splat(context, number):
    """The number in every lane."""

    def generate(context, builder, signature, args):
        return splat_value(builder, args[0], context.get_value_type(signature.return_type))

    return Vector(number)(number), generate


@intrinsic
def splat_as(context, number, like):
    """The number, float64 or of the dtype of `like`, in every lane of a vector of the type of `like`."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        value = args[0] if args[0].type == vector.element else builder.fptrunc(args[0], vector.element)
        return splat_value(builder, value, vector)

    return like(number, like), generate


@intrinsic
def sum_of_lanes(context, vector):
    """The sum of a float64 vector's lanes, in their order."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        function_type = ir.FunctionType(kind.element, [kind.element, kind])
        reduce = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.vector.reduce.fadd.v{kind.count}f64")
        return builder.call(reduce, [ir.Constant(kind.element, 0.0), args[0]])

    return types.float64(vector), generate


@intrinsic
def largest_lane(context, vector):
    """The largest lane of a vector; undefined if one is NaN."""

    def generate(context, builder, signature, args):
        kind, vector = args[0].type, args[0]
        count = kind.count
        while count > 1:  # compare the upper half with the lower one
            count //= 2
            order = [count + i if i < count else i for i in range(kind.count)]
            indices = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), order)
            other = builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), indices)
            vector = builder.select(builder.fcmp_ordered(">", vector, other), vector, other)
        return builder.extract_element(vector, ir.IntType(32)(0))

    return vector.dtype(vector), generate


@intrinsic
def zero(context, like):
    """A vector of zeros, of the type of `like`."""
    return like(like), lambda context, builder, signature, args: ir.Constant(args[0].type, [0.0] * args[0].type.count)


def splat_value(builder, value, vector):
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


# ------------------------------------------------------------------------------------------------------- memory


def _inside(builder, count, lanes):
    """The mask of the first `count` lanes, compared in 32 bits, which need no more registers than float32."""
    index = ir.VectorType(ir.IntType(32), lanes)
    few = builder.select(builder.icmp_signed("<", count, _INT(lanes)), count, _INT(lanes))
    limit = splat_value(builder, builder.trunc(few, ir.IntType(32)), index)
    return builder.icmp_signed("<", ir.Constant(index, list(range(lanes))), limit)


def address_of(context, builder, array_type, array, at):
    """A pointer to array[at], for intrinsics."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def read_whole(builder, pointer, vector):
    """The load of all lanes, for intrinsics."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = 4 if isinstance(vector.element, ir.FloatType) else 8
    return value


def write_whole(builder, value, pointer):
    """The store of all lanes, for intrinsics."""
    instruction = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    instruction.align = 4 if isinstance(value.type.element, ir.FloatType) else 8
    return instruction


def _load(builder, pointer, vector, count):
    """A plain load where all lanes are inside: unlike a masked load, it triggers hardware prefetching and store forwarding."""
    with builder.if_else(builder.icmp_signed(">=", count, _INT(vector.count)), likely=True) as (whole, part):
        with whole:
            all_of_it = read_whole(builder, pointer, vector)
            after_whole = builder.block
        with part:
            some_of_it = _masked_load(builder, pointer, vector, _inside(builder, count, vector.count))
            after_part = builder.block
    value = builder.phi(vector)
    value.add_incoming(all_of_it, after_whole)
    value.add_incoming(some_of_it, after_part)
    return value


def write(builder, value, pointer, count):
    """The store of the first `count` lanes, for intrinsics."""
    with builder.if_else(builder.icmp_signed(">=", count, _INT(value.type.count)), likely=True) as (whole, part):
        with whole:
            write_whole(builder, value, pointer)
        with part:
            _masked_store(builder, value, pointer, _inside(builder, count, value.type.count))


def _masked_load(builder, pointer, vector, mask):
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    arguments = [pointer.type, ir.IntType(32), mask.type, vector]
    function_type = ir.FunctionType(vector, arguments)
    load = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.load.v{vector.count}f{bits}.p0")
    return builder.call(load, [pointer, ir.IntType(32)(bits // 8), mask, ir.Constant(vector, [0.0] * vector.count)])


def _masked_store(builder, value, pointer, mask):
    vector = value.type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    function_type = ir.FunctionType(ir.VoidType(), [vector, pointer.type, ir.IntType(32), mask.type])
    store = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.store.v{vector.count}f{bits}.p0")
    builder.call(store, [value, pointer, ir.IntType(32)(bits // 8), mask])


@intrinsic
def load(context, array, at, count):
    """array[at : at + lanes] as a vector."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        return _load(builder, pointer, vector, args[2])

    return Vector(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def load_whole_as(context, array, at, like):
    """load_whole with as many lanes as `like` has."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        return read_whole(builder, pointer, vector)

    return Vector(array.dtype, like.lanes)(array, types.intp, like), generate


@intrinsic
def load_as(context, array, at, count, like):
    """array[at : at + lanes] with as many lanes as `like` has."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        return _load(builder, pointer, vector, args[2])

    return Vector(array.dtype, like.lanes)(array, types.intp, types.intp, like), generate


@intrinsic
def widen(context, vector):
    """The vector in float64."""

    def generate(context, builder, signature, args):
        wide = context.get_value_type(signature.return_type)
        return args[0] if args[0].type == wide else builder.fpext(args[0], wide)

    return Vector(types.float64, vector.lanes)(vector), generate


@intrinsic
def narrow(context, vector, like):
    """The float64 vector in the dtype of `like`, which has as many lanes."""

    def generate(context, builder, signature, args):
        target = context.get_value_type(signature.return_type)
        return args[0] if args[0].type == target else builder.fptrunc(args[0], target)

    return like(vector, like), generate


@intrinsic
def store(context, array, at, count, value):
    """array[at : at + lanes] = value."""

    def generate(context, builder, signature, args):
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        write(builder, args[3], pointer, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), generate


@intrinsic
def load_whole(context, array, at):
    """array[at : at + lanes] as a vector; all lanes must be inside. Reads what store_whole wrote by store forwarding."""

    def generate(context, builder, signature, args):
        vector = context.get_value_type(signature.return_type)
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        return read_whole(builder, pointer, vector)

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store_whole(context, array, at, value):
    """array[at : at + lanes] = value; all lanes must be inside."""

    def generate(context, builder, signature, args):
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        write_whole(builder, args[2], pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate
