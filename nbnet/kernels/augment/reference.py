"""Augmentation in NumPy: the definition. See the contract in `nbnet.kernels.augment`."""

import numpy as np

from nbnet.kernels import philox


def apply(x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y):
    for n, row in enumerate(rows):
        outer, *inner = (_split(place[n], x.shape[1]) for place in places)
        if len(affine):
            v = _interpolated(x[row], outer, inner[0], affine[n], border, y.dtype)
        else:
            v = _pixels(x[row], *outer).astype(y.dtype)
        if len(colour):
            v = _coloured(v, colour[n])
            v = np.minimum(np.where(v > 0, v, 0), y.dtype.type(top))
        if len(noise):
            seed, stream, epoch = map(int, counter)
            first = int(ids[n]) << 34
            v = v + noise[philox.words(first, first + v.size, seed, stream, epoch) >> 20].reshape(v.shape)
        y[n] = (v - shift) / divisor
        for first_row, end_row, first_column, end_column in boxes[:, n]:
            y[n, first_row:end_row, first_column:end_column] = 0


def _split(places, height):
    """Rows as (H, 1) and columns as (1, W)."""
    return places[:height, None], places[None, height:]


def _pixels(image, rows, columns):
    return np.where(((rows >= 0) & (columns >= 0))[..., None], image[rows, columns], image.dtype.type(0))


def _interpolated(image, outer, inner, affine, border, dtype):
    rows, columns = outer
    across = affine[0] * columns + affine[1] * rows + affine[2]
    down = affine[3] * columns + affine[4] * rows + affine[5]
    terms = []
    for below in (0, 1):
        for right in (0, 1):
            row, column = _inside((down >> 24) + below, inner[0].size, border), _inside((across >> 24) + right, inner[1].size, border)
            row, column = np.where(row < 0, -1, inner[0][row, 0]), np.where(column < 0, -1, inner[1][0, column])
            weight = (_weight(down, below) * _weight(across, right)).astype(np.int64 if image.dtype == np.uint8 else dtype)
            terms.append(weight[..., None] * _pixels(image, row, column).astype(dtype))
    total = ((terms[0] + terms[1]) + terms[2]) + terms[3]
    v = ((total.astype(np.int64) + 2048) >> 12) / 16 if image.dtype == np.uint8 else total / 65536
    return np.where(((rows >= 0) & (columns >= 0))[..., None], v, 0).astype(dtype)


def _inside(place, size, border):
    """The pixels at places that may be outside; -1 is black."""
    if border == 0:
        return np.where((place >= 0) & (place < size), place, -1)
    if border == 1:
        return np.clip(place, 0, size - 1)
    place = place % max(2 * size - 2, 1)
    return np.where(place < size, place, 2 * size - 2 - place)


def _weight(place, above):
    part = (place >> 16) & 255
    return part if above else 256 - part


def _coloured(v, colour):
    channels = v.shape[-1]
    total = v[..., :1] * colour[:, 0]
    for k in range(1, channels):
        total = total + v[..., k : k + 1] * colour[:, k]
    return total + colour[:, channels]


def mix(z, share, box, y):
    for n, (first_row, end_row, first_column, end_column) in enumerate(box):
        pasted = z[n, first_row:end_row, first_column:end_column]
        if share[n] != 1:
            y[n] = share[n] * y[n].astype(np.float64) + (1 - share[n]) * z[n].astype(np.float64)
        y[n, first_row:end_row, first_column:end_column] = pasted
