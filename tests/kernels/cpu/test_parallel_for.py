"""parallel_for against a plain range."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.parallel_for import parallel_for


@body
def _note(k, first, numbers, factor, expected, none, out):
    out[k, 0] += 1
    out[k, 1] = first + k * factor + numbers[k] if expected and none is None else -1


@njit
def loop(count, first, numbers, factor, expected, out):
    parallel_for(count, _note, (first, numbers, factor, expected, None, out))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 1000, 100_000])
def test_each_number_once_with_all_arguments(count):
    numbers, out = np.arange(max(count, 1000), dtype=np.float64) ** 2, np.zeros((max(count, 1000), 2))
    loop(count, 5, numbers, 0.5, True, out)
    k = np.arange(count)
    assert (out[:count, 0] == 1).all()
    assert (out[:count, 1] == 5 + 0.5 * k + k**2).all()
    assert (out[count:] == 0).all()


def test_arrays_that_the_caller_made_live_long_enough():
    @body
    def square(k, numbers, squares):
        squares[k] = numbers[k] * numbers[k]

    @njit
    def sum_of_squares(count):
        squares = np.empty(count)
        parallel_for(count, square, (np.arange(count), squares))
        return squares.sum()

    for _ in range(100):
        assert sum_of_squares(50) == sum(i * i for i in range(50))


@intrinsic
def _owner(context, array):
    """Address of the object that counts references to an array."""

    def generate(context, builder, signature, args):
        owner = context.make_array(signature.args[0])(context, builder, args[0]).meminfo
        return builder.ptrtoint(owner, context.get_value_type(types.intp))

    return types.intp(array), generate


def test_references_are_not_counted_in_a_body():
    """Threads that count the references to one array wait for each other."""

    @body
    def owner_of(k, numbers, owners):
        owners[k] = _owner(numbers)

    @njit
    def owners_of(numbers, owners):
        parallel_for(owners.size, owner_of, (numbers, owners))
        return _owner(numbers)

    owners = np.ones(4, np.intp)
    assert owners_of(np.ones(3), owners) != 0
    assert (owners == 0).all()


def test_a_body_that_returns_something_is_an_error():
    @body
    def half(k, numbers):
        return numbers[k] / 2

    @njit
    def halves(numbers):
        parallel_for(numbers.size, half, (numbers,))

    with pytest.raises(
        TypingError, match="a body of a parallel_for that returns float64, expected one that returns nothing: write to an array"
    ):
        halves(np.ones(3))


def test_counts_of_other_integers():
    @njit
    def noted(count, out):
        parallel_for(count, _note, (0, np.zeros(5), 1.0, True, None, out))

    out = np.zeros((5, 2))
    noted(np.int32(5), out)
    assert (out[:, 0] == 1).all()


def test_a_body_with_other_arguments_is_an_error():
    @body
    def add(k, numbers, step=1.0):
        numbers[k] += step

    @njit
    def added(numbers):
        parallel_for(numbers.size, add, (numbers,))

    with pytest.raises(TypingError, match=r"got arguments .* expected those that it takes after k"):
        added(np.ones(3))


def test_machine_code_from_disk_finds_the_threads(tmp_path):
    """For a kernel that is called directly, without a backend that starts the threads first."""
    code = "import numpy as np; from nbnet.kernels.array.cpu import add_parallel as add; a = np.ones(10**5); y = a * 0; add(a, a, y)"
    hits = code + "; print((y == 2).all(), sum(add.stats.cache_hits.values()))"
    for expected in ("True 0", "True 1"):
        result = subprocess.run(
            [sys.executable, "-c", hits], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True
        )
        assert result.stdout.strip() == expected, result.stderr
