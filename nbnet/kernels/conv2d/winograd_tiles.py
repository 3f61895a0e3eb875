"""The tiles of minimal filtering, and their order in the planes of scratch: see nbnet.kernels.conv2d.winograd."""

import numpy as np

from nbnet.kernels.conv2d import EDGE, PLANES
from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.prefetch import LINE, prefetch, prefetch_to_write


@precise
def position(tile, down, across):
    """Image, row and column of a tile counted over all images."""
    row, column = divmod(tile, across)
    image, row = divmod(row, down)
    return image, EDGE * row, EDGE * column


@precise
def outer(position):
    """Whether a low or narrow tile has this position, of six."""
    return position < 3 or position == 5


@precise
def place(first, tiles, down, across, out_h, out_w, order):
    """Order the tiles from number `first` as in their planes, so that the tiles of a position are neighbours: low, whole, narrow, both.
    Return where the last three kinds start."""
    starts = np.zeros(5, np.intp)
    for tile in range(first, first + tiles):
        starts[_kind(tile, down, across, out_h, out_w) + 1] += 1
    for kind in range(4):
        starts[kind + 1] += starts[kind]
    whole, narrow, both = starts[1], starts[2], starts[3]
    for tile in range(first, first + tiles):
        kind = _kind(tile, down, across, out_h, out_w)
        order[starts[kind]] = tile
        starts[kind] += 1
    return whole, narrow, both


@precise
def _kind(tile, down, across, out_h, out_w):
    """0: low, 1: whole, 2: narrow, 3: low and narrow."""
    _, top, left = position(tile, down, across)
    if out_w - left <= 2:
        return 3 if out_h - top <= 2 else 2
    return 0 if out_h - top <= 2 else 1


@precise
def slots_of(plane, tiles, whole, narrow, both):
    """The first tile that has a plane, and the number of such tiles."""
    i, j = divmod(plane, 6)
    start = 0 if outer(i) else whole
    stop = narrow if not outer(j) else (tiles if outer(i) else both)
    return start, stop - start


@precise
def rows_inside(top, height, count):
    """For each of the six rows from `top`: count if it is inside the image, else 0."""
    n0, n1 = count if 0 <= top < height else 0, count if 0 <= top + 1 < height else 0
    n2, n3 = count if 0 <= top + 2 < height else 0, count if 0 <= top + 3 < height else 0
    return n0, n1, n2, n3, count if 0 <= top + 4 < height else 0, count if 0 <= top + 5 < height else 0


@precise
def prefetch_share(images, first, tiles, down, across, plane, to_write):
    """Prefetch about a plane's share of the numbers of tiles from number `first`: they arrive while the products of the plane run."""
    image, top, left = position(first, down, across)
    share = images.size // (images.shape[0] * down * across) * tiles // PLANES
    start = ((image * images.shape[1] + top) * images.shape[2] + left) * images.shape[3] + plane * share
    prefetch_run(images.reshape(-1), start, share, to_write)


@precise
def prefetch_run(flat, start, count, to_write):
    """Prefetch neighbouring numbers."""
    for at in range(start, start + count, LINE // flat.itemsize):
        if to_write:
            prefetch_to_write(flat, at)
        else:
            prefetch(flat, at)
