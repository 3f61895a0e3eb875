"""Philox4x32-10 on vector registers of counters, for the CPU: the same bits as nbnet.kernels.philox.

A round multiplies 32-bit words to 64 bits, in 64-bit lanes: a word is in the low half of its lane, and the high half does not matter
until the end. So products need no repacking: the low word is in place, and the high word needs one shift. A round of a register is two
multiplications, two shifts and two three-way exclusive ors that depend on each other, so the rounds of several registers are
interleaved.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from nbnet.kernels.cpu.register_tiles import MAX_VECTORS
from nbnet.kernels.cpu.target import WIDTH
from nbnet.kernels.cpu.vector import Mask, address_of, splat_value
from nbnet.kernels.philox import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1

LANES = WIDTH // 4  # words per register
LONGS = WIDTH // 8  # counters per register
REGISTERS = 4 if MAX_VECTORS == 4 else 2  # for each of the four words
COUNTERS = REGISTERS * LONGS  # per call
_LONG, _LOW = ir.IntType(64), 0xFFFFFFFF
_LONGS = ir.VectorType(_LONG, LONGS)
_ORDER = [lane // 2 + lane % 2 * LONGS // 2 for lane in range(LONGS)]  # counters by lane: the first half in the even lanes


class Words(types.Type):
    """A register full of random words."""

    def __init__(self):
        super().__init__(f"Words({LANES})")


@register_model(Words)
class _WordsModel(models.PrimitiveModel):
    def __init__(self, manager, words):
        super().__init__(manager, words, ir.VectorType(ir.IntType(32), LANES))


@intrinsic
def random_words(context, counter, seed, stream, step):
    """The words of the 4 * COUNTERS elements from element 4 * counter, in order.

    counter, seed: uint64. stream, step: below 2^32.
    """

    def generate(context, builder, signature, args):
        counter, seed, stream, step = args
        groups = []
        for first in range(0, COUNTERS, LONGS):
            number = builder.add(splat_value(builder, counter, _LONGS), ir.Constant(_LONGS, [first + lane for lane in _ORDER]))
            groups.append([number, _high(builder, number), *(splat_value(builder, word, _LONGS) for word in (stream, step))])
        _rounds(builder, groups, seed)
        return cgutils.pack_array(builder, [words for group in groups for words in _in_order(builder, group)])

    return types.UniTuple(Words(), 2 * REGISTERS)(*[types.uint64] * 4), generate


@intrinsic
def store_words(context, array, at, words):
    """array[at : at + LANES] = words; array is flat and uint32."""

    def generate(context, builder, signature, args):
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, words), generate


@intrinsic
def at_least(context, words, threshold):
    """The mask of words that are at least a threshold: uint64, at most 2^32. Compute it where it is used: without AVX-512, masks occupy
    registers."""

    def generate(context, builder, signature, args):
        words, threshold = args
        limit = splat_value(builder, builder.trunc(threshold, ir.IntType(32)), words.type)
        any_kept = builder.icmp_unsigned("<=", threshold, _LONG(_LOW))
        return builder.and_(builder.icmp_unsigned(">=", words, limit), splat_value(builder, any_kept, ir.VectorType(ir.IntType(1), LANES)))

    return Mask(LANES)(words, types.uint64), generate


def _every(value):
    return ir.Constant(_LONGS, [value] * LONGS)


def _high(builder, longs):
    """The high words, moved to the low halves of the lanes."""
    return builder.lshr(longs, _every(32))


def _low(builder, longs):
    """The low words; free before a multiplication."""
    return builder.and_(longs, _every(_LOW))


def _rounds(builder, groups, seed):
    """Ten rounds on each group of four words, in place."""
    k0, k1 = builder.and_(seed, _LONG(_LOW)), builder.lshr(seed, _LONG(32))
    for _ in range(10):
        for words in groups:
            c0, c1, c2, c3 = words
            product_0 = builder.mul(_low(builder, c0), _every(int(MULTIPLIER_0)))
            product_1 = builder.mul(_low(builder, c2), _every(int(MULTIPLIER_1)))
            words[0] = builder.xor(builder.xor(_high(builder, product_1), c1), splat_value(builder, k0, _LONGS))
            words[2] = builder.xor(builder.xor(_high(builder, product_0), c3), splat_value(builder, k1, _LONGS))
            words[1], words[3] = product_1, product_0
        k0, k1 = builder.add(k0, _LONG(int(WEYL_0))), builder.add(k1, _LONG(int(WEYL_1)))


def _in_order(builder, group):
    """The words of counter 0, of counter 1, ..., in the order of elements. With _ORDER, one instruction suffices that joins the even lanes
    of two registers, or the odd ones."""
    w0, w1, w2, w3 = group
    firsts, seconds = (builder.or_(_low(builder, even), builder.shl(odd, _every(32))) for even, odd in ((w0, w1), (w2, w3)))
    for parity in range(2):
        lanes = [lane // 2 * 2 + parity + lane % 2 * LONGS for lane in range(LONGS)]
        longs = builder.shuffle_vector(firsts, seconds, ir.Constant(ir.VectorType(ir.IntType(32), LONGS), lanes))
        yield builder.bitcast(longs, ir.VectorType(ir.IntType(32), LANES))
