"""What error messages of conversions and averages say is executed here, and works."""

import numpy as np
from messages import code, said

import nbnet as nb

X = np.arange(24, dtype=np.float32).reshape(12, 2)


def norm(**options):
    model = nb.Sequential([nb.BatchNorm(**options)])
    model.build((2,), backend="serial")
    return model.layers[0]


def test_statistics_of_another_layer():
    values = nb.batch_norm_export(norm(eps=1e-3), "pytorch")
    make = code(r": create it with (BatchNorm\(eps=0.001\))$", said(lambda: nb.batch_norm_import(norm(), "pytorch", values)))
    layer = eval(f"nb.{make}", {"nb": nb})
    layer.build((2,), backend="serial")
    nb.batch_norm_import(layer, "pytorch", values)
    values = nb.batch_norm_export(norm(), "pytorch") | {"weight": np.full(2, 3.0)}
    option = code(r": build it with (scale=True)$", said(lambda: nb.batch_norm_import(norm(scale=False), "pytorch", values)))
    nb.batch_norm_import(norm(**eval(f"dict({option})")), "pytorch", values)


def test_another_decay_before_exporting():
    layer = norm(decay=None)
    assert code(r": (set another decay) before exporting$", said(lambda: nb.batch_norm_export(layer, "keras")))
    assert nb.batch_norm_export(norm(decay=0.9), "keras")["momentum"] == 0.9


def test_images_of_the_course():
    images, scale = np.ones((4, 3, 2, 2)), (np.ones(3), np.zeros(3))
    from nbnet import cs231n

    name = code(r": for images \(N, C, H, W\) use (\w+)$", said(lambda: cs231n.batchnorm_forward(images, *scale, {"mode": "train"})))
    assert getattr(cs231n, name)(images, *scale, {"mode": "train"})[0].shape == images.shape


def test_averages():
    average = nb.ExponentialMovingAverage(0.9)
    assert code(r"no average of 'w' yet: (apply) it first$", said(lambda: average.average("w")))
    average.apply({"w": X})
    assert average.average("w").shape == X.shape
    wrong = nb.ExponentialMovingAverage(0.9, zero_debias=True)
    assert code(r": leave (start=) out$", said(lambda: wrong.apply({"w": X}, start={"w": X})))
    wrong.apply({"w": X})
