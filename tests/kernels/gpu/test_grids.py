"""Grids fill the multiprocessors where there is work; they follow from the shape alone."""

import pytest
from cuda_machine import INSTALLED, SIMULATED

pytestmark = pytest.mark.skipif(SIMULATED or not INSTALLED, reason="the simulator has small blocks, and few of them")

SUMS = {  # (rows, channels): blocks that sum over the rows
    (64 * 8 * 8, 16): 16,
    (64 * 4 * 4, 32): 8,
    (32 * 28 * 28, 8): 49,
    (128 * 8 * 8, 128): 256,
    (128 * 16 * 16, 64): 264,
    (128 * 32 * 32, 32): 264,
    (512 * 32 * 32, 64): 512,
    (2048 * 32 * 32, 64): 528,
    (3, 5): 1,
    (1, 1000): 1,
}


@pytest.mark.parametrize("shape", SUMS, ids=str)
def test_sums_down_columns(shape):
    from nbnet.kernels.gpu.columns import FEWEST, RUN, columns_of_sums

    layout = columns_of_sums(shape[0] * shape[1], shape[1])
    blocks, height = layout.grid[0], layout.block[1]
    assert blocks == SUMS[shape]
    per_thread = layout.rows / (blocks * height)
    assert per_thread <= RUN or blocks * layout.grid[1] == 528
    assert per_thread > FEWEST / 2 or blocks == 1


def test_wide_rows_share_the_blocks():
    from nbnet.kernels.gpu.columns import columns_of_sums

    layout = columns_of_sums(100_000 * 4096, 4096)
    assert layout.grid == (66, 8)
