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


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(9, 16), (27, 64), (32, 32), (25, 130)])
def test_few_rows_have_a_low_tile(rows, columns, itemsize):
    """The weights of a first layer, or a dense layer with a small batch."""
    from nbnet.kernels.gpu.tiles import plan

    assert plan(rows, columns, 10**6, itemsize).tile.rows == 32
    assert plan(33, columns, 10**6, itemsize).tile.rows >= 64


def test_tiles_have_threads_for_their_loads():
    from nbnet.kernels.gpu.tiles import DEPTH, TILES

    for tile in {tile for tiles in TILES.values() for tile in tiles}:
        assert tile.threads >= max(tile.rows, tile.columns), tile
        assert tile.rows * DEPTH % (4 * tile.threads) == 0, tile
        assert tile.rows * DEPTH <= 8 * tile.threads, f"{tile} has more than two loads of patches"
        assert tile.columns * DEPTH <= 8 * tile.threads, f"{tile} has more than two loads of the second factor"
