"""Random operations and models: the same bits on the backends serial and parallel, with any number of threads."""

import hashlib

import numba
import numpy as np

import nbnet as nb
from nbnet.errors import NbnetError

THREADS = (1, 2, 3, 7, 16)
F = nb.functional


def attack(rng, folder):
    while True:
        case, seed = CASES[int(rng.integers(len(CASES)))], int(rng.integers(1 << 30))
        dtype = str(rng.choice(["float32", "float32", "float64"]))
        yield _differences(case, seed, dtype)


def _differences(case, seed, dtype):
    expected = result(case, seed, dtype, "serial")
    for count in THREADS:
        numba.set_num_threads(count)
        found = result(case, seed, dtype, "parallel")
        if found != expected:
            return f"{case.__name__}, seed {seed}, {dtype}: serial gives {expected}, parallel with {count} threads {found}"
    return None


def result(case, seed, dtype, backend):
    """A digest of everything that the case computes, or its error."""
    try:
        arrays = case(np.random.default_rng(seed), dtype, backend)
    except NbnetError as error:
        return f"{type(error).__name__}: {error}"
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _normal(rng, shape, dtype):
    return rng.normal(rng.normal(), 1 + rng.random(), shape).astype(dtype)


def _image(rng, most=20):
    return tuple(int(n) for n in (rng.integers(1, 9), rng.integers(3, most), rng.integers(3, most)))


def _there(*arrays):
    return [array for array in arrays if array is not None]


# ----------------------------------------------------------------------------------------------------- operations


def convolution(rng, dtype, backend):
    n, h, w = _image(rng)
    inputs, filters = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 32, 40])), int(rng.choice([1, 3, 8, 16, 20, 32, 33, 64]))
    size = min(int(rng.choice([1, 2, 3, 3, 3, 5])), h, w)
    options = {"stride": int(rng.choice([1, 1, 1, 2])), "padding": str(rng.choice(["same", "valid"]))}
    x, weight = _normal(rng, (n, h, w, inputs), dtype), _normal(rng, (size, size, inputs, filters), dtype)
    bias = _normal(rng, (filters,), dtype) if rng.random() < 0.7 else None
    y, saved = F.conv2d_forward(x, weight, bias, **options, backend=backend)
    return _there(y, *F.conv2d_backward(_normal(rng, y.shape, dtype), saved))


def dense(rng, dtype, backend):
    rows, inputs, units = int(rng.choice([1, 2, 7, 64, 200, 1000])), int(rng.integers(1, 130)), int(rng.integers(1, 130))
    x, weight = _normal(rng, (rows, inputs), dtype), _normal(rng, (inputs, units), dtype)
    bias = _normal(rng, (units,), dtype) if rng.random() < 0.7 else None
    y, saved = F.dense_forward(x, weight, bias, backend=backend)
    return _there(y, *F.dense_backward(_normal(rng, y.shape, dtype), saved))


def batch_norm(rng, dtype, backend):
    channels = int(rng.integers(1, 70))
    shape = (*_image(rng, 12), channels) if rng.random() < 0.5 else (int(rng.integers(2, 300)), channels)
    x, options = _normal(rng, shape, dtype), {}
    if rng.random() < 0.3:
        options["weights"] = (rng.random(x.size // channels) + 0.1).astype(dtype)
    if rng.random() < 0.3:
        options = {"mean": rng.normal(size=channels), "var": rng.random(channels) + 0.1}
    y, saved = F.batch_norm_forward(x, rng.normal(size=channels), rng.normal(size=channels), backend=backend, **options)
    return y, *F.batch_norm_backward(_normal(rng, shape, dtype), saved)


def group_norm(rng, dtype, backend):
    channels = int(rng.choice([2, 4, 8, 12, 24, 48]))
    groups = int(rng.choice([n for n in range(1, channels + 1) if channels % n == 0]))
    x = _normal(rng, (*_image(rng, 12), channels), dtype)
    y, saved = F.group_norm_forward(x, rng.normal(size=channels), rng.normal(size=channels), groups, backend=backend)
    return y, *F.group_norm_backward(_normal(rng, x.shape, dtype), saved)


def dropout(rng, dtype, backend):
    x = _normal(rng, tuple(int(n) for n in rng.integers(1, 30, int(rng.integers(1, 5)))), dtype)
    options = {"seed": int(rng.integers(1 << 40)), "step": int(rng.integers(1 << 20)), "stream": int(rng.integers(99))}
    options["variant"] = str(rng.choice(["inverted", "vanilla", "alpha"]))
    y, saved = F.dropout_forward(x, float(rng.random()), **options, train=bool(rng.random() < 0.9), backend=backend)
    return y, F.dropout_backward(_normal(rng, x.shape, dtype), saved)


def pooling(rng, dtype, backend):
    x = _normal(rng, (*_image(rng), int(rng.integers(1, 40))), dtype)
    pools = [(F.max_pool2d_forward, F.max_pool2d_backward), (F.avg_pool2d_forward, F.avg_pool2d_backward)]
    forward, backward = pools[int(rng.integers(2))]
    size, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 4)), str(rng.choice(["same", "valid"]))
    y, saved = forward(x, size, stride, padding, ceil_mode=bool(rng.integers(2)), backend=backend)
    return y, backward(_normal(rng, y.shape, dtype), saved)


def resampling(rng, dtype, backend):
    x = _normal(rng, (*_image(rng, 20), int(rng.integers(1, 40))), dtype)
    calls = [
        lambda: F.pad2d_forward(x, int(rng.integers(0, 4)), str(rng.choice(["zeros", "edge"])), backend=backend),
        lambda: F.upsample2d_forward(x, int(rng.integers(1, 4)), str(rng.choice(["nearest", "bilinear"])), backend=backend),
        lambda: F.adaptive_avg_pool2d_forward(x, int(rng.integers(1, 9)), backend=backend),
    ]
    y, saved = _choice(rng, calls)
    return y, F.resample_backward(_normal(rng, y.shape, dtype), saved)


# --------------------------------------------------------------------------------------------------------- models


def _choice(rng, makers):
    return makers[int(rng.integers(len(makers)))]()


def _activation(rng):
    return _choice(rng, [nb.ReLU, lambda: nb.LeakyReLU(0.1), nb.Tanh, nb.Sigmoid])


def _norm(rng):
    makers = [nb.BatchNorm] * 4 + [
        lambda: nb.BatchNorm(activation=str(rng.choice(["relu", "leaky_relu", "tanh", "sigmoid"]))),
        lambda: nb.BatchNorm(virtual_batch_size=4),
        lambda: nb.BatchNorm(decay=None),
        lambda: nb.BatchNorm(zero_debias=True, unbiased_batch=True),
        lambda: nb.BatchNorm(renorm=nb.Renorm(3, dmax=5)),
    ]
    return _choice(rng, makers)


def _sometimes(rng, chance, make):
    return [make()] if rng.random() < chance else []


def _layers(rng, image):
    layers, side, filters = [], image[0], image[-1]
    for _ in range(int(rng.integers(1, 4)) if len(image) == 3 else 0):
        if rng.random() < 0.15:
            layers.append(nb.Residual([nb.Conv2D(filters, 3), nb.BatchNorm(), nb.ReLU()]))
        else:
            filters = int(rng.choice([3, 8, 16, 20, 32]))
            size, stride = int(rng.choice([1, 3, 3, 3])), int(rng.choice([1, 1, 1, 2]))
            layers.append(nb.Conv2D(filters, size, stride=stride, use_bias=bool(rng.random() < 0.5)))
        layers += _sometimes(rng, 0.7, lambda: _norm(rng)) + _sometimes(rng, 0.7, lambda: _activation(rng))
        if side >= 8:
            pool = _sometimes(rng, 0.4, lambda: nb.MaxPool2D(2) if rng.random() < 0.8 else nb.AvgPool2D(2))
            layers, side = layers + pool, side // 2
        layers += _sometimes(rng, 0.3, lambda: nb.Dropout(float(rng.random() * 0.6)))
    if len(image) == 3:
        layers.append(nb.Flatten() if rng.random() < 0.7 else nb.GlobalAvgPool2D())
    for _ in range(int(rng.integers(0, 3))):
        layers.append(nb.Dense(int(rng.choice([5, 16, 33, 64])), use_bias=bool(rng.random() < 0.5)))
        layers += _sometimes(rng, 0.6, lambda: _norm(rng)) + _sometimes(rng, 0.7, lambda: _activation(rng))
        layers += _sometimes(rng, 0.4, lambda: nb.Dropout(float(rng.random() * 0.6)))
    return [*layers, nb.Dense(4)]


def training(rng, dtype, backend):
    """Four training steps of a random model, then a forward and a backward pass, and a prediction."""
    image = (*_image(rng, 14)[1:], int(rng.choice([1, 3, 8]))) if rng.random() < 0.7 else (int(rng.integers(1, 20)),)
    model = nb.Sequential(_layers(rng, image))
    model.build(image, backend=backend, dtype=dtype, seed=int(rng.integers(1000)), fuse=bool(rng.random() < 0.9))
    params = list(model.params.values())
    if rng.random() < 0.2:
        params[int(rng.integers(len(params)))].trainable = False
    loss = str(rng.choice(["softmax_cross_entropy"] * 4 + ["mean_squared_error", "sum_squared_error"]))
    rows = int(rng.choice([4, 8, 12, 32]))
    x = _normal(rng, (rows, *image), dtype)
    y = rng.integers(0, 4, rows) if loss == "softmax_cross_entropy" else _normal(rng, (rows, 4), dtype)
    optimizer = _choice(rng, [lambda: nb.SGD(0.01, momentum=0.9), lambda: nb.Adam(1e-3), lambda: nb.AdamW(1e-3), lambda: nb.RMSProp(1e-3)])
    options = {"clip_norm": 1.0 if rng.random() < 0.2 else None, "accumulate": 2 if rng.random() < 0.2 else 1}
    trainer = nb.Trainer(model, loss=loss, optimizer=optimizer, **options)
    losses = [trainer.train_batch(x, y)["loss"] for _ in range(4)]
    out, tape = model.forward(x, train=True)
    dx = model.backward(_normal(rng, out.shape, dtype), tape)
    return losses, out, dx, *(param.grad for param in params), *model.state().values(), model.predict(x), *optimizer.state.values()


CASES = [convolution, dense, batch_norm, group_norm, dropout, pooling, resampling, *[training] * 4]
