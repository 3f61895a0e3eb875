"""The executor finds planted faults and names their lines; what it computes is what a GPU would."""

import re
from pathlib import Path

import cuda_machine
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not cuda_machine.EXECUTED, reason="is about --cuda=executor")
if cuda_machine.EXECUTED:
    from nbnet.kernels.gpu import device

    from . import planted
    from .executor import driver, substitutes
    from .executor.faults import KernelFault

X = np.arange(64, dtype=np.float32)
BEYOND = r"of 4 bytes 0 bytes after the end of array {} \(256 bytes\), at index 64"
FAULTS = {
    "reads_one_beyond": (1, "thread (63, 0, 0): a read " + BEYOND.format("x")),
    "writes_one_beyond": (1, "thread (63, 0, 0): a write " + BEYOND.format("y")),
    "calls_what_reads_beyond": (1, "a read " + BEYOND.format("x") + ".* called from .*planted.py:\\d+ in calls_what_reads_beyond"),
    "misses_a_barrier": (1, "thread (1, 0, 0): a read of shared array held .*, which thread (0, 0, 0) wrote without a barrier"),
    "misses_a_barrier_and_reads_ahead": (1, r"thread (0, 0, 0): a read of shared array held .*, to which nothing has been written"),
    "threads_write_one_element": (1, "thread (1, 0, 0): a write of array y .* at index 0, which thread (0, 0, 0) wrote without a barrier"),
    "blocks_write_one_element": (2, "block (1, 0, 0), .*a write of array y .* at index 0, which another block wrote"),
    "reads_what_another_block_writes": (2, "block (1, 0, 0), .*a read of array y .* at index 0, which another block wrote"),
    "loads_four_at_a_place_for_one": (1, "thread (1, 0, 0): a read of 16 bytes at byte 4 of array x .*, which is not aligned"),
    "has_a_barrier_for_some": (1, "thread (0, 0, 0): a barrier that thread (32, 0, 0) does not reach: it has ended"),
    "has_two_barriers": (1, "thread (0, 0, 0): a barrier that thread (32, 0, 0) does not reach: it waits at .*planted.py:"),
    "reads_shared_memory_before_it_is_written": (1, "a read of shared array held .*, to which nothing has been written"),
    "reads_its_output": (1, "a read of array y .* at index 0, to which nothing has been written"),
    "reads_beyond_a_shared_array": (1, r"thread (63, 0, 0): a read of 4 bytes 0 bytes after the end of shared array held"),
    "shuffles_in_half_a_warp": (1, "a shuffle .* does not reach: it has ended"),
    "relies_on_a_shuffle_for_memory": (1, "a write of array x .* at index 0, which thread .* read without a barrier"),
}


def launched(kernel, grid=1, block=64, size=64, dtype="float32", start=None):
    x, y = device.to_device(X), device.pool().empty((size,), dtype)
    if start is not None:
        y[...] = start
    kernel[grid, block](x.flat, y.flat)
    return np.asarray(y)


def line_of(name):
    """The line that says FAULT, of a kernel or of the function that it calls."""
    text = Path(planted.__file__).read_text(encoding="utf-8")
    start = text.index("def _neighbour(" if name == "calls_what_reads_beyond" else f"def {name}(")
    return text[: text.index("# FAULT", start)].count("\n") + 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_line_named(name):
    grid, message = FAULTS[name]
    with pytest.raises(KernelFault) as found:
        launched(getattr(planted, name), grid)
    said = str(found.value)
    assert said.startswith(f"kernel gpu.planted.{name}, block (")
    assert re.search(re.sub(r"\((\d+), 0, 0\)", r"\\(\1, 0, 0\\)", message), said), said
    assert re.search(rf"planted\.py:{line_of(name)} in ", said), said
    assert "\n" not in said


@pytest.mark.parametrize("how", ["FORWARD", "BACKWARD", "RANDOM"])
def test_orders_of_threads(how):
    """A kernel without a race writes the same bits in each; a sum of floats by atomics does not."""
    with driver.order(getattr(driver, how)):
        np.testing.assert_array_equal(launched(planted.reverses), X[::-1])
        total = launched(planted.adds_in_any_order)[0]
    assert total == X.sum()


def test_another_order_is_another_order(monkeypatch):
    monkeypatch.setitem(globals(), "X", (10.0 ** np.random.default_rng(0).uniform(-4, 4, 64)).astype(np.float32))
    sums = set()
    for how in (driver.FORWARD, driver.BACKWARD, driver.RANDOM):
        with driver.order(how):
            sums.add(float(launched(planted.adds_in_any_order)[0]))
    assert len(sums) > 1


def test_shuffles():
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    up, down = np.where(lane < 3, lane, lane - 3), np.where(lane + 7 > 31, lane, lane + 7)
    expected = sum(scale * X[warp + at] for scale, at in ((1, lane ^ 5), (100, up), (10000, down), (1000000, 9)))
    np.testing.assert_allclose(launched(planted.exchanges), expected, rtol=1e-6)


def test_atomics_of_blocks_are_no_race():
    np.testing.assert_array_equal(launched(planted.counts, 3, 64, 4, "int64", start=0), [48] * 4)


def test_every_thread_knows_where_it_is():
    grid, block = (2, 3, 2), (4, 2, 3)
    expected = (100 * np.arange(12)[:, None] + np.arange(24)).ravel()
    np.testing.assert_array_equal(launched(planted.says_where_it_is, grid, block, 12 * 24, "int64"), expected)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        (0, 64, "got grid (0, 1, 1), expected numbers from 1 to"),
        ((1, 65536), 64, "got grid (1, 65536, 1), expected numbers from 1 to"),
        (1, 1025, "got block (1025, 1, 1), expected numbers from 1 to"),
        (1, (32, 33), "got 1056 threads in a block, expected at most 1024"),
    ],
)
def test_a_launch_beyond_the_limits_is_refused(grid, block, message):
    with pytest.raises(KernelFault, match=re.escape(message)):
        launched(planted.reverses, grid, block)


def test_a_launch_beyond_the_bounds_of_its_kernel_is_refused():
    from nbnet.kernels.gpu.compile import kernel_of

    bounded = kernel_of(32, 1)(planted.reverses.py_func)
    with pytest.raises(KernelFault, match="got 64 threads in a block, expected at most 32"):
        launched(bounded)


def test_ptx_becomes_its_substitute_and_other_ptx_is_named():
    from .executor import compiled

    text = 'call float asm "rcp.approx.ftz.f32 $0,$1;", "=f,f"(float %x)'
    assert substitutes.renamed(text) == 'call float @"gpu.rcp.approx.f"(float %x)'
    with pytest.raises(NotImplementedError, match=r"inline PTX 'mystery.u32 \$0;' has no substitute: add one to PTX in "):
        compiled._refuse_unknown('%1 = call i32 asm "mystery.u32 $0;", "=r"()')
