"""Augmentation of NHWC images in one pass: rows of a data set are moved, coloured, made noisy, normalised and cut out.

Letters: R images in the data set, N in the batch, H x W pixels, C channels. x: (R, H, W, C), uint8, float32 or float64. y: (N, H, W, C),
float32 or float64, T. Both C-contiguous.

    apply(x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y)
        v[n, h, w] = x[rows[n], r, s] with r = places[0, n, h] and s = places[0, n, H + w], and 0 where one of them is -1
        v = min(max(colour[n, :, :C] v + colour[n, :, C], 0), top)     if there is colour (C is 1 or 3), from left to right
        v = v + noise[word >> 20]                                      if there is noise
        y[n, h, w] = (v - shift) / divisor                             per channel; 0 in each box boxes[k, n]; overwrites (=)

    mix(z, share, box, y)
        y[n, h, w] = z[n, h, w]                                        in box[n]
        y[n] = share[n] * y[n] + (1 - share[n]) * z[n]                 outside of it, in float64; in place. Where share is 1, y stays

rows: (N,) int64, places in x. ids: (N,) int64, what the random words belong to: the row in the whole data set, below 2^32. places: (1 or
2, N, H + W) int64: for each output row the row of the source, for each output column its column, or -1.

affine: (0 or N, 6) int64, with 24 bits after the point. With it, places[0] give a point of the moved picture, which lies at column (a0 w +
a1 h + a2) / 2^24 and row (a3 w + a4 h + a5) / 2^24 of the picture that places[1] give. Its value is interpolated between four pixels, with
weights of 8 bits per axis: bilinear. border: what is outside of that picture: 0 black, 1 its edge, 2 its reflection. The interpolation
of bytes is exact, and then rounded to a sixteenth.

colour: (0 or N, C, C + 1) T. noise: (0 or 4096,) T; word is the random word (see `philox`) of element e = (h W + w) C + c of the image, at
the counter (ids[n] * 2^32 + e // 4, stream, epoch); counter: (3,) uint64, on the host: seed, stream, epoch. shift, divisor: (C,) T.
boxes: (K, N, 4) int64, box: (N, 4): first row, end row, first column, end column. z: as y. share: (N,) float64.

Same bits everywhere: from bytes, every product is exact if colour has numbers of 12 bits, so it does not matter whether a compiler joins a
product and a sum; neither does it for mix, if T is float32 and share a multiple of 2^-16.
"""
