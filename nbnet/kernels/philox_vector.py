"""Philox4x32-10 on two registers full of counters at once, for the CPU: the same bits as nbnet.kernels.philox.

Ten rounds are about 160 vector instructions for 64 elements (16 counters of four words each), but each waits for the one before it.
The rounds of two registers are interleaved, so that one computes while the other waits.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.philox import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1
from nbnet.kernels.simd import WIDTH
from nbnet.kernels.vector import Mask, splat_value

LANES = WIDTH // 4  # words of a register
REGISTERS = 2
COUNTERS = REGISTERS * LANES  # of one call
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_LONGS = ir.VectorType(ir.IntType(64), LANES)


@intrinsic
def keep_masks(context, counter, seed, stream, step, threshold):
    """Masks for the 4 * COUNTERS elements from 4 * counter on, in their order: whether an element's word is at least threshold.

    counter, seed: uint64. stream, step: below 2^32. threshold: uint64, at most 2^32.
    """

    def generate(context, builder, signature, args):
        counter, seed, stream, step, threshold = args
        rest = [_splat_word(builder, word) for word in (stream, step)]
        groups = []
        for first in range(0, COUNTERS, LANES):
            index = ir.Constant(_LONGS, list(range(first, first + LANES)))
            groups.append([*_halves(builder, builder.add(splat_value(builder, counter, _LONGS), index)), *rest])
        _rounds(builder, groups, seed)
        limit = _splat_word(builder, threshold)
        any_kept = builder.icmp_unsigned("<=", threshold, ir.IntType(64)(0xFFFFFFFF))
        nothing = splat_value(builder, any_kept, ir.VectorType(ir.IntType(1), LANES))
        words = [word for group in groups for word in _in_order(builder, group)]
        masks = [builder.and_(builder.icmp_unsigned(">=", word, limit), nothing) for word in words]
        return cgutils.pack_array(builder, masks)

    mask = Mask(LANES)
    numbers = types.uint64, types.uint64, types.uint64, types.uint64, types.uint64
    return types.UniTuple(mask, 4 * REGISTERS)(*numbers), generate


def _splat_word(builder, value):
    return splat_value(builder, builder.trunc(value, ir.IntType(32)), _WORDS)


def _halves(builder, longs):
    """The low and the high words of 64-bit numbers."""
    high = builder.lshr(longs, ir.Constant(_LONGS, [32] * LANES))
    return builder.trunc(longs, _WORDS), builder.trunc(high, _WORDS)


def _rounds(builder, groups, seed):
    """Ten rounds on each group of four words, which change in place."""
    k0, k1 = builder.trunc(seed, ir.IntType(32)), builder.trunc(builder.lshr(seed, ir.IntType(64)(32)), ir.IntType(32))
    for _ in range(10):
        for words in groups:
            c0, c1, c2, c3 = words
            low_0, high_0 = _product(builder, c0, MULTIPLIER_0)
            low_1, high_1 = _product(builder, c2, MULTIPLIER_1)
            words[0] = builder.xor(builder.xor(high_1, c1), splat_value(builder, k0, _WORDS))
            words[2] = builder.xor(builder.xor(high_0, c3), splat_value(builder, k1, _WORDS))
            words[1], words[3] = low_1, low_0
        k0, k1 = builder.add(k0, ir.IntType(32)(int(WEYL_0))), builder.add(k1, ir.IntType(32)(int(WEYL_1)))


def _product(builder, words, multiplier):
    """The low and the high words of words * multiplier.

    The processor multiplies every second word to 64 bits, so the high words of even and odd ones are made apart and blended.
    LLVM, left to itself with 64-bit products of all, spreads the words over two registers and takes twice as many instructions.
    """
    pairs = ir.VectorType(ir.IntType(64), LANES // 2)

    def every(value):
        return ir.Constant(pairs, [value] * (LANES // 2))

    both = builder.bitcast(words, pairs)
    even = builder.mul(builder.and_(both, every(0xFFFFFFFF)), every(int(multiplier)))
    odd = builder.mul(builder.lshr(both, every(32)), every(int(multiplier)))
    highs = builder.or_(builder.lshr(even, every(32)), builder.and_(odd, every(0xFFFFFFFF << 32)))
    return builder.mul(words, ir.Constant(_WORDS, [int(multiplier)] * LANES)), builder.bitcast(highs, _WORDS)


def _in_order(builder, words):
    """The words of counter 0, of counter 1, ...: as the elements lie."""
    pairs = [_shuffle(builder, words[i], words[i + 1], range(2 * LANES)) for i in (0, 2)]
    for part in range(4):
        elements = range(part * LANES, (part + 1) * LANES)
        yield _shuffle(builder, *pairs, [element % 4 * LANES + element // 4 for element in elements])


def _shuffle(builder, a, b, lanes):
    lanes = list(lanes)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))
